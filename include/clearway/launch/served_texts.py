"""How well each language model did on the texts it really read, beside a compressor on the same texts."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from clearway.evaluate.compressor import DICTIONARY_FILE, Compressor
from clearway.infra.datasets import KEY, read_features
from clearway.infra.environment import Environment
from clearway.infra.layout import Layout
from clearway.infra.storage import Storage, open_storage, read_if_there
from clearway.ingest.ledger import landed_batches
from clearway.launch.served import Served, TextScore, everything
from clearway.monitor.prediction_log import read_predictions
from clearway.packaging.package import open_package
from clearway.packaging.text import TextEncoder, beginning
from clearway.product import LoadedProduct


@dataclass(frozen=True, slots=True, kw_only=True)
class _Read:
    """Texts of one batch that one model answered. `compressed_bits`: None where no compressor is known."""

    batch_id: str
    num_rows: int
    num_bytes: int
    bits: float
    compressed_bits: float | None


def measure_texts(env: Environment, product: LoadedProduct, *, releases: dict[str, str]) -> dict[str, Served]:
    """See `served.measure_served`; the texts of a batch at a time."""
    storage, layout = open_storage(env.store_root), Layout(env.store_root, product.name)
    read = defaultdict[str, list[_Read]](list)
    readers: dict[str, _Reader] = {}
    for batch_id in landed_batches(storage, layout):
        log = read_predictions(storage, layout, [batch_id])
        for digest in pc.unique(log["model_digest"]).to_pylist():
            if digest not in readers:
                readers[digest] = _reader(env, storage, layout, digest=digest, release_id=releases.get(digest))
            rows = log.filter(pc.equal(log["model_digest"], digest))
            texts = _texts(storage, layout, product, batch_id=batch_id, keys=rows["key"])
            read[digest].append(readers[digest].judged(batch_id, texts, rows["score"].to_pylist()))
    return {digest: _served(digest, parts) for digest, parts in read.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Reader:
    """One model. `max_bytes`: of a text, as it takes it."""

    max_bytes: int
    compressor: Compressor | None

    def judged(self, batch_id: str, texts: Sequence[str | None], scores: Sequence[float]) -> _Read:
        """Of texts with a byte. `scores`: bits per byte of each."""
        sent = [(beginning(text, self.max_bytes), score) for text, score in zip(texts, scores, strict=True) if text]
        sizes = np.array([len(text.encode()) for text, _ in sent], dtype=np.float64)
        known = self.compressor.bits_per_byte([text for text, _ in sent]) if self.compressor else None
        return _Read(
            batch_id=batch_id,
            num_rows=len(sent),
            num_bytes=int(sizes.sum()),
            bits=float(np.array([score for _, score in sent]) @ sizes),
            compressed_bits=None if known is None else float(known @ sizes),
        )


def _reader(env: Environment, storage: Storage, layout: Layout, *, digest: str, release_id: str | None) -> _Reader:
    encoder = open_package(storage, layout.model(digest), digest, key_folder=env.home / "keys").encoder
    assert isinstance(encoder, TextEncoder), "a product without a label has models of texts"
    data = read_if_there(storage, layout.release(release_id, "evaluate", DICTIONARY_FILE)) if release_id else None
    return _Reader(max_bytes=encoder.max_bytes, compressor=None if data is None else Compressor(data))


def _texts(
    storage: Storage, layout: Layout, product: LoadedProduct, *, batch_id: str, keys: pa.ChunkedArray
) -> list[str | None]:
    """The batch's text of each key; None for a key that a caller made up."""
    column, document = product.spec.language.text, everything(storage, layout, product.name, [batch_id])
    if not document.features:
        return [None] * len(keys)
    known = read_features(storage, layout, document, columns=[KEY, column])
    at = pc.index_in(keys, value_set=known[KEY].combine_chunks())
    return known[column].take(at).to_pylist()  # type: ignore[no-any-return]


def _served(digest: str, parts: list[_Read]) -> Served:
    num_bytes = sum(part.num_bytes for part in parts)
    compressed = [part.compressed_bits for part in parts if part.compressed_bits is not None]
    score = TextScore(bits_per_byte=sum(part.bits for part in parts) / num_bytes) if num_bytes else None
    has_reference = bool(num_bytes) and len(compressed) == len(parts)
    return Served(
        model_digest=digest,
        batch_ids=tuple(part.batch_id for part in parts),
        num_rows=sum(part.num_rows for part in parts),
        score=score,
        reference=TextScore(bits_per_byte=sum(compressed) / num_bytes) if has_reference else None,
    )
