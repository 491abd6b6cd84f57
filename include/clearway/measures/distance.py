"""How far one batch lies from the training period, feature by feature, with limits the training period sets itself.

Everything works on small histograms (at most 10 bins per feature, counts and sums), which add and subtract: a limit for
every feature needs one pass over the rows and then only features x bins x batches numbers. Formulas, their sources and
values checked by hand: docs/reference/drift.md.

Shapes: F features, B bins (or categories), N rows, T training batches.
"""

# ruff: noqa: N803, N806 - shape letters in names

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

REFERENCE_VERSION = 1
# Deciles: the usual resolution of PSI, and small enough that a batch of 200 rows leaves about 20 rows per bin.
NUM_BINS = 10
# Share given to an empty bin so that the logarithm stays finite: far below any share that matters.
PSI_FLOOR = 1e-4
# A feature's limit: this quantile of the distances between each training batch and the rest of the training period.
LIMIT_QUANTILE = 0.95
# Below a hundredth (of a standard deviation, or of the rows) a change is not worth a word, however quiet training was.
LIMIT_FLOOR = 0.01
# One batch has nothing to be compared with; two give each other a distance.
MIN_BATCHES = 2
# A batch cut short (the first or last of a period) is noisier than the rest and would widen every limit.
MIN_BATCH_SHARE = 0.5
# Categories kept one by one; rarer ones share the last bin. This bounds the size of the reference, not its meaning.
MAX_CATEGORIES = 40
MIN_CATEGORY_SHARE = 0.002
# Values in the carried sample: with 86 columns about 130 kB of JSON, which every reader of the package has to load.
MAX_SAMPLE_VALUES = 18_000
MAX_SAMPLE_ROWS = 500
NUMERIC, CATEGORICAL = "numeric", "categorical"


def psi(reference_B: npt.ArrayLike, current_B: npt.ArrayLike, *, floor: float = PSI_FLOOR) -> float:
    """Population stability index between two binned distributions.

    Args:
        reference_B: share of rows per bin at training time, sums to 1. [B]
        current_B: same bins, same order, live window. [B]
        floor: share given to an empty bin, dimensionless; keeps the log finite.
    Returns: index in nats, >= 0; 0 means identical.
    Source: symmetric Kullback-Leibler divergence over bins, docs/reference/drift.md#psi.
    """
    p, q = (np.where(a == 0, floor, a) for a in (_shares(reference_B), _shares(current_B)))
    return float(np.sum((p - q) * np.log(p / q)))


def total_variation(reference_B: npt.ArrayLike, current_B: npt.ArrayLike) -> float:
    """Half the sum of absolute differences between shares: the share of rows that would have to move. 0 to 1."""
    return float(0.5 * np.abs(_shares(reference_B) - _shares(current_B)).sum())


def jensen_shannon(reference_B: npt.ArrayLike, current_B: npt.ArrayLike) -> float:
    """Jensen-Shannon distance: square root of the divergence in bits, 0 (same) to 1 (no bin in common)."""
    p, q = _shares(reference_B), _shares(current_B)
    middle = (p + q) / 2
    divergence = (_relative_entropy(p, middle) + _relative_entropy(q, middle)) / 2
    return float(np.sqrt(max(0.0, divergence)))


def wasserstein(
    reference_B: npt.ArrayLike,
    reference_at_B: npt.ArrayLike,
    current_B: npt.ArrayLike,
    current_at_B: npt.ArrayLike,
) -> float:
    """First Wasserstein distance between two sets of weighted points, in the unit of the points.

    Args:
        reference_B, current_B: weights (counts or shares). [B]
        reference_at_B, current_at_B: where each weight lies; for a histogram the mean of the rows of that bin, so that
            a shift inside an open outer bin still counts. [B]
    Returns: integral of |F - G|, >= 0.
    Source: area between the two cumulative distribution functions; docs/reference/drift.md#wasserstein.
    """
    at = np.concatenate([np.asarray(reference_at_B, dtype=np.float64), np.asarray(current_at_B, dtype=np.float64)])
    order = np.argsort(at, kind="stable")
    steps = np.concatenate([_shares(reference_B), -_shares(current_B)])[order]
    return float(np.sum(np.abs(np.cumsum(steps)[:-1]) * np.diff(at[order])))


def quantile_edges(values_N: Floats, *, num_bins: int = NUM_BINS) -> Floats:
    """Inner bin edges at the quantiles of finite values, each at most once: at most `num_bins - 1` of them.

    Bins are open below and closed above, so that a value held by many rows (zero, say) keeps a bin of its own.
    """
    if not values_N.size:
        return np.empty(0)
    return np.unique(np.quantile(values_N, np.arange(1, num_bins) / num_bins))


class Bins(NamedTuple):
    """Rows per batch and bin, the sum of their values, and rows without a value."""

    counts: Floats  # [T, B]
    sums: Floats  # [T, B]; zeros for a categorical feature
    missing: Floats  # [T]

    def total(self) -> "Bins":
        """All batches as one. [1, B]"""
        return Bins(*(part.sum(axis=0, keepdims=True) for part in self))

    def without(self, batch: int) -> "Bins":
        """All batches but one, by subtraction. [1, B]"""
        return Bins(*(part.sum(axis=0, keepdims=True) - part[batch : batch + 1] for part in self))

    def only(self, batch: int) -> "Bins":
        """One batch. [1, B]"""
        return Bins(*(part[batch : batch + 1] for part in self))

    @property
    def missing_share(self) -> float:
        """Share of rows without a value, over everything held. NaN-free: 0 for no rows."""
        present = float(self.counts.sum())
        rows = present + float(self.missing.sum())
        return float(self.missing.sum()) / rows if rows else 0.0

    @property
    def means(self) -> Floats:
        """Mean value per bin of the first batch held; 0 for an empty bin (its weight is 0 as well). [B]"""
        counts = self.counts[0]
        means: Floats = np.divide(self.sums[0], counts, out=np.zeros_like(counts), where=counts > 0)
        return means


@dataclass(frozen=True, slots=True, kw_only=True)
class Drift:
    """One feature of one batch against the reference.

    Args:
        distance: numeric: Wasserstein over the reference's standard deviation; categorical: total variation. None when
            the batch or the reference has no value to compare.
        limit: what training batches themselves reached; None when the reference has too few batches.
        psi, jensen_shannon: for readers who know them; no decision reads them.
        missing, missing_reference, missing_limit: shares of rows without a value.
        num_values: rows with a value in the batch.
    """

    name: str
    kind: str
    distance: float | None
    limit: float | None
    psi: float | None
    jensen_shannon: float | None
    missing: float
    missing_reference: float
    missing_limit: float | None
    num_values: int

    @property
    def is_over(self) -> bool | None:
        """Whether the distance exceeds the feature's own limit; None when nothing can be said."""
        if self.distance is None or self.limit is None:
            return None
        return self.distance > self.limit

    @property
    def excess(self) -> float:
        """Distance in units of its limit, the order in which people should look; 0 when unknown."""
        return self.distance / self.limit if self.distance is not None and self.limit else 0.0

    @property
    def is_going_missing(self) -> bool:
        """Whether clearly more rows lack a value than in any usual training batch."""
        return self.missing_limit is not None and self.missing - self.missing_reference > self.missing_limit


def build_reference(
    table: pa.Table,
    *,
    numeric: Sequence[str],
    categorical: Sequence[str],
    batch_column: str,
    score_column: str | None = None,
) -> dict[str, Any]:
    """What a package carries about its training period; plain JSON with finite numbers, below 200 kB for 86 features.

    Args:
        table: training rows; nulls, NaN and infinities count as missing.
        numeric, categorical: the model's columns.
        batch_column: names the batch of each row; limits come from leaving out one batch at a time.
        score_column: the model's own score for these rows, if there is one.
    Returns: `features` (name → bins, counts, missing share, limits), `score` (the same for the score, or None),
        `null_shares` (per training batch, share of features over limits that the other batches set), `sample`
        (column → values of some rows), `num_rows`, `num_batches`, `version`.
    Raises: ValueError for an empty table.
    """
    if not len(table):
        raise ValueError("drift reference needs training rows, the table has 0; pass the rows the model was trained on")
    batch_N = _batch_codes(table.column(batch_column))
    built = {name: _feature(table.column(name), NUMERIC, batch_N) for name in numeric}
    built |= {name: _feature(table.column(name), CATEGORICAL, batch_N) for name in categorical}
    score = _feature(table.column(score_column), NUMERIC, batch_N)[0] if score_column else None
    return {
        "version": REFERENCE_VERSION,
        "num_rows": len(table),
        "num_batches": int(batch_N.max()) + 1,
        "features": {name: entry for name, (entry, _) in built.items()},
        "score": score,
        "null_shares": _null_shares([distances for _, distances in built.values()]),
        "sample": _sample(table, numeric=numeric, categorical=categorical),
    }


def compare(reference: dict[str, Any], table: pa.Table, *, ignore: Sequence[str] = ()) -> tuple[Drift, ...]:
    """Every feature of `reference` but those in `ignore`, measured on the rows of `table`; largest excess first."""
    found = [
        compare_column(name, entry, table.column(name))
        for name, entry in reference["features"].items()
        if name not in set(ignore)
    ]
    return tuple(sorted(found, key=lambda d: (-d.excess, d.name)))


def compare_column(name: str, entry: dict[str, Any], column: pa.ChunkedArray) -> Drift:
    """One column against its entry of the reference."""
    current = _count(column, entry, np.zeros(len(column), dtype=np.int64), num_batches=1)
    reference = _stored_bins(entry)
    has_values = bool(current.counts.sum() and reference.counts.sum())
    p, q = reference.counts[0], current.counts[0]
    return Drift(
        name=name,
        kind=entry["kind"],
        distance=_distance(entry["kind"], reference, current, scale=entry["sd"]) if has_values else None,
        limit=entry["limit"],
        psi=psi(p, q) if has_values else None,
        jensen_shannon=jensen_shannon(p, q) if has_values else None,
        missing=current.missing_share,
        missing_reference=entry["missing"],
        missing_limit=entry["missing_limit"],
        num_values=int(q.sum()),
    )


def _shares(weights: npt.ArrayLike) -> Floats:
    values = np.asarray(weights, dtype=np.float64)
    total = values.sum()
    if not np.isfinite(total) or total <= 0 or values.min() < 0:
        raise ValueError(f"bin weights {values.tolist()} have no distribution; non-negative with a positive sum needed")
    shares: Floats = values / total
    return shares


def _relative_entropy(p: Floats, q: Floats) -> float:
    held = p > 0
    return float(np.sum(p[held] * np.log2(p[held] / q[held])))


def _distance(kind: str, reference: Bins, current: Bins, *, scale: float) -> float:
    """The distance the alarm reads. A feature that never varied has no unit: the share of rows that left it counts."""
    if kind == CATEGORICAL or scale == 0:
        return total_variation(reference.counts[0], current.counts[0])
    return wasserstein(reference.counts[0], reference.means, current.counts[0], current.means) / scale


def _feature(column: pa.ChunkedArray, kind: str, batch_N: Ints) -> tuple[dict[str, Any], list[float | None]]:
    """The reference entry of one feature and its leave-one-out distances. [T]"""
    entry = _bin_rule(column, kind)
    bins = _count(column, entry, batch_N, num_batches=int(batch_N.max()) + 1)
    total = bins.total()
    distances = _left_out(bins, kind, scale=entry["sd"])
    known = [d for d in distances if d is not None]
    shares = [abs(bins.only(t).missing_share - total.missing_share) for t in range(len(distances))]
    entry |= {
        "counts": [int(c) for c in total.counts[0]],
        "means": [float(f"{m:.9g}") for m in total.means] if kind == NUMERIC else [],
        "missing": total.missing_share,
        "limit": _limit(known),
        "missing_limit": _limit(shares),
    }
    return entry, distances


def _bin_rule(column: pa.ChunkedArray, kind: str) -> dict[str, Any]:
    """Where the bins lie: inner edges and standard deviation, or the categories that get a bin of their own."""
    if kind == NUMERIC:
        values = _numbers(column)
        held = values[np.isfinite(values)]
        is_constant = not held.size or held.min() == held.max()
        edges = _edges_around(held[:1]) if is_constant else quantile_edges(held)
        return {"kind": NUMERIC, "edges": edges.tolist(), "sd": 0.0 if is_constant else float(held.std())}
    counts = pc.value_counts(column.cast(pa.string()).drop_null()).to_pylist()
    least = MIN_CATEGORY_SHARE * len(column)
    ranked = sorted(((c["counts"], c["values"]) for c in counts if c["counts"] >= least), key=lambda c: (-c[0], c[1]))
    return {"kind": CATEGORICAL, "values": sorted(value for _, value in ranked[:MAX_CATEGORIES]), "sd": 0.0}


def _edges_around(constant: Floats) -> Floats:
    """Three bins for a feature that never varied: below it, exactly it, above it."""
    return np.concatenate([np.nextafter(constant, -np.inf), constant])


def _count(column: pa.ChunkedArray, entry: dict[str, Any], batch_N: Ints, *, num_batches: int) -> Bins:
    """Rows into bins; the last bin of a categorical feature takes every value without one of its own."""
    if entry["kind"] == NUMERIC:
        values = _numbers(column)
        num_bins = len(entry["edges"]) + 1
        is_present = np.isfinite(values)
        bin_N = np.searchsorted(np.asarray(entry["edges"]), values, side="left")
        weights = np.where(is_present, values, 0.0)
    else:
        num_bins = len(entry["values"]) + 1
        text = column.cast(pa.string())
        found = pc.index_in(text, value_set=pa.array(entry["values"], pa.string()))
        bin_N = pc.fill_null(found, num_bins - 1).to_numpy().astype(np.int64)
        is_present = text.is_valid().to_numpy()
        weights = np.zeros(len(column))
    cell = (batch_N * num_bins + bin_N)[is_present]
    size = num_batches * num_bins
    return Bins(
        counts=np.bincount(cell, minlength=size).astype(np.float64).reshape(num_batches, -1),
        sums=np.bincount(cell, weights=weights[is_present], minlength=size).astype(np.float64).reshape(num_batches, -1),
        missing=np.bincount(batch_N[~is_present], minlength=num_batches).astype(np.float64),
    )


def _stored_bins(entry: dict[str, Any]) -> Bins:
    counts = np.asarray([entry["counts"]], dtype=np.float64)
    sums = counts * np.asarray([entry["means"]]) if entry["kind"] == NUMERIC else np.zeros_like(counts)
    return Bins(counts=counts, sums=sums, missing=np.zeros(1))


def _left_out(bins: Bins, kind: str, *, scale: float) -> list[float | None]:
    """Distance of each whole training batch from all others; None for a batch cut short or without values. [T]"""
    rows_T = bins.counts.sum(axis=1) + bins.missing
    is_whole = rows_T >= MIN_BATCH_SHARE * np.median(rows_T)
    distances: list[float | None] = []
    for batch in range(len(rows_T)):
        one, rest = bins.only(batch), bins.without(batch)
        can_compare = is_whole[batch] and one.counts.sum() and rest.counts.sum()
        distances.append(_distance(kind, rest, one, scale=scale) if can_compare else None)
    return distances


def _limit(distances: list[float]) -> float | None:
    if len(distances) < MIN_BATCHES:
        return None
    return max(LIMIT_FLOOR, float(np.quantile(distances, LIMIT_QUANTILE)))


def _null_shares(distances_F: list[list[float | None]]) -> list[float]:
    """Per training batch: share of features over the limit that the others set. What "no drift" looks like. [T]"""
    shares = []
    for batch in range(len(distances_F[0]) if distances_F else 0):
        over = [_is_over_others(distances, batch) for distances in distances_F]
        known = [o for o in over if o is not None]
        if known:
            shares.append(sum(known) / len(known))
    return shares


def _is_over_others(distances: list[float | None], batch: int) -> bool | None:
    own = distances[batch]
    limit = _limit([d for t, d in enumerate(distances) if t != batch and d is not None])
    return None if own is None or limit is None else own > limit


def _numbers(column: pa.ChunkedArray) -> Floats:
    values = column.cast(pa.int8()) if pa.types.is_boolean(column.type) else column
    numbers: Floats = values.cast(pa.float64()).to_numpy()
    return numbers


def _batch_codes(column: pa.ChunkedArray) -> Ints:
    text = column.cast(pa.string())
    names = pa.array(sorted(pc.unique(text).to_pylist()), pa.string())
    codes: Ints = pc.index_in(text, value_set=names).to_numpy().astype(np.int64)
    return codes


def _sample(table: pa.Table, *, numeric: Sequence[str], categorical: Sequence[str]) -> dict[str, list[Any]]:
    """Evenly spaced rows, so that the same table always gives the same sample."""
    columns = [*numeric, *categorical]
    num_rows = min(len(table), MAX_SAMPLE_ROWS, max(1, MAX_SAMPLE_VALUES // max(1, len(columns))))
    rows = table.select(columns).take(pa.array(np.linspace(0, len(table) - 1, num_rows).astype(np.int64)))
    sample: dict[str, list[Any]] = {name: _rounded(_numbers(rows.column(name))) for name in numeric}
    return sample | {name: rows.column(name).cast(pa.string()).to_pylist() for name in categorical}


def _rounded(values_N: Floats) -> list[float | None]:
    """To about a thousandth of their spread, which no picture shows; keeps the JSON small. None for no finite value."""
    held = values_N[np.isfinite(values_N)]
    spread = float(held.std()) if held.size else 0.0
    digits = 2 - int(np.floor(np.log10(spread))) if spread > 0 else 6
    return [round(float(v), digits) if np.isfinite(v) else None for v in values_N]
