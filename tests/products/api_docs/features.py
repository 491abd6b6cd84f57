"""What can be said of a text without reading it: for slices, and to see when the texts change."""

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F  # noqa: N812 - its usual name


def build(tables: dict[str, DataFrame]) -> DataFrame:
    """The documents with their length, how they are written, and whether they tell of a service or of an operation."""
    num_bytes = F.octet_length("text")
    return tables["rows"].withColumns(
        {
            "num_bytes": num_bytes,
            "share_capital": _count("[A-Z]") / num_bytes,
            "share_digit": _count("[0-9]") / num_bytes,
            "kind": F.when(F.col("key").endswith("/"), "service").otherwise("operation"),
        }
    )


def _count(pattern: str) -> Column:
    return F.octet_length("text") - F.octet_length(F.regexp_replace(F.col("text"), pattern, ""))
