"""The yardstick of a language dataset: what a compressor says of the documents that candidates are judged on."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from clearway.evaluate.compressor import Compressor
from clearway.evaluate.kinds import Ground
from clearway.evaluate.yardsticks import seeded
from clearway.language.documents import Documents, read_documents


@dataclass(frozen=True, slots=True, kw_only=True)
class TextYardstick:
    """`bits_per_byte` of each judged document. [B]"""

    bits_per_byte: tuple[float, ...]


def measure(ground: Ground) -> TextYardstick:
    """See `kinds.yardsticks_of`."""
    text = ground.product.spec.language.text
    documents = read_documents(ground.storage, ground.dataset, product=ground.product, env=ground.env)
    compressor, judged = Compressor.after(documents.train[text].to_pylist()), drawn(documents, ground)
    return TextYardstick(bits_per_byte=tuple(compressor.bits_per_byte(judged[text].to_pylist()).tolist()))


def drawn(documents: Documents, ground: Ground) -> pa.Table:
    """The held-out documents that are judged: all, or as many as the gates ask for, in their order."""
    table, size = documents.holdout, ground.product.spec.language.gates.max_documents
    if len(table) <= size:
        return table
    rng = seeded(ground.dataset.digest)("documents")
    return table.take(pa.array(np.sort(rng.choice(len(table), size, replace=False))))
