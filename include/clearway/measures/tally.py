"""A batch as counts beside a reference: day by day and bin by bin, never a row.

Tallies of parts add up to the tally of the whole, so a batch of any size is counted piece by piece in the memory of one
piece, wherever the pieces lie.

Shapes: B bins (or categories), D days, N rows.
"""

# ruff: noqa: N803, N806 - shape letters in names

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from clearway.measures.bins import NUMERIC, Bins, Floats, Ints, count_rows, finite_of
from clearway.measures.grid import off_grid
from clearway.measures.size import size_sum

Entry = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class ColumnTally:
    """One column of a batch.

    Args:
        bins: a row per day. [D, B]
        num_unseen: values that training never held; None for a column without a word for new.
        num_asked: values that were asked whether they are; of numbers, those that are not zero.
        num_sized, log_sum: values that are not zero, and the sum of their logarithms; 0 for a column without a size.
    """

    bins: Bins
    num_unseen: int | None
    num_asked: int
    num_sized: int = 0
    log_sum: float = 0.0

    @property
    def unseen(self) -> float | None:
        """Share of values that training never held, 0 to 1; None where nothing was asked."""
        return None if self.num_unseen is None or not self.num_asked else self.num_unseen / self.num_asked


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """A batch or a part of one. `days`: of its rows, in order; columns by name."""

    days: tuple[int, ...]
    columns: Mapping[str, ColumnTally]

    def plus(self, other: "Tally") -> "Tally":
        """Both parts together; they were counted beside the same reference."""
        days = np.union1d(self.days, other.days).astype(np.int64)
        columns = {
            name: _sum(_on(self.columns[name], self.days, days), _on(other.columns[name], other.days, days))
            for name in self.columns
        }
        return Tally(days=tuple(days.tolist()), columns=columns)


def tally(entries: Mapping[str, Entry], table: pa.Table, *, days: npt.ArrayLike | None = None) -> Tally:
    """Every column of `entries`, counted on the rows of `table`.

    Args:
        entries: name → reference entry; see `distance.build_reference`.
        days: of each row; None puts all of them on one. [N]
    """
    asked = np.zeros(len(table), dtype=np.int64) if days is None else np.asarray(days)
    distinct, code_N = np.unique(asked, return_inverse=True)
    columns = {
        name: tally_column(entry, table.column(name), code_N, num_days=len(distinct)) for name, entry in entries.items()
    }
    return Tally(days=tuple(distinct.tolist()), columns=columns)


def tally_column(entry: Entry, column: pa.ChunkedArray, code_N: Ints, *, num_days: int) -> ColumnTally:
    """One column. `code_N`: day of each row, from 0 on."""
    bins = count_rows(column, entry, code_N, num_batches=num_days)
    if entry["kind"] != NUMERIC:
        num_unseen, num_asked = _num_unseen_names(column, entry)
        return ColumnTally(bins=bins, num_unseen=num_unseen, num_asked=num_asked)
    values = finite_of(column)
    beside, asked = off_grid(values, entry["grid"], spread=entry["sd"]) if entry.get("grid") else (None, 0)
    num_sized, log_sum = size_sum(values, spread=entry["sd"]) if entry.get("size") else (0, 0.0)
    return ColumnTally(bins=bins, num_unseen=beside, num_asked=asked, num_sized=num_sized, log_sum=log_sum)


def _num_unseen_names(column: pa.ChunkedArray, entry: Entry) -> tuple[int | None, int]:
    if entry.get("seen") is None:
        return None, 0
    text = column.cast(pa.string())
    is_known = pc.or_(pc.is_in(text, value_set=pa.array(entry["seen"], pa.string())), text.is_null())
    return len(column) - int(pc.sum(is_known.cast(pa.int64())).as_py() or 0), len(column)


def _on(column: ColumnTally, own: tuple[int, ...], days: Ints) -> ColumnTally:
    """The same counts with a row for every one of `days`."""
    rows = np.searchsorted(days, own)
    return ColumnTally(
        bins=Bins(*(_spread(part, rows, len(days)) for part in column.bins)),
        num_unseen=column.num_unseen,
        num_asked=column.num_asked,
        num_sized=column.num_sized,
        log_sum=column.log_sum,
    )


def _spread(part: Floats, rows: Ints, num_days: int) -> Floats:
    found = np.zeros((num_days, *part.shape[1:]))
    found[rows] = part
    return found


def _sum(one: ColumnTally, other: ColumnTally) -> ColumnTally:
    has_word = one.num_unseen is not None and other.num_unseen is not None
    return ColumnTally(
        bins=Bins(*(a + b for a, b in zip(one.bins, other.bins, strict=True))),
        num_unseen=(one.num_unseen or 0) + (other.num_unseen or 0) if has_word else None,
        num_asked=one.num_asked + other.num_asked,
        num_sized=one.num_sized + other.num_sized,
        log_sum=one.log_sum + other.log_sum,
    )
