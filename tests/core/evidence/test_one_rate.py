"""The band of one rate: known values, and how often it misses the true rate at any time."""

import numpy as np
import pytest

from clearway.evidence.one_rate import limits


def test_nothing_seen_has_no_band():
    assert limits(0, 0, alpha=0.05) is None


@pytest.mark.parametrize(
    ("num", "num_yes", "low", "high"),
    [
        (1, 0, 0.0, 0.975),  # 1 / (2 (1 - p)) = 20
        (1, 1, 0.025, 1.0),
        (2, 1, 0.008403, 0.991597),  # 1 / (6 p (1 - p)) = 20
    ],
)
def test_the_band_of_a_few_is_what_is_found_by_hand(num, num_yes, low, high):
    assert limits(num, num_yes, alpha=0.05) == pytest.approx((low, num_yes / num, high), abs=1e-6)


@pytest.mark.parametrize("rate", [0.0, 0.02, 0.5, 1.0])
def test_the_true_rate_leaves_the_band_in_few_streams_however_often_one_looks(rate):
    rng, num_missed, num_streams = np.random.default_rng(2013), 0, 200
    for _ in range(num_streams):
        yes = np.cumsum(rng.random(400) < rate)
        bands = (limits(n, int(yes[n - 1]), alpha=0.1) for n in range(1, 401, 16))
        num_missed += any(not low <= rate <= high for low, _, high in bands)
    assert num_missed <= 0.1 * num_streams


def test_the_band_narrows_with_what_is_seen():
    widths = [high - low for low, _, high in (limits(n, n // 50, alpha=0.01) for n in (100, 1_000, 10_000))]
    assert widths == sorted(widths, reverse=True)
    assert widths[-1] < 0.02
