"""A batch counted in pieces is the batch counted whole."""

from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clearway.measures.distance import build_reference, compare, compare_tally
from clearway.measures.tally import tally

NUM_ROWS = 400


def rows(seed: int) -> pa.Table:
    """Measured, read in steps, constant, true or false, and categories; some of each missing."""
    rng = np.random.default_rng(seed)
    is_missing = rng.random(NUM_ROWS) < 0.1
    columns: dict[str, Any] = {
        "measured": rng.normal(size=NUM_ROWS),
        "read": rng.poisson(9, NUM_ROWS) * 1.15078,
        "constant": np.full(NUM_ROWS, 3.0),
        "is_open": rng.random(NUM_ROWS) < 0.5,
        "code": rng.choice(["u", "v", "w", f"new{seed}"], NUM_ROWS),
    }
    arrays = {name: pa.array(values, mask=is_missing) for name, values in columns.items()}
    return pa.table(arrays | {"batch_id": [f"{i // 40:02}" for i in range(NUM_ROWS)]})


@pytest.fixture(scope="module")
def reference() -> dict[str, Any]:
    numeric = ["measured", "read", "constant", "is_open"]
    return build_reference(rows(0), numeric=numeric, categorical=["code"], batch_column="batch_id")


@given(st.lists(st.integers(0, NUM_ROWS), max_size=5), st.integers(1, 20), st.integers(1, 9))
def test_pieces_add_up_to_the_whole(reference: dict[str, Any], cuts: list[int], seed: int, num_days: int) -> None:
    batch, entries = rows(seed), reference["features"]
    days = np.random.default_rng(seed).integers(100, 100 + num_days, NUM_ROWS)
    edges = sorted({0, NUM_ROWS, *cuts})
    parts = [tally(entries, batch.slice(a, b - a), days=days[a:b]) for a, b in pairwise(edges)]
    total = parts[0]
    for part in parts[1:]:
        total = total.plus(part)
    whole = tally(entries, batch, days=days)
    assert total.days == whole.days
    for name, column in whole.columns.items():
        assert np.array_equal(column.bins.counts, total.columns[name].bins.counts)
        assert np.array_equal(column.bins.missing, total.columns[name].bins.missing)
        np.testing.assert_allclose(column.bins.sums, total.columns[name].bins.sums, rtol=1e-12, atol=1e-12)
        assert (column.num_unseen, column.num_asked) == (total.columns[name].num_unseen, total.columns[name].num_asked)
        assert column.num_sized == total.columns[name].num_sized
        assert column.log_sum == pytest.approx(total.columns[name].log_sum, rel=1e-12, abs=1e-9)
    for one, other in zip(compare(reference, batch, days=days), compare_tally(entries, total), strict=True):
        assert one.name == other.name
        assert one.is_over == other.is_over
        assert (one.distance, one.lower, one.upper) == pytest.approx((other.distance, other.lower, other.upper))


def test_the_order_of_pieces_does_not_matter(reference: dict[str, Any]) -> None:
    entries = reference["features"]
    early, late = (tally(entries, rows(seed), days=np.full(NUM_ROWS, day)) for seed, day in ((1, 7), (2, 3)))
    one, other = early.plus(late), late.plus(early)
    assert one.days == other.days == (3, 7)
    for name in entries:
        for a, b in zip(one.columns[name].bins, other.columns[name].bins, strict=True):
            assert np.array_equal(a, b)
