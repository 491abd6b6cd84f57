"""Blocks of training days: newest first, never overlapping where they judge, models always older."""

from datetime import date, timedelta

import pyarrow as pa
import pytest

from clearway.contracts.errors import DataError
from clearway.infra.datasets import DAY
from clearway.tune.windows import by_day, trimmed, windows_of

START = date(2013, 1, 1)


def rows_of(counts: list[int]) -> pa.Table:
    days = [START + timedelta(days=i) for i, count in enumerate(counts) for _ in range(count)]
    return pa.table({DAY: pa.array(days, pa.date32()), "row": list(range(len(days)))})


def test_each_window_ends_where_the_one_before_judges() -> None:
    rows = rows_of([10] * 20)
    found = windows_of(rows, max_rows=100, num_wanted=4)
    assert [(w.start, w.cut, w.stop) for w in found] == [
        (100, 180, 200),
        (80, 160, 180),
        (60, 140, 160),
        (40, 120, 140),
    ]
    assert (found[1].first_day, found[1].last_day) == ("2013-01-17", "2013-01-18")
    for window in found:
        older, newer = window.older(rows)[DAY].to_pylist(), window.newer(rows)[DAY].to_pylist()
        assert max(older) < min(newer), "a model may not be judged on days it was trained on"


def test_windows_end_before_they_are_half_as_long() -> None:
    found = windows_of(rows_of([10] * 20), max_rows=10_000, num_wanted=9)
    assert [w.stop - w.start for w in found] == [200, 160, 120]


def test_days_are_never_split_and_one_day_is_refused() -> None:
    (window,) = windows_of(rows_of([50, 50, 3, 40]), max_rows=10_000, num_wanted=1)
    assert window.cut == 103
    with pytest.raises(DataError, match="two days are needed"):
        windows_of(rows_of([50]), max_rows=100, num_wanted=3)


def test_rows_no_window_uses_are_cut_off() -> None:
    rows = rows_of([10] * 20)
    windows = windows_of(rows, max_rows=60, num_wanted=2)
    kept, moved = trimmed(rows, windows)
    assert len(kept) < len(rows)
    for before, after in zip(windows, moved, strict=True):
        assert before.older(rows).equals(after.older(kept)) and before.newer(rows).equals(after.newer(kept))


def test_rows_are_put_in_the_order_of_their_days_and_keep_their_own() -> None:
    rows = rows_of([3, 3])
    mixed = rows.take([3, 0, 4, 1, 5, 2])
    assert by_day(mixed)["row"].to_pylist() == [0, 1, 2, 3, 4, 5]
