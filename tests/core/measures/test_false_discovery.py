"""Control of false discoveries: values worked by hand, scipy, and the rates themselves."""

import math

import numpy as np
import pytest
import scipy.integrate
import scipy.special
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from clearway.measures import false_discovery as fd
from clearway.measures.false_discovery import Stream

P_VALUES = st.lists(st.floats(0, 1), min_size=1, max_size=40)


def test_benjamini_hochberg_matches_the_hand_worked_values() -> None:
    # 0.01 x 4 / 1 = 0.04; 0.04 x 4 / 3 = 0.0533 < 0.03 x 4 / 2 = 0.06, so both get 0.0533; 0.5 stays.
    assert fd.benjamini_hochberg([0.01, 0.04, 0.03, 0.5]) == pytest.approx([0.04, 0.053333, 0.053333, 0.5], abs=1e-6)


def test_benjamini_yekutieli_multiplies_by_the_harmonic_sum() -> None:
    # 1 + 1/2 + 1/3 + 1/4 = 2.083333
    found = fd.benjamini_yekutieli([0.01, 0.04, 0.03, 0.5])
    assert found == pytest.approx([0.083333, 0.111111, 0.111111, 1.0], abs=1e-6)


@given(P_VALUES)
def test_both_match_scipy(p_values: list[float]) -> None:
    hochberg = scipy.stats.false_discovery_control(p_values, method="bh")
    assert fd.benjamini_hochberg(p_values) == pytest.approx(hochberg, abs=1e-12)
    yekutieli = scipy.stats.false_discovery_control(p_values, method="by")
    assert fd.benjamini_yekutieli(p_values) == pytest.approx(yekutieli, abs=1e-12)


def test_e_benjamini_hochberg_matches_the_hand_worked_case() -> None:
    # M = 4, alpha = 0.1: the largest needs 40, two need 20 each, three 13.3: two stand.
    assert fd.e_benjamini_hochberg([25.0, 1.0, 21.0, 5.0], alpha=0.1).tolist() == [True, False, True, False]
    assert not fd.e_benjamini_hochberg([39.0, 1.0, 1.0, 1.0], alpha=0.1).any()


def test_an_e_value_made_of_a_p_value_has_mean_one() -> None:
    mean, _ = scipy.integrate.quad(fd.e_from_p, 0, 1)
    assert mean == pytest.approx(1, rel=1e-6)
    assert fd.e_from_p(0.0001) == pytest.approx(50)


def test_the_spending_sequence_sums_to_one() -> None:
    assert pytest.approx(scipy.special.zeta(fd.DECAY), rel=1e-9) == fd.TOTAL


def test_lord_levels_match_the_hand_worked_values() -> None:
    # gamma_1 = 1 / zeta(1.6) = 0.437488, gamma_2 = 0.437488 x 2^-1.6 = 0.144317
    assert fd.next_level(Stream(), alpha=0.1) == pytest.approx(0.05 * 0.437488, rel=1e-5)
    found = Stream().after(0.0, alpha=0.1)
    assert found.is_discovery
    # Second test, right after a discovery: 0.05 gamma_2 + 0.05 gamma_1
    assert fd.next_level(found, alpha=0.1) == pytest.approx(0.05 * (0.144317 + 0.437488), rel=1e-5)


@given(st.integers(1, 400))
def test_a_stream_without_discoveries_never_spends_more_than_its_start(num_tests: int) -> None:
    spent = math.fsum(fd.next_level(Stream(num_tests=n), alpha=0.1) for n in range(num_tests))
    assert spent <= 0.05


def test_a_stream_of_true_nulls_and_changes_keeps_its_false_discovery_rate() -> None:
    rng = np.random.default_rng(0)
    shares = []
    for _ in range(300):
        is_changed = rng.random(60) < 0.2
        p_values = np.where(is_changed, rng.random(60) * 1e-4, rng.random(60))
        stream = Stream()
        for p in p_values:
            stream = stream.after(float(p), alpha=0.1)
        false = sum(not is_changed[number - 1] for number in stream.discoveries)
        shares.append(false / max(1, len(stream.discoveries)))
    # A mean of 300 shares has a standard error of about 0.005.
    assert np.mean(shares) <= 0.1 + 0.01


@pytest.mark.parametrize("p_values", [[], [0.5, float("nan")], [1.5], [-0.1]], ids=["none", "nan", "over", "under"])
def test_what_is_no_p_value_is_refused(p_values: list[float]) -> None:
    with pytest.raises(ValueError, match="cannot be adjusted"):
        fd.any_change(p_values)
