"""The one definition of training and holdout."""

from datetime import date, timedelta

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clearway.contracts.errors import DataError
from clearway.packaging.split import holdout_start, split_at, time_fold

FIRST = date(2013, 1, 1)


def table_of(days: list[int], labels: list[float | None] | None = None) -> pa.Table:
    labels = [1.0] * len(days) if labels is None else labels
    return pa.table(
        {
            "day": pa.array([FIRST + timedelta(days=d) for d in days], pa.date32()),
            "label": pa.array(labels, pa.float64()),
            "row": list(range(len(days))),
        }
    )


def test_holdout_is_the_newest_labelled_days():
    table = table_of([0, 1, 2, 3, 4, 9], [1.0, 0.0, 1.0, 0.0, 1.0, None])
    split = split_at(table, holdout_days=2)
    assert split.holdout_start == FIRST + timedelta(days=3)
    assert split.train["row"].to_pylist() == [0, 1, 2]
    assert split.holdout["row"].to_pylist() == [3, 4]


@pytest.mark.parametrize("days", [[0, 0, 1, 3, 3], [3, 0, 1, 3, 0]], ids=["in the order of time", "in any other"])
def test_both_parts_keep_the_order_of_the_table(days):
    split = split_at(table_of(days), holdout_days=1)
    assert split.train["row"].to_pylist() == [i for i, day in enumerate(days) if day != 3]
    assert split.holdout["row"].to_pylist() == [i for i, day in enumerate(days) if day == 3]


@given(st.lists(st.integers(0, 30), min_size=1), st.integers(1, 10))
def test_every_labelled_row_is_on_exactly_one_side_and_no_day_on_both(days, holdout_days):
    try:
        split = split_at(table_of(days), holdout_days=holdout_days)
    except DataError:
        assert min(days) > max(days) - holdout_days
        return
    rows = split.train["row"].to_pylist() + split.holdout["row"].to_pylist()
    assert sorted(rows) == list(range(len(days)))
    assert max(split.train["day"].to_pylist()) < split.holdout_start <= min(split.holdout["day"].to_pylist())


def test_no_labels_and_no_days_are_errors():
    with pytest.raises(DataError, match="label"):
        split_at(table_of([0, 1], [None, None]), holdout_days=1)
    with pytest.raises(DataError, match="older"):
        split_at(table_of([0, 1]), holdout_days=2)
    with pytest.raises(ValueError, match="at least 1"):
        holdout_start(FIRST, holdout_days=0)


@given(st.lists(st.integers(0, 9), min_size=2), st.floats(0.05, 0.9))
def test_time_fold_keeps_days_whole_and_both_parts_filled(days, share):
    if len(set(days)) == 1:
        with pytest.raises(DataError, match="two days"):
            time_fold(table_of(days), valid_share=share)
        return
    older, newer = time_fold(table_of(days), valid_share=share)
    assert len(older) + len(newer) == len(days)
    assert max(older["day"].to_pylist()) < min(newer["day"].to_pylist())
