"""Bets on paired differences: fair under the hypothesis by exact enumeration, and a band that keeps its promise."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clearway.evidence import paired
from clearway.evidence.paired import NO_BETS, STAKES, Band

THRESHOLDS = st.floats(-0.9, 0.9)
DIFFERENCES = st.lists(st.floats(-1, 1), max_size=12)


def expected(values: list[float], chances: list[float], length: int, threshold: float) -> list[float]:
    """Expectation of the capital per stake after `length` independent differences, over all sequences."""
    total = [0.0] * len(STAKES)
    for picks in itertools.product(range(len(values)), repeat=length):
        chance = math.prod(chances[i] for i in picks)
        bets = paired.bet_above([values[i] for i in picks], threshold)
        total = [t + chance * math.exp(b) for t, b in zip(total, bets, strict=True)]
    return total


@given(THRESHOLDS, st.floats(0.01, 0.99), st.integers(0, 5))
def test_capital_is_expected_to_stay_where_the_mean_is_the_threshold(mean: float, share: float, length: int) -> None:
    """Three values, the chance of the middle one is `share`; the other two are the ends, weighted to the mean."""
    high = (1 + mean) / 2
    values, chances = [-1.0, mean, 1.0], [(1 - share) * (1 - high), share, (1 - share) * high]
    assert expected(values, chances, length, mean) == pytest.approx([1.0] * len(STAKES), abs=1e-9)


@given(THRESHOLDS, THRESHOLDS, st.integers(1, 5))
def test_capital_is_expected_to_shrink_where_the_mean_is_below(a: float, b: float, length: int) -> None:
    mean, threshold = sorted((a, b))
    high = (1 + mean) / 2
    assert max(expected([-1.0, 1.0], [1 - high, high], length, threshold)) <= 1 + 1e-9


@given(DIFFERENCES, DIFFERENCES, THRESHOLDS)
def test_order_and_looks_do_not_matter(one: list[float], other: list[float], threshold: float) -> None:
    at_once = paired.bet_above([*reversed(other), *one], threshold)
    in_looks = paired.add(paired.bet_above(one, threshold), paired.bet_above(other, threshold))
    assert in_looks == pytest.approx(at_once, abs=1e-9)


@given(DIFFERENCES, THRESHOLDS)
def test_below_is_above_in_the_mirror(differences: list[float], threshold: float) -> None:
    bets = paired.bet_below(differences, threshold)
    for bet, stake in zip(bets, STAKES, strict=True):
        product = math.prod(1 + stake * (threshold - x) / (1 - threshold) for x in differences)
        assert math.exp(bet) == pytest.approx(product, rel=1e-6)


def test_nothing_seen_is_no_evidence() -> None:
    assert paired.bet_above([], 0.0) == NO_BETS
    assert paired.e_value(NO_BETS) == pytest.approx(1.0)
    assert paired.limits(Band(), alpha=0.05) is None


@given(DIFFERENCES, DIFFERENCES)
def test_the_band_goes_on_from_its_sums(one: list[float], other: list[float]) -> None:
    parts = paired.widen(paired.widen(Band(), one, alpha=0.05), other, alpha=0.05)
    whole = paired.widen(Band(), one + other, alpha=0.05)
    for name in Band.__slots__:
        assert getattr(parts, name) == pytest.approx(getattr(whole, name), abs=1e-9)


def test_the_band_is_the_theorems() -> None:
    """Theorem 2 computed with arrays, straight from its formulas, for 500 numbers."""
    rng, alpha = np.random.default_rng(3), 0.05
    x = np.clip(rng.normal(0.1, 0.3, 500), -1, 1)
    y, t = (x + 1) / 2, np.arange(1, 501)
    mean = (0.5 + np.cumsum(y)) / (t + 1)
    variance = (0.25 + np.cumsum((y - mean) ** 2)) / (t + 1)
    mean_before, variance_before = np.append(0.5, mean[:-1]), np.append(0.25, variance[:-1])
    stake = np.minimum(0.5, np.sqrt(2 * np.log(2 / alpha) / (variance_before * t * np.log(t + 1))))
    v = 4 * (y - mean_before) ** 2
    psi = (-np.log(1 - stake) - stake) / 4
    centre, width = (stake * y).sum() / stake.sum(), (np.log(2 / alpha) + (v * psi).sum()) / stake.sum()
    low, estimate, high = paired.limits(paired.widen(Band(), x.tolist(), alpha=alpha), alpha=alpha) or (0, 0, 0)
    assert (low, high) == (pytest.approx(2 * (centre - width) - 1), pytest.approx(2 * (centre + width) - 1))
    assert estimate == pytest.approx(x.mean())


def test_a_skewed_stream_leaves_its_band_and_sounds_an_alarm_at_most_as_often_as_promised() -> None:
    """Mean 0 with rare large differences: 300 streams, a look every 20 of 1,000. At 5 %, 24 is the 99th percentile."""
    rng, outside, alarms = np.random.default_rng(4), 0, 0
    for _ in range(300):
        values = np.where(rng.random(1_000) < 0.05, 0.95, -0.05)
        band, bets, is_outside, is_alarm = Band(), NO_BETS, False, False
        for i in range(0, 1_000, 20):
            new = values[i : i + 20].tolist()
            band, bets = paired.widen(band, new, alpha=0.05), paired.add(bets, paired.bet_above(new, 0.0))
            low, _, high = paired.limits(band, alpha=0.05) or (0, 0, 0)
            is_outside = is_outside or not low <= 0 <= high
            is_alarm = is_alarm or paired.e_value(bets) >= 20
        outside, alarms = outside + is_outside, alarms + is_alarm
    assert max(outside, alarms) <= 24


def test_a_shift_is_found_and_its_absence_shown() -> None:
    rng = np.random.default_rng(5)
    worse = rng.normal(0.02, 0.1, 2_000).clip(-1, 1).tolist()
    same = rng.normal(0.0, 0.1, 2_000).clip(-1, 1).tolist()
    assert paired.e_value(paired.bet_above(worse, 0.0)) > 1_000
    assert paired.e_value(paired.bet_below(same, 0.02)) > 1_000
    assert paired.e_value(paired.bet_above(same, 0.0)) < 20
