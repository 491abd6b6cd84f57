"""Two streams of yes and no, a candidate's and a concurrent control's: is the candidate's rate higher, or surely not?

Both tests are e-processes: products of e-values, one per look, whose expectation under the null hypothesis never
exceeds 1. So the chance that one ever reaches 1/alpha is at most alpha (Ville 1939), however often and whenever it is
looked at. Sizes of a look may depend on the past in any way, on its own outcomes not at all.

harm     H0: odds of the candidate <= odds of the control. Given the sizes of a look and the number of yeses in both
         arms together, the candidate's yeses are hypergeometric under equal odds, whatever the rate is; the likelihood
         ratio of Fisher's noncentral distribution is then an e-value. It rises with the candidate's yeses, so smaller
         odds only lower its expectation. Averaged over ODDS_RATIOS (a mixture of e-processes is one).
no harm  H0: rate of the candidate >= rate of the control + margin. E-value of Turner, Ly and Grünwald (2024), "Generic
         E-variables for exact sequential k-sample tests": likelihood of both arms at a common rate over that at the
         closest point of the null (smallest Kullback-Leibler divergence). Averaged over COMMON_RATES.
"""

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

# Harm that is looked for, as odds ratios: from a quarter more to a candidate that nearly always fails.
ODDS_RATIOS = (1.25, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0, 300.0)
# Rates that healthy services have, at which the absence of harm is looked for.
COMMON_RATES = (0.0002, 0.001, 0.005, 0.02, 0.05, 0.1, 0.25, 0.5)
MAX_SHOWN = 1e300
# Smallest rate of the null's closest point; the e-value exceeds its bound by less than this times the sizes.
TINY = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """New outcomes since the look before: requests of both arms, and the yeses (errors, slow answers) among them."""

    candidate: int
    candidate_yes: int
    control: int
    control_yes: int


def harm(look: Look) -> tuple[float, ...]:
    """Logarithm of the look's e-value against "no harm", per odds ratio."""
    sizes = look.candidate, look.control
    yes = look.candidate_yes + look.control_yes
    low, high = max(0, yes - look.control), min(yes, look.candidate)
    ways = [_log_choose(sizes[0], k) + _log_choose(sizes[1], yes - k) for k in range(low, high + 1)]
    base = _log_sum(ways)
    return tuple(
        look.candidate_yes * math.log(odds)
        - _log_sum([way + k * math.log(odds) for k, way in enumerate(ways, start=low)])
        + base
        for odds in ODDS_RATIOS
    )


def no_harm(look: Look, *, margin: float) -> tuple[float, ...]:
    """Logarithm of the look's e-value against "worse by the margin or more", per common rate. 0 < margin < 1."""
    return tuple(_against_margin(look, rate, margin) for rate in COMMON_RATES)


def mean_e(logs: Sequence[float]) -> float:
    """E-value of the mixture with equal weights, from logarithms per part; inf beyond the range of a float."""
    top = max(logs)
    return math.inf if top > 700 else math.fsum(math.exp(x) for x in logs) / len(logs)  # noqa: PLR2004


def shown(e_value: float) -> float:
    """The e-value as a document holds it: JSON has no infinity, and beyond MAX_SHOWN it is the same certainty."""
    return min(e_value, MAX_SHOWN)


def _against_margin(look: Look, rate: float, margin: float) -> float:
    if rate + margin >= 1:
        return 0.0
    null = _closest(look.candidate, look.control, rate, margin)
    return _log_ratio(look.candidate, look.candidate_yes, rate, null + margin) + _log_ratio(
        look.control, look.control_yes, rate, null
    )


@functools.lru_cache(maxsize=1024)  # regular traffic repeats its sizes
def _closest(num_candidate: int, num_control: int, rate: float, margin: float) -> float:
    """Control rate of the null's point that is hardest to tell from both arms at `rate`; found by bisection."""

    def slope(t: float) -> float:
        x = t + margin
        return num_candidate * (x - rate) / (x * (1 - x)) - num_control * (rate - t) / (t * (1 - t))

    low, high = TINY, min(rate, 1 - margin - TINY)
    if slope(low) >= 0:
        return low
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if slope(middle) < 0 else (low, middle)
    return high


def _log_ratio(num: int, num_yes: int, rate: float, null: float) -> float:
    return num_yes * math.log(rate / null) + (num - num_yes) * math.log((1 - rate) / (1 - null))


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)


def _log_sum(logs: Sequence[float]) -> float:
    top = max(logs)
    return top + math.log(math.fsum(math.exp(x - top) for x in logs))
