"""Two streams of numbers: a confidence sequence for the difference of their means.

Asymptotic confidence sequence of Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas (2024), "Time-uniform central limit
theory and asymptotic confidence sequences", Theorem 2.2: at all times together it misses the true value with chance
alpha, in the limit of many observations before the first look. Exact for no finite number, so MIN_ROWS holds it back.
"""

import math
from dataclasses import dataclass

# Observations per arm before the normal approximation is trusted.
MIN_ROWS = 100
# Observations in both arms together at which the sequence is tightest.
TIGHTEST_AT = 2_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Moments:
    """Count, sum and sum of squares of one arm."""

    num: int
    total: float
    squares: float

    @property
    def mean(self) -> float:
        """Mean; NaN for nothing."""
        return self.total / self.num if self.num else math.nan

    @property
    def variance(self) -> float:
        """Variance, never below 0."""
        return max(0.0, self.squares / self.num - self.mean**2) if self.num else math.nan


def difference(candidate: Moments, control: Moments, *, alpha: float) -> tuple[float, float, float] | None:
    """(lower, estimate, upper) of mean(candidate) - mean(control); None while one arm has fewer than MIN_ROWS."""
    if min(candidate.num, control.num) < MIN_ROWS:
        return None
    num = candidate.num + control.num
    variance = candidate.variance / candidate.num + control.variance / control.num
    rho_square = _rho_square(alpha)
    growth = num * rho_square + 1
    width = math.sqrt(variance * num * 2 * growth / (num**2 * rho_square) * math.log(math.sqrt(growth) / alpha))
    estimate = candidate.mean - control.mean
    return estimate - width, estimate, estimate + width


def _rho_square(alpha: float) -> float:
    """The parameter that makes the sequence tightest at TIGHTEST_AT (their appendix B.2)."""
    spread = -2 * math.log(alpha)
    return (spread + math.log(spread + 1)) / TIGHTEST_AT
