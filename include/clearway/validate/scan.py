"""One pass over a dataset's feature files: counts per column and per rule, never the rows themselves.

Memory is one chunk of one file plus 8 bytes per row for the keys (a 64-bit hash each), whatever the history. A missing
value is a null or a NaN: engines disagree on which of the two is "null", so both count.
"""

from dataclasses import dataclass
from datetime import datetime

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from clearway.infra.datasets import DAY, KEY, LABEL, TIME, DatasetDocument, feature_uris, read_labels
from clearway.infra.layout import Layout
from clearway.infra.parquet import open_parquet
from clearway.infra.storage import Storage

ROWS_PER_CHUNK = 65_536


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One column over all files. `types`: every Arrow type it has in some file; one when all is well."""

    name: str
    types: tuple[str, ...]
    num_missing: int
    num_infinite: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Scan:
    """What one pass saw.

    Args:
        columns: in the order of the first file.
        other_orders: batches whose files have other columns, or the same in another order.
        num_rows, expected_rows: in the files, and as the dataset document says.
        num_duplicate_keys: rows whose key an earlier row had.
        num_wrong_days: rows whose DAY is not the UTC day of their TIME.
        first, last: smallest and largest TIME, or None without rows.
        num_labelled, num_positive: rows with a label, and with label 1.
        num_strange_labels: labels other than 0 and 1.
    """

    columns: tuple[Column, ...]
    other_orders: tuple[str, ...]
    num_rows: int
    expected_rows: int
    num_duplicate_keys: int
    num_wrong_days: int
    first: datetime | None
    last: datetime | None
    num_labelled: int
    num_positive: int
    num_strange_labels: int


class _Totals:
    """Counters that grow chunk by chunk."""

    def __init__(self) -> None:
        self.missing: dict[str, int] = {}
        self.infinite: dict[str, int] = {}
        self.types: dict[str, set[str]] = {}
        self.keys: list[npt.NDArray[np.uint64]] = []
        self.num_rows = 0
        self.num_wrong_days = 0
        self.times: list[datetime] = []

    def add(self, chunk: pa.RecordBatch) -> None:
        self.num_rows += chunk.num_rows
        for field, values in zip(chunk.schema, chunk.columns, strict=True):
            missing, infinite = _count(values)
            self.missing[field.name] = self.missing.get(field.name, 0) + missing
            self.infinite[field.name] = self.infinite.get(field.name, 0) + infinite
            self.types.setdefault(field.name, set()).add(str(field.type))
        names = set(chunk.schema.names)
        if KEY in names:
            self.keys.append(_hashes(chunk.column(KEY)))
        if TIME in names and pa.types.is_timestamp(chunk.schema.field(TIME).type):
            self._add_times(chunk, has_day=DAY in names)

    def _add_times(self, chunk: pa.RecordBatch, *, has_day: bool) -> None:
        ends = pc.min_max(chunk.column(TIME)).as_py()
        self.times += [t for t in (ends["min"], ends["max"]) if t is not None]
        if has_day:
            same = pc.equal(chunk.column(TIME).cast(pa.date32(), safe=False), chunk.column(DAY).cast(pa.date32()))
            self.num_wrong_days += chunk.num_rows - (pc.sum(same).as_py() or 0)


def scan(storage: Storage, layout: Layout, document: DatasetDocument, *, label: tuple[str, str, str] | None) -> Scan:
    """Count everything the own gate asks for.

    Args: label: table, key column and label column of the product; None if it has no label.
    Raises: IntegrityError if a published snapshot is not the one the dataset names.
    """
    totals = _Totals()
    order: list[str] | None = None
    others = []
    for piece, uri in zip(document.features, feature_uris(storage, layout, document), strict=True):
        with open_parquet(uri) as file:
            names = file.schema_arrow.names
            order = order or names
            if names != order:
                others.append(piece.batch_id)
            for field in file.schema_arrow:  # a file without rows still has a schema to answer for
                totals.types.setdefault(field.name, set()).add(str(field.type))
            for chunk in file.iter_batches(batch_size=ROWS_PER_CHUNK):
                totals.add(chunk)
    keys = np.concatenate(totals.keys) if totals.keys else np.empty(0, np.uint64)
    labels = _labels(storage, layout, document, label=label, keys=keys)
    return Scan(
        columns=tuple(_column(name, totals) for name in order or ()),
        other_orders=tuple(others),
        num_rows=totals.num_rows,
        expected_rows=sum(piece.num_rows for piece in document.features),
        num_duplicate_keys=int(keys.size - np.unique(keys).size),
        num_wrong_days=totals.num_wrong_days,
        first=min(totals.times, default=None),
        last=max(totals.times, default=None),
        num_labelled=int(labels.size),
        num_positive=int((labels == 1.0).sum()),
        num_strange_labels=int((~np.isin(labels, (0.0, 1.0))).sum()),
    )


def _column(name: str, totals: _Totals) -> Column:
    return Column(
        name=name,
        types=tuple(sorted(totals.types[name])),
        num_missing=totals.missing.get(name, 0),
        num_infinite=totals.infinite.get(name, 0),
    )


def _count(values: pa.Array) -> tuple[int, int]:
    """Missing (null or NaN) and infinite values of one array."""
    if not pa.types.is_floating(values.type):
        return values.null_count, 0
    numbers = values.to_numpy(zero_copy_only=False)  # null becomes NaN
    finite = int(np.isfinite(numbers).sum())
    if finite == numbers.size:
        return 0, 0
    infinite = int(np.isinf(numbers).sum())
    return numbers.size - finite - infinite, infinite


def _hashes(keys: pa.Array) -> npt.NDArray[np.uint64]:
    """64-bit hash per key; 10 million distinct keys collide with a chance of 3 in a million."""
    from pandas.util import hash_array  # type: ignore[import-untyped]

    hashed: npt.NDArray[np.uint64] = hash_array(keys.cast(pa.string()).to_numpy(zero_copy_only=False), categorize=False)
    return hashed


def _labels(
    storage: Storage,
    layout: Layout,
    document: DatasetDocument,
    *,
    label: tuple[str, str, str] | None,
    keys: npt.NDArray[np.uint64],
) -> npt.NDArray[np.float64]:
    """Labels of rows in the dataset, in no particular order."""
    if label is None:
        return np.empty(0)
    table, key, column = label
    known = read_labels(storage, layout, document, table=table, key=key, column=column)
    if not len(known):
        return np.empty(0)
    is_here = np.isin(_hashes(known[KEY].combine_chunks()), keys)
    labels: npt.NDArray[np.float64] = known[LABEL].to_numpy()[is_here]
    return labels
