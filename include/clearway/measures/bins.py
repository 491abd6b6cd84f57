"""Rows of one column into few bins, batch by batch: counts and sums, which add up over batches and subtract.

Shapes: B bins (or categories), N rows, T batches.
"""

# ruff: noqa: N803, N806 - shape letters in names

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

# Deciles: the usual resolution of PSI, and small enough that a batch of 200 rows leaves about 20 rows per bin.
NUM_BINS = 10
# Categories kept one by one; rarer ones share the last bin. This bounds the size of the reference, not its meaning.
MAX_CATEGORIES = 40
MIN_CATEGORY_SHARE = 0.002
# Names of categories carried so that a new one is known as new; a feature with more has no word for "new".
MAX_SEEN = 500
NUMERIC, CATEGORICAL = "numeric", "categorical"


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

    def of(self, batches: Ints) -> "Bins":
        """Some batches. [T', B]"""
        return Bins(*(part[batches] for part in self))

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


def bin_rule(column: pa.ChunkedArray, kind: str) -> dict[str, Any]:
    """Where the bins lie: inner edges and standard deviation, or the categories that get a bin of their own."""
    if kind == NUMERIC:
        held = finite_of(column)
        is_constant = not held.size or held.min() == held.max()
        edges = _edges_around(held[:1]) if is_constant else quantile_edges(held)
        return {"kind": NUMERIC, "edges": edges.tolist(), "sd": 0.0 if is_constant else float(held.std())}
    counts = pc.value_counts(column.cast(pa.string()).drop_null()).to_pylist()
    seen = sorted(c["values"] for c in counts) if len(counts) <= MAX_SEEN else None
    least = MIN_CATEGORY_SHARE * len(column)
    ranked = sorted(((c["counts"], c["values"]) for c in counts if c["counts"] >= least), key=lambda c: (-c[0], c[1]))
    kept = sorted(value for _, value in ranked[:MAX_CATEGORIES])
    return {"kind": CATEGORICAL, "values": kept, "seen": seen, "sd": 0.0}


def _edges_around(constant: Floats) -> Floats:
    """Three bins for a feature that never varied: below it, exactly it, above it."""
    return np.concatenate([np.nextafter(constant, -np.inf), constant])


def count_rows(column: pa.ChunkedArray, entry: Mapping[str, Any], batch_N: Ints, *, num_batches: int) -> Bins:
    """Rows into bins; the last bin of a categorical feature takes every value without one of its own."""
    if entry["kind"] == NUMERIC:
        values = numbers_of(column)
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


def stored_bins(entry: Mapping[str, Any]) -> Bins:
    """The counts of a reference entry, as one batch. [1, B]"""
    counts = np.asarray([entry["counts"]], dtype=np.float64)
    sums = counts * np.asarray([entry["means"]]) if entry["kind"] == NUMERIC else np.zeros_like(counts)
    return Bins(counts=counts, sums=sums, missing=np.zeros(1))


def numbers_of(column: pa.ChunkedArray) -> Floats:
    """A column of numbers or truths as floats; null is NaN. [N]"""
    values = column.cast(pa.int8()) if pa.types.is_boolean(column.type) else column
    numbers: Floats = values.cast(pa.float64()).to_numpy()
    return numbers


def finite_of(column: pa.ChunkedArray) -> Floats:
    """Those of its values that are numbers. [at most N]"""
    values = numbers_of(column)
    return values[np.isfinite(values)]
