"""The confidence sequence against its own formula at a known point, and against streams whose truth is known."""

import numpy as np
import pytest

from clearway.evidence.two_means import MIN_ROWS, TIGHTEST_AT, Moments, difference


def moments(values: np.ndarray) -> Moments:
    return Moments(num=len(values), total=float(values.sum()), squares=float((values**2).sum()))


def test_too_few_scores_say_nothing() -> None:
    many, few = moments(np.zeros(500)), moments(np.zeros(MIN_ROWS - 1))
    assert difference(many, few, alpha=0.05) is None
    assert difference(few, many, alpha=0.05) is None


def test_no_spread_so_far_still_leaves_doubt_that_shrinks() -> None:
    """None of 100 conversions in either arm is no proof that both convert alike."""
    few, many = moments(np.zeros(100)), moments(np.zeros(100_000))
    low, estimate, high = difference(few, few, alpha=0.05) or (0, 0, 0)
    assert (estimate, high) == (0, pytest.approx(-low))
    assert high > 0.01
    assert (difference(many, many, alpha=0.05) or (0, 0, 9))[2] < 0.001


@pytest.mark.parametrize("rate", [0.002, 0.01])
def test_rare_events_leave_the_band_at_most_as_often_as_promised(rate: float) -> None:
    """Conversions of 0.2 and 1 %: 400 pairs of streams, looks from 100 rows on. At 5 % at most 31 misses (99 %)."""
    rng, misses = np.random.default_rng(6), 0
    for _ in range(400):
        sums = (rng.random((2, 60, 100)) < rate).sum(2).cumsum(1)
        for look in range(60):
            arms = [Moments(num=100 * (look + 1), total=float(x), squares=float(x)) for x in sums[:, look]]
            band = difference(*arms, alpha=0.05)
            if band and not band[0] <= 0 <= band[2]:
                misses += 1
                break
    assert misses <= 31


def test_its_width_at_its_tightest_is_about_twice_that_of_one_single_look() -> None:
    """A normal interval for one look has 1.96 standard errors; the price of looking for ever is known to be below 2."""
    rng = np.random.default_rng(1)
    one, other = rng.normal(size=TIGHTEST_AT // 2), rng.normal(size=TIGHTEST_AT // 2)
    low, _, high = difference(moments(one), moments(other), alpha=0.05) or (0, 0, 0)
    single = 1.96 * np.sqrt(one.var() / len(one) + other.var() / len(other))
    assert 1.3 < (high - low) / 2 / single < 2.0


@pytest.mark.parametrize("share", [0.5, 0.1])
def test_streams_without_a_difference_leave_the_band_at_most_as_often_as_promised(share: float) -> None:
    """300 pairs of streams, 40 looks each. At 5 % at most 24 misses are to be expected (99th percentile)."""
    rng, misses = np.random.default_rng(5), 0
    for _ in range(300):
        scores = rng.beta(1, 4, 8_000)
        is_candidate = rng.random(8_000) < share
        for end in range(1_000, 8_001, 200):
            head, mark = scores[:end], is_candidate[:end]
            band = difference(moments(head[mark]), moments(head[~mark]), alpha=0.05)
            if band and not band[0] <= 0 <= band[2]:
                misses += 1
                break
    assert misses <= 24
