"""Documents of a dataset: which a model may learn from, as tokens, and which it is judged on.

Days part them, as they part rows of any model. Texts are repeated more often than rows are: a held-out document that
stands in the training part word for word shows memory, not judgement, so it is counted and left out, and so is every
repetition within the held-out part.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from clearway.contracts.errors import DataError
from clearway.contracts.refs import DatasetRef
from clearway.infra.datasets import BATCH, open_dataset, read_features, token_uris
from clearway.infra.environment import Environment
from clearway.infra.layout import Layout
from clearway.infra.storage import Storage, to_path
from clearway.packaging.split import split_days
from clearway.product import LoadedProduct


@dataclass(frozen=True, slots=True, kw_only=True)
class Documents:
    """Feature rows with their text, both parts oldest first. `num_repeated`: held-out rows that were left out;
    `share_empty`: of all rows, those whose text says nothing and which are in neither part."""

    train: pa.Table
    holdout: pa.Table
    holdout_start: date
    num_repeated: int
    share_empty: float


def read_documents(storage: Storage, dataset: DatasetRef, *, product: LoadedProduct, env: Environment) -> Documents:
    """The documents of a dataset, holdout apart. Raises: DataError if either part is empty."""
    layout, text = Layout(env.store_root, product.name), product.spec.language.text
    rows = read_features(storage, layout, open_dataset(storage, dataset))
    # A text that says nothing can be neither learned nor judged; its token stays in the shards, an end without a word.
    told = rows.filter(pc.greater(pc.binary_length(rows[text]), 0))
    split = split_days(told, holdout_days=product.spec.release.holdout_days)
    is_new = are_new(split.holdout[text].to_pylist(), known=split.train[text].to_pylist())
    if not any(is_new):
        raise DataError(
            f"all {len(is_new)} held-out documents from {split.holdout_start} stand in the training part word for "
            "word; nothing can be judged, use more data or more holdout days"
        )
    return Documents(
        train=split.train,
        holdout=split.holdout.filter(pa.array(is_new)),
        holdout_start=split.holdout_start,
        num_repeated=is_new.count(False),
        share_empty=1 - len(told) / len(rows),
    )


def are_new(texts: Iterable[str], *, known: Iterable[str]) -> list[bool]:
    """Which texts stand neither in `known` nor earlier among themselves, word for word."""
    seen, found = set(known), list[bool]()
    for text in texts:
        found.append(text not in seen)
        seen.add(text)
    return found


def training_shards(
    storage: Storage,
    dataset: DatasetRef,
    documents: Documents,
    *,
    product: LoadedProduct,
    env: Environment,
    folder: Path,
) -> list[tuple[Path, int]]:
    """(file, number of its first tokens that are of the training part) of every shard that holds any.

    A shard holds its batch's documents by time, so the training part is its beginning. Shards that lie in no file
    system are copied to `folder`.
    """
    document, layout = open_dataset(storage, dataset), Layout(env.store_root, product.name)
    rows = read_features(storage, layout, document)
    rows = rows.filter(pc.less(rows["day"], pa.scalar(documents.holdout_start, pa.date32())))
    shards = []
    for piece, uri in zip(document.features, token_uris(storage, layout, document), strict=True):
        texts = rows.filter(pc.equal(rows[BATCH], piece.batch_id))[product.spec.language.text]
        if len(texts):
            # A token per byte, and one that begins the document.
            shards.append(
                (_in_file(storage, uri, folder, piece.batch_id), pc.sum(pc.binary_length(texts)).as_py() + len(texts))
            )
    return shards


def _in_file(storage: Storage, uri: str, folder: Path, name: str) -> Path:
    if uri.startswith("file://"):
        return to_path(uri)
    path = folder / f"tokens-{name}.bin"
    path.write_bytes(storage.read(uri))
    return path
