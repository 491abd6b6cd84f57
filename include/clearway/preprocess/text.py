"""Documents to tokens in Spark: what `clearway.language.tokens` says of one text, for a column of them."""

from pyspark.sql import Column
from pyspark.sql import functions as F  # noqa: N812 - its usual name

from clearway.infra.datasets import TOKENS

# The mark, 256, and then each byte, as two bytes each, the lower first: hexadecimal digits are spelled apart and a zero
# byte is put behind each pair. The filler is no digit and no letter, which engines read as part of a group's name.
_MARK, _FILLER = "0001", "--"


def tokens_of(column: str) -> Column:
    """The tokens of a text column as binary, ready to be put one behind the other. Null stays null."""
    digits = F.hex(F.encode(F.col(column), "UTF-8"))
    spaced = F.translate(F.regexp_replace(digits, "(..)", "$1" + _FILLER), "-", "0")
    return F.unhex(F.concat(F.lit(_MARK), spaced)).alias(TOKENS)
