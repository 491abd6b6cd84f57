"""All features of a batch at once against the sample a package carries, with a limit that training batches set."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from clearway.contracts.errors import Unmeasurable
from clearway.measures.domain_classifier import MAX_ROWS, Separation, separation

Floats = npt.NDArray[np.float64]

# Training batches looked at for the limit, evenly spaced: each costs two solves, about 0.02 s, of every training.
MAX_BATCHES = 8
# Like the limit of a single feature; see `distance`.
LIMIT_QUANTILE = 0.95
MIN_BATCHES = 2
# Categories with fewer rows than this in the sample tell nothing apart.
MIN_CATEGORY_SHARE = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class Together:
    """`limit`: what training batches reached beside the rest of the sample; None for too few of them."""

    found: Separation
    limit: float | None

    @property
    def is_over(self) -> bool | None:
        return None if self.limit is None else self.found.auc > self.limit


def usual_separations(
    sample: Mapping[str, Sequence[Any]], sample_batch: Sequence[int], table: pa.Table, batch_code: npt.NDArray[np.int64]
) -> list[float]:
    """AUC of each of some training batches against the sample rows of the others.

    Args: sample_batch: batch code of each sample row; batch_code: of each row of `table`. [N]
    """
    found = []
    owner = np.asarray(sample_batch)
    num_batches = int(batch_code.max()) + 1
    for batch in np.unique(np.linspace(0, num_batches - 1, min(num_batches, MAX_BATCHES)).astype(np.int64)):
        others = {
            name: [v for v, b in zip(values, owner, strict=True) if b != batch] for name, values in sample.items()
        }
        try:
            found.append(_separation(others, _some_rows(table, np.flatnonzero(batch_code == batch))).auc)
        except Unmeasurable:  # a batch cut short sets no limit
            continue
    return found


def compare_together(reference: Mapping[str, Any], table: pa.Table) -> Together | None:
    """A batch against the sample of a reference; None when one of them has too few rows.

    Args: reference: of `clearway.measures.distance.build_reference`.
    """
    usual = reference.get("usual_separations") or []
    limit = float(np.quantile(usual, LIMIT_QUANTILE)) if len(usual) >= MIN_BATCHES else None
    try:
        return Together(found=_separation(reference["sample"], table), limit=limit)
    except Unmeasurable:
        return None


def _some_rows(table: pa.Table, places: npt.NDArray[np.int64]) -> pa.Table:
    """Evenly spaced ones of the rows, as many as are compared."""
    chosen = np.unique(np.linspace(0, len(places) - 1, min(MAX_ROWS, len(places))).astype(np.int64))
    return table.take(pa.array(places[chosen]))


def _separation(sample: Mapping[str, Sequence[Any]], table: pa.Table) -> Separation:
    if not any(sample.values()):
        raise Unmeasurable(
            "a sample without rows has nothing to compare; build the reference with more features or batches"
        )
    left, right = [], []
    for name, values in sample.items():
        is_text = _is_text(table.schema.field(name).type) or any(isinstance(v, str) for v in values)
        columns = _one_hot(values, table.column(name)) if is_text else _numbers(values, table.column(name))
        left.append(columns[0])
        right.append(columns[1])
    return separation(np.concatenate(left, axis=1), np.concatenate(right, axis=1))


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _numbers(values: Sequence[Any], column: pa.ChunkedArray) -> tuple[Floats, Floats]:
    plain = column.cast(pa.int8()) if pa.types.is_boolean(column.type) else column
    before = np.asarray([np.nan if v is None else v for v in values], dtype=np.float64)
    return before[:, None], plain.cast(pa.float64()).to_numpy()[:, None]


def _one_hot(values: Sequence[Any], column: pa.ChunkedArray) -> tuple[Floats, Floats]:
    text = np.asarray([str(v) for v in values])
    known, counts = np.unique(text, return_counts=True)
    kept = known[counts >= max(1.0, MIN_CATEGORY_SHARE * len(text))]
    now = pc.fill_null(column.cast(pa.string()), "None").to_numpy().astype(str)
    before, after = ((side[:, None] == kept[None, :]).astype(np.float64) for side in (text, now))
    return before, after
