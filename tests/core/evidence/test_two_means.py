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


def test_no_spread_leaves_no_doubt() -> None:
    low, estimate, high = difference(moments(np.full(200, 0.5)), moments(np.full(200, 0.25)), alpha=0.05) or (0, 0, 0)
    assert low == pytest.approx(0.25) == estimate == high


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
