"""The e-values against exact enumeration: their expectation under the null gives every verdict its error rate."""

import math
from math import comb

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clearway.evidence import two_rates
from clearway.evidence.two_rates import COMMON_RATES, ODDS_RATIOS, Look

SIZES = st.integers(0, 7)
RATES = st.floats(0.001, 0.999)


def binomial(num: int, yes: int, rate: float) -> float:
    return comb(num, yes) * rate**yes * (1 - rate) ** (num - yes)


def expected(num_candidate: int, num_control: int, p: float, q: float, logs) -> list[float]:
    """Expectation of every e-value when the candidate's rate is p and the control's q, summed over all outcomes."""
    total: list[float] = []
    for a in range(num_candidate + 1):
        for b in range(num_control + 1):
            chance = binomial(num_candidate, a, p) * binomial(num_control, b, q)
            found = logs(Look(candidate=num_candidate, candidate_yes=a, control=num_control, control_yes=b))
            total = total or [0.0] * len(found)
            total = [t + chance * math.exp(x) for t, x in zip(total, found, strict=True)]
    return total


@given(SIZES, SIZES, RATES)
def test_harm_has_expectation_one_under_equal_rates(n: int, m: int, rate: float) -> None:
    assert expected(n, m, rate, rate, two_rates.harm) == pytest.approx([1.0] * len(ODDS_RATIOS), abs=1e-9)


@given(SIZES, SIZES, RATES, RATES)
def test_harm_is_no_more_likely_to_be_seen_where_the_candidate_is_better(n: int, m: int, a: float, b: float) -> None:
    better, worse = sorted((a, b))
    assert max(expected(n, m, better, worse, two_rates.harm)) <= 1 + 1e-9


@given(SIZES, SIZES, RATES, st.floats(0.0, 0.5), st.sampled_from([0.005, 0.02, 0.1, 0.4]))
def test_no_harm_is_not_seen_where_there_is_harm(n: int, m: int, rate: float, more: float, margin: float) -> None:
    control = rate * (1 - margin)
    candidate = min(1.0, control + margin + more * (1 - control - margin))
    found = expected(n, m, candidate, control, lambda look: two_rates.no_harm(look, margin=margin))
    assert max(found) <= 1 + 1e-6


@given(SIZES, SIZES, SIZES, SIZES)
def test_harm_is_the_likelihood_ratio_of_fishers_noncentral_distribution(n: int, m: int, a: int, b: int) -> None:
    a, b = min(a, n), min(b, m)
    yes = a + b
    ways = {k: comb(n, k) * comb(m, yes - k) for k in range(max(0, yes - m), min(yes, n) + 1)}
    for odds, found in zip(
        ODDS_RATIOS, two_rates.harm(Look(candidate=n, candidate_yes=a, control=m, control_yes=b)), strict=True
    ):
        noncentral = ways[a] * odds**a / sum(w * odds**k for k, w in ways.items())
        central = ways[a] / sum(ways.values())
        assert found == pytest.approx(math.log(noncentral / central), abs=1e-9)


def test_a_look_without_requests_says_nothing() -> None:
    nothing = Look(candidate=0, candidate_yes=0, control=0, control_yes=0)
    assert two_rates.harm(nothing) == pytest.approx((0.0,) * len(ODDS_RATIOS))
    assert two_rates.no_harm(nothing, margin=0.01) == pytest.approx((0.0,) * len(COMMON_RATES))


def test_one_arm_alone_shows_no_harm() -> None:
    """Without a control there is nothing to be worse than."""
    alone = Look(candidate=500, candidate_yes=400, control=0, control_yes=0)
    assert two_rates.harm(alone) == pytest.approx((0.0,) * len(ODDS_RATIOS), abs=1e-9)


def test_large_looks_stay_finite() -> None:
    look = Look(candidate=20_000, candidate_yes=4_000, control=180_000, control_yes=1_800)
    assert all(math.isfinite(x) for x in (*two_rates.harm(look), *two_rates.no_harm(look, margin=0.01)))
    assert two_rates.mean_e(two_rates.harm(look)) == math.inf
