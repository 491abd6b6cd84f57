"""Read datasets: features of a range of batches joined with the labels known when the dataset was made.

A dataset is a small JSON document of digests, so making one copies no data. Shared by every stage that reads rows;
heavy imports (pyarrow) stay inside this file, which only jobs import.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

import pyarrow as pa
import pyarrow.compute as pc

from clearway.contracts.codec import from_jsonable, to_jsonable
from clearway.contracts.errors import IntegrityError
from clearway.contracts.manifest import canonical_json, sha256_of
from clearway.contracts.refs import DatasetRef
from clearway.infra.layout import Layout
from clearway.infra.parquet import read_parquet, read_since
from clearway.infra.snapshots import Snapshot, current
from clearway.infra.storage import Storage

FEATURES_FILE = "features.parquet"
TOKENS_FILE = "tokens.bin"  # of a product with text: every row's tokens, in the order of the feature file
KEY = "key"  # string: the product's key
TIME = "event_time"  # timestamp[us, UTC]: when the predicted thing is scheduled
DAY = "day"  # date32: the UTC day of TIME, the block of every resampling
BATCH = "batch_id"  # string
TOKENS = "tokens"  # binary: a document, as clearway.language reads it
LABEL = "label"  # float64 0/1, null while unknown


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """One batch's snapshot inside a dataset."""

    batch_id: str
    digest: str
    num_rows: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetDocument:
    """What a dataset is made of.

    Args:
        as_of: end of the window, ISO 8601 UTC; labels that arrived later are not in it.
        schema: column → type name of the feature files, in order.
        features: feature snapshots, by batch.
        labels: batch snapshots whose label table counts, by batch.
    """

    product: str
    as_of: str
    schema: dict[str, str]
    features: tuple[Piece, ...]
    labels: tuple[Piece, ...]


def write_dataset(storage: Storage, layout: Layout, document: DatasetDocument) -> DatasetRef:
    """Store the document under its own digest; writing it again changes nothing."""
    data = canonical_json(to_jsonable(document))
    digest = sha256_of(data)
    uri = layout.dataset(digest)
    storage.create(uri, data)
    return DatasetRef(uri=uri, digest=digest)


def open_dataset(storage: Storage, ref: DatasetRef) -> DatasetDocument:
    """Raises: IntegrityError if the bytes are not the ones `ref` names."""
    data = storage.read(ref.uri)
    if sha256_of(data) != ref.digest:
        raise IntegrityError(f"dataset {ref.uri} has digest {sha256_of(data)}, expected {ref.digest}; make it again")
    return from_jsonable(DatasetDocument, json.loads(data))


def feature_uris(storage: Storage, layout: Layout, document: DatasetDocument) -> list[str]:
    """Addresses of the feature files, oldest batch first."""
    return [_pinned(storage, layout.features(p.batch_id), p).file_uri(FEATURES_FILE) for p in document.features]


def token_uris(storage: Storage, layout: Layout, document: DatasetDocument) -> list[str]:
    """Addresses of the token shards, oldest batch first. Raises: IntegrityError for a product without text."""
    return [_pinned(storage, layout.features(p.batch_id), p).file_uri(TOKENS_FILE) for p in document.features]


def read_features(
    storage: Storage,
    layout: Layout,
    document: DatasetDocument,
    columns: Sequence[str] | None = None,
    *,
    since: date | None = None,
) -> pa.Table:
    """Feature rows (KEY, TIME, DAY, BATCH, model columns), oldest first; `columns` narrows what is read, `since` leaves
    out rows of earlier days."""
    wanted = None if columns is None else [c for c in columns if c != BATCH]
    tables = []
    for piece, uri in zip(document.features, feature_uris(storage, layout, document), strict=True):
        table = read_parquet(uri, columns=wanted) if since is None else read_since(uri, DAY, since, columns=wanted)
        tables.append(table.append_column(BATCH, pa.array([piece.batch_id] * len(table), pa.string())))
    return pa.concat_tables(tables)


def read_labels(
    storage: Storage, layout: Layout, document: DatasetDocument, *, table: str, key: str, column: str
) -> pa.Table:
    """Every label known as of the dataset: KEY, LABEL. Raises: IntegrityError if a key has two labels."""
    tables = []
    for piece in document.labels:
        snapshot = _pinned(storage, layout.batch(piece.batch_id), piece)
        tables.append(read_parquet(snapshot.file_uri(f"{table}.parquet"), columns=[key, column]))
    if not tables:
        return pa.table({KEY: pa.array([], pa.string()), LABEL: pa.array([], pa.float64())})
    joined = pa.concat_tables(tables).rename_columns([KEY, LABEL])
    labels = pa.table({KEY: joined[KEY], LABEL: joined[LABEL].cast(pa.float64())}).filter(joined[LABEL].is_valid())
    if len(labels[KEY].unique()) != len(labels):
        counts = labels[KEY].value_counts()
        keys = counts.filter(pc.greater(counts.field("counts"), 1)).field("values").to_pylist()
        raise IntegrityError(
            f"{len(keys)} keys of {table!r} have several labels, {keys[:3]} among them; allowed: one per key over all "
            "batches; a landed batch never changes, so let `shape` drop what came twice and start a new store"
        )
    return labels


def read_labelled(
    storage: Storage,
    layout: Layout,
    document: DatasetDocument,
    *,
    table: str,
    key: str,
    column: str,
    since: date | None = None,
) -> pa.Table:
    """Feature rows that have a label, with LABEL, in a fixed order (TIME, then KEY); of `since` or later, if given."""
    features = read_features(storage, layout, document, since=since)
    labels = read_labels(storage, layout, document, table=table, key=key, column=column)
    # Found and put in order by key and time alone, so that a hundred columns are copied once.
    place = pc.index_in(features[KEY], value_set=labels[KEY]).combine_chunks()
    known = pc.indices_nonzero(place.is_valid())
    ordered = pc.sort_indices(
        features.select([TIME, KEY]).take(known), sort_keys=[(TIME, "ascending"), (KEY, "ascending")]
    )
    rows, found = known.take(ordered), dict[str, pa.ChunkedArray]()
    for name in features.column_names:  # each let go once it is copied: a year is not held twice
        found[name] = features[name].take(rows)
        features = features.drop_columns([name])
    return pa.table(found).append_column(LABEL, labels[LABEL].take(place.take(rows)))


def _pinned(storage: Storage, base: str, piece: Piece) -> Snapshot:
    snapshot = current(storage, base)
    if snapshot is None or snapshot.digest != piece.digest:
        found = snapshot.digest if snapshot else "nothing"
        raise IntegrityError(f"{base} holds {found}, the dataset names {piece.digest}; run the preprocess stage again")
    return snapshot
