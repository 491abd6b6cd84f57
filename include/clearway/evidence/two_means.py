"""Two streams of numbers: a confidence sequence for the difference of their means.

Asymptotic confidence sequence of Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas (2024), "Time-uniform central limit
theory and asymptotic confidence sequences", Theorem 2.2: at all times together it misses the true value with chance
alpha, in the limit of many observations before the first look. Exact for no finite number, so MIN_ROWS holds it back.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

# Observations per arm before the normal approximation is trusted.
MIN_ROWS = 100
# Effective rows (below) at which the sequence is tightest: 1,000 rows each, or 555 beside 5,000.
TIGHTEST_AT = 500


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Arms:
    """Moments of both arms over a time in which neither's share changed."""

    candidate: Moments
    control: Moments

    @property
    def effective_rows(self) -> float:
        """Half the rows per arm of the equal split that would tell as much; 0 while one arm has none."""
        num = self.candidate.num + self.control.num
        return self.candidate.num * self.control.num / num if num else 0.0


def difference(candidate: Moments, control: Moments, *, alpha: float) -> tuple[float, float, float] | None:
    """(lower, estimate, upper) of mean(candidate) - mean(control); None while one arm has fewer than MIN_ROWS."""
    return difference_over((Arms(candidate=candidate, control=control),), alpha=alpha)


def difference_over(steps: Sequence[Arms], *, alpha: float) -> tuple[float, float, float] | None:
    """The same over several shares, compared within each and then averaged by what each can tell.

    Pooled sums would compare different hours: a candidate whose share rises has more of its rows in the later ones.
    """
    used = [arms for arms in steps if arms.effective_rows]
    if min(sum(a.candidate.num for a in used), sum(a.control.num for a in used)) < MIN_ROWS:
        return None
    rows = math.fsum(a.effective_rows for a in used)
    estimate = math.fsum(a.effective_rows * (a.candidate.mean - a.control.mean) for a in used) / rows
    variance = math.fsum(a.effective_rows**2 * _variance_of_difference(a) for a in used) / rows**2
    rho_square = _rho_square(alpha)
    growth = rows * rho_square + 1
    width = math.sqrt(variance * 2 * growth / (rows * rho_square) * math.log(math.sqrt(growth) / alpha))
    return estimate - width, estimate, estimate + width


def _variance_of_difference(arms: Arms) -> float:
    return _careful_variance(arms.candidate) / arms.candidate.num + _careful_variance(arms.control) / arms.control.num


def _careful_variance(arm: Moments) -> float:
    """One more row of the largest variance that numbers between 0 and 1 have, as Waudby-Smith and Ramdas (2024) begin
    theirs: rows that are all alike, such as no conversion in 100, are no proof that the next one is."""
    return (arm.num * arm.variance + 0.25) / (arm.num + 1)


def _rho_square(alpha: float) -> float:
    """The parameter that makes the sequence tightest at TIGHTEST_AT (their appendix B.2)."""
    spread = -2 * math.log(alpha)
    return (spread + math.log(spread + 1)) / TIGHTEST_AT
