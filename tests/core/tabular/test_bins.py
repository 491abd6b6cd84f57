"""Quantile bins: every value has one place, and the places are those of the training data."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from clearway.tabular.bins import Bins

VALUES = st.floats(-1e6, 1e6, width=32) | st.just(float("nan")) | st.integers(-3, 3).map(float)
COLUMNS = hnp.arrays(np.float32, st.tuples(st.integers(1, 60), st.integers(1, 3)), elements=VALUES)


@given(train=COLUMNS, num_bins=st.integers(2, 9))
def test_places_are_inside_their_bins_and_rise_with_the_value(train, num_bins):
    bins = Bins.fit(train, num_bins=num_bins)
    index, place = bins.place(train)
    assert ((place >= 0) & (place <= 1)).all()
    assert ((index == num_bins) == np.isnan(train)).all()
    for i in range(train.shape[1]):
        held = ~np.isnan(train[:, i])
        order = np.argsort(train[held, i], kind="stable")
        position = (index[held, i].astype(float) + place[held, i])[order]
        assert (np.diff(position) >= 0).all()
        assert np.isfinite(bins.low[i][index[held, i]]).all()


def test_bins_hold_equal_shares_of_a_continuous_column():
    column = np.random.default_rng(0).normal(size=(8000, 1)).astype(np.float32)
    index, _ = Bins.fit(column, num_bins=8).place(column)
    assert np.abs(np.bincount(index[:, 0], minlength=8) - 1000).max() <= 1


def test_few_values_give_few_bins_and_the_ends_clamp():
    bins = Bins.fit(np.array([[0.0], [1.0], [1.0], [4.0]], np.float32), num_bins=8)
    index, place = bins.place(np.array([[-9.0], [0.0], [0.5], [1.0], [2.5], [4.0], [99.0]], np.float32))
    assert index[:, 0].tolist() == [0, 0, 0, 1, 1, 1, 1]
    assert place[:, 0].tolist() == [0.0, 0.0, 0.5, 0.0, 0.5, 1.0, 1.0]


def test_constant_and_empty_columns_have_one_place():
    bins = Bins.fit(np.array([[7.0, np.nan]] * 5, np.float32), num_bins=4)
    index, place = bins.place(np.array([[7.0, 1.0], [8.0, np.nan], [np.nan, -1.0]], np.float32))
    assert index.tolist() == [[0, 0], [0, 4], [4, 0]]
    assert place.tolist() == [[0, 0], [0, 0], [0, 0]]


def test_a_row_has_the_same_places_alone_among_many_and_by_any_number_of_threads():
    rows = np.random.default_rng(0).normal(size=(40_000, 3)).astype(np.float32)
    rows[::7, 1] = np.nan
    bins = Bins.fit(rows, num_bins=8)
    once = [part.tobytes() for part in bins.place(rows)]
    pieces = [bins.place(rows[start : start + 999]) for start in range(0, len(rows), 999)]
    assert [np.concatenate(part).tobytes() for part in zip(*pieces, strict=True)] == once
    assert [part.tobytes() for part in bins.place(rows, num_threads=3)] == once
