"""Rows of one column into few bins, batch by batch: counts and sums, which add up over batches and subtract.

A text is spread over its tokens, so that it is one row like any other: a long one does not count for more.

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
NUMERIC, CATEGORICAL, TEXT = "numeric", "categorical", "text"
# Tokens of a text: its bytes, and its end.
NUM_TOKENS, END = 257, 256
# Of texts, counted at a time: keeps the arrays of a count at some tens of MB.
MAX_BYTES_AT_ONCE = 1 << 20


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
    """Where the bins lie: inner edges and standard deviation, or the categories that get a bin; tokens need no rule."""
    if kind == TEXT:
        return {"kind": TEXT, "sd": 0.0}
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
    """Rows into bins; the last bin of a categorical feature takes every value without one of its own.

    A text without a byte is missing.
    """
    if entry["kind"] == TEXT:
        return _count_tokens(column, batch_N, num_batches=num_batches)
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


def _count_tokens(column: pa.ChunkedArray, batch_N: Ints, *, num_batches: int) -> Bins:
    """Of every text the shares of its tokens, which add up to 1, so to a row. [T, NUM_TOKENS]"""
    length_N = pc.fill_null(pc.binary_length(column), 0).to_numpy().astype(np.int64)
    counts = np.zeros(num_batches * NUM_TOKENS)
    ends_N = np.cumsum(length_N)
    start = 0
    while start < len(length_N):
        before = ends_N[start] - length_N[start]
        stop = max(start + 1, int(np.searchsorted(ends_N, before + MAX_BYTES_AT_ONCE, side="right")))
        texts = b"".join(text.encode() for text in column.slice(start, stop - start).to_pylist() if text)
        lengths = length_N[start:stop]
        cell = np.repeat(batch_N[start:stop] * NUM_TOKENS, lengths) + np.frombuffer(texts, np.uint8)
        counts += np.bincount(cell, weights=np.repeat(1.0 / (lengths + 1), lengths), minlength=counts.size)
        start = stop
    is_present = length_N > 0
    counts += np.bincount(
        batch_N[is_present] * NUM_TOKENS + END, weights=1.0 / (length_N[is_present] + 1), minlength=counts.size
    )
    found = counts.reshape(num_batches, NUM_TOKENS)
    missing = np.bincount(batch_N[~is_present], minlength=num_batches).astype(np.float64)
    return Bins(counts=found, sums=np.zeros_like(found), missing=missing)


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
