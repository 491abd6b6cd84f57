"""Distances between two histograms: values worked by hand (docs/reference/drift.md), scipy and brute force."""

import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial import distance as scipy_distance

from clearway.measures.chi_square import chi_square
from clearway.measures.jensen_shannon import jensen_shannon
from clearway.measures.kolmogorov_smirnov import kolmogorov_smirnov
from clearway.measures.psi import psi
from clearway.measures.total_variation import total_variation
from clearway.measures.wasserstein import wasserstein

COUNTS = st.lists(st.integers(0, 500), min_size=2, max_size=10).filter(lambda c: sum(c) > 0)
# Shares of 0.5/0.3/0.2 against 0.2/0.3/0.5, the example of the reference page.
BEFORE, AFTER = (50, 30, 20), (20, 30, 50)


def test_psi_matches_the_hand_worked_value() -> None:
    # 2 x (0.5 - 0.2) x ln(0.5 / 0.2) = 0.6 x 0.916291 = 0.549774
    assert psi(BEFORE, AFTER) == pytest.approx(0.549774, abs=1e-6)


def test_psi_of_an_empty_bin_uses_the_floor() -> None:
    # (0.5 - 1) ln(0.5 / 1) + (0.5 - 0.0001) ln(0.5 / 0.0001)
    expected = -0.5 * math.log(0.5) + 0.4999 * math.log(5000)
    assert psi((1, 1), (1, 0)) == pytest.approx(expected, abs=1e-9)


def test_total_variation_matches_the_hand_worked_value() -> None:
    assert total_variation(BEFORE, AFTER) == pytest.approx(0.3)


def test_jensen_shannon_matches_scipy_and_its_ends() -> None:
    assert jensen_shannon(BEFORE, AFTER) == pytest.approx(scipy_distance.jensenshannon(BEFORE, AFTER, base=2))
    assert jensen_shannon((1, 0), (0, 1)) == pytest.approx(1.0)


def test_wasserstein_matches_the_hand_worked_value() -> None:
    # Points 0, 1, 3: |F - G| is 0.3 on [0, 1] and 0.3 on [1, 3], so 0.3 x 1 + 0.3 x 2 = 0.9
    assert wasserstein(BEFORE, (0, 1, 3), AFTER, (0, 1, 3)) == pytest.approx(0.9)


@given(COUNTS, COUNTS, st.data())
def test_wasserstein_matches_scipy(before: list[int], after: list[int], data: st.DataObject) -> None:
    place = st.floats(-1e3, 1e3)
    at = data.draw(st.lists(place, min_size=len(before), max_size=len(before)))
    other_at = data.draw(st.lists(place, min_size=len(after), max_size=len(after)))
    expected = scipy.stats.wasserstein_distance(at, other_at, before, after)
    assert wasserstein(before, at, after, other_at) == pytest.approx(expected, rel=1e-9, abs=1e-9)


def test_kolmogorov_smirnov_matches_the_hand_worked_bounds() -> None:
    # F: 0.5, 0.8, 1; G: 0.2, 0.5, 1. At the edges 0.3; inside the second bin at most F's 0.8 less G's 0.2 = 0.6.
    assert kolmogorov_smirnov(BEFORE, AFTER) == pytest.approx((0.3, 0.6))


@given(st.lists(st.floats(0, 1), min_size=1, max_size=80), st.lists(st.floats(0, 1), min_size=1, max_size=80))
def test_kolmogorov_smirnov_of_all_rows_lies_between_the_bounds(one: list[float], other: list[float]) -> None:
    edges = np.asarray([0.2, 0.4, 0.6, 0.8])
    p, q = (np.bincount(np.searchsorted(edges, rows), minlength=5) for rows in (one, other))
    low, high = kolmogorov_smirnov(p, q)
    exact = max(abs(np.mean(np.asarray(one) <= at) - np.mean(np.asarray(other) <= at)) for at in (*one, *other))
    assert low - 1e-9 <= exact <= high + 1e-9


def test_chi_square_matches_the_hand_worked_value() -> None:
    # Expected 35/30/35 on both sides: 4 x 15^2 / 35 = 25.714286; V = sqrt(25.714286 / 200) = 0.358569
    found = chi_square(BEFORE, AFTER)
    assert found.statistic == pytest.approx(25.714286, abs=1e-6)
    assert (found.num_free, found.cramers_v) == (2, pytest.approx(0.358569, abs=1e-6))


@given(st.lists(st.tuples(st.integers(0, 300), st.integers(0, 300)), min_size=2, max_size=8))
def test_chi_square_matches_scipy(table: list[tuple[int, int]]) -> None:
    before, after = zip(*table, strict=True)
    kept = np.asarray([row for row in table if sum(row)])
    if not sum(before) or not sum(after) or len(kept) < 2:
        return
    expected = scipy.stats.chi2_contingency(kept.T, correction=False)
    found = chi_square(before, after)
    assert found.statistic == pytest.approx(expected.statistic, rel=1e-9, abs=1e-9)
    assert found.p_value == pytest.approx(expected.pvalue, rel=1e-6, abs=1e-12)


@given(COUNTS)
def test_every_distance_is_zero_for_the_same_histogram(counts: list[int]) -> None:
    doubled = [2 * c for c in counts]
    assert psi(counts, doubled) == pytest.approx(0, abs=1e-12)
    assert total_variation(counts, doubled) == pytest.approx(0, abs=1e-12)
    assert jensen_shannon(counts, doubled) == pytest.approx(0, abs=1e-7)
    assert wasserstein(counts, range(len(counts)), doubled, range(len(counts))) == pytest.approx(0, abs=1e-9)
    assert kolmogorov_smirnov(counts, doubled)[0] == pytest.approx(0, abs=1e-12)
    assert chi_square(counts, doubled).cramers_v == pytest.approx(0, abs=1e-7)


@given(st.integers(2, 10), st.data())
def test_distances_stay_in_their_ranges(num_bins: int, data: st.DataObject) -> None:
    counts = st.lists(st.integers(0, 50), min_size=num_bins, max_size=num_bins).filter(lambda c: sum(c) > 0)
    p, q = data.draw(counts), data.draw(counts)
    assert psi(p, q) >= -1e-12
    assert 0 <= total_variation(p, q) <= 1 + 1e-12
    assert 0 <= jensen_shannon(p, q) <= 1 + 1e-9
    low, high = kolmogorov_smirnov(p, q)
    assert 0 <= low <= high + 1e-12 <= 1 + 1e-9
    assert low <= total_variation(p, q) + 1e-12
    assert 0 <= chi_square(p, q).cramers_v <= 1 + 1e-9


@pytest.mark.parametrize("weights", [[], [0, 0], [1, float("nan")], [1, -1]], ids=["none", "zeros", "nan", "negative"])
def test_weights_without_a_distribution_are_refused(weights: list[float]) -> None:
    with pytest.raises(ValueError, match="no distribution"):
        total_variation(weights, weights)
    with pytest.raises(ValueError, match="no distribution"):
        chi_square(weights, weights)
