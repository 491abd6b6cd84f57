"""The split: shares are honoured, sticky callers stay, bad tables never take effect."""

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clearway.contracts.errors import ConfigError
from clearway.serve.traffic import Traffic, sticky_point


def test_one_taker_needs_no_draw():
    assert Traffic({"a": 100.0, "b": 0.0}).only == "a"


def test_an_empty_table_takes_no_traffic():
    assert Traffic({}).is_empty
    assert Traffic({}).only is None


@pytest.mark.parametrize(
    "weights",
    [{"a": 99.0}, {"a": 101.0}, {"a": -1.0, "b": 101.0}, {"a": float("nan")}, {"a": float("inf")}, {"a": 0.0}],
    ids=str,
)
def test_a_table_that_is_no_split_is_refused(weights):
    with pytest.raises(ConfigError, match="allowed"):
        Traffic(weights)


def test_shares_are_honoured_within_three_sigma():
    traffic, source, num_draws = Traffic({"a": 10.0, "b": 90.0}), random.Random(7), 100_000  # noqa: S311
    counts = Counter(traffic.choose(source.random() * 100) for _ in range(num_draws))
    sigma = (num_draws * 0.1 * 0.9) ** 0.5
    assert abs(counts["a"] - 10_000) < 3 * sigma


def test_sticky_keys_spread_evenly():
    traffic = Traffic({"a": 25.0, "b": 75.0})
    counts = Counter(traffic.choose(sticky_point(f"user-{i}".encode())) for i in range(100_000))
    assert abs(counts["a"] - 25_000) < 3 * (100_000 * 0.25 * 0.75) ** 0.5


@given(st.binary(max_size=40), st.lists(st.floats(1, 99), min_size=2, max_size=6))
def test_a_sticky_caller_stays_with_a_version_whose_share_only_rises(key, shares):
    point, has_candidate = sticky_point(key), False
    for share in sorted(shares):
        chosen = Traffic({"candidate": share, "champion": 100.0 - share}).choose(point)
        assert chosen == "candidate" or not has_candidate
        has_candidate = chosen == "candidate"


@given(st.floats(0, 100, exclude_max=True), st.integers(1, 99))
def test_every_point_has_an_owner(point, share):
    assert Traffic({"a": float(share), "b": 100.0 - share}).choose(point) == ("a" if point < share else "b")


def test_a_sum_that_rounds_below_hundred_still_has_an_owner_at_its_end():
    third = 100 / 3
    assert Traffic({"a": third, "b": third, "c": third}).choose(99.99999999999999) == "c"
