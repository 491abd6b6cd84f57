"""Validation windows: blocks of whole training days, the newest first, each judged by models of older rows only.

The holdout of the release is not among these rows. Window 0 is the newest `max_rows` rows, judged on their newest days;
each further window ends where the days of the one before begin.
"""

from dataclasses import dataclass, replace

import pyarrow as pa
import pyarrow.compute as pc

from clearway.contracts.errors import DataError
from clearway.infra.datasets import DAY
from clearway.packaging.split import time_fold

# Newest share of the rows that trials are judged on: about as long as the product's own holdout.
VALID_SHARE = 0.2
# A window with less than this share of the first one's rows would judge another, smaller model.
MIN_SHARE = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """Rows [start, cut) train, rows [cut, stop) judge; `first_day`, `last_day`: of those that judge, ISO 8601."""

    start: int
    cut: int
    stop: int
    first_day: str
    last_day: str

    def older(self, rows: pa.Table) -> pa.Table:
        return rows.slice(self.start, self.cut - self.start)

    def newer(self, rows: pa.Table) -> pa.Table:
        return rows.slice(self.cut, self.stop - self.cut)


def by_day(rows: pa.Table) -> pa.Table:
    """The rows in the order of their days; rows of one day keep theirs."""
    return rows.take(pc.sort_indices(rows, sort_keys=[(DAY, "ascending")]))


def trimmed(rows: pa.Table, windows: tuple[Window, ...]) -> tuple[pa.Table, tuple[Window, ...]]:
    """Rows that no window uses cut off, and the windows moved accordingly."""
    unused = min(window.start for window in windows)
    moved = (replace(w, start=w.start - unused, cut=w.cut - unused, stop=w.stop - unused) for w in windows)
    return rows.slice(unused), tuple(moved)


def windows_of(rows: pa.Table, *, max_rows: int, num_wanted: int) -> tuple[Window, ...]:
    """At most `num_wanted` windows of `rows`, which are in the order of their days.

    Raises: DataError if the rows are of one day only.
    """
    found, stop = list[Window](), len(rows)
    while len(found) < num_wanted:
        start = max(0, stop - max_rows)
        if found and stop - start < MIN_SHARE * (found[0].stop - found[0].start):
            break
        part = rows.slice(start, stop - start)
        try:
            _, newer = time_fold(part, valid_share=VALID_SHARE)
        except DataError:
            if not found:
                raise
            break
        days = pc.min_max(newer[DAY]).as_py()
        cut = stop - len(newer)
        found.append(Window(start=start, cut=cut, stop=stop, first_day=str(days["min"]), last_day=str(days["max"])))
        stop = cut
    return tuple(found)
