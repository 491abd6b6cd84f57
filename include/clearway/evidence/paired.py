"""Pairs: both versions answered the same request, and only their difference counts. Is its mean above a threshold?

A difference lies within -1 and 1 (the caller divides by the largest there can be). Capital process of Waudby-Smith and
Ramdas (2024), "Estimating means of bounded random variables by betting", JRSS B 86: against "mean <= threshold" a
gambler stakes a fixed part of the capital on every difference being above it, and the capital is an e-process, for any
stopping and any dependence that leaves each difference's mean, given the past, within the hypothesis. Several stakes
are played side by side and averaged (their grid Kelly). Fixed stakes make the capital a plain product: the order of
the differences does not matter, nor how they are cut into looks.

The band is their predictable plug-in empirical Bernstein sequence (Theorem 2): valid at all times together, and carried
on from a handful of sums.
"""

import dataclasses
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from clearway.evidence.two_rates import mean_e

# Stakes, as parts of the largest that cannot lose more than all capital; small ones find small shifts in much noise.
STAKES = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.7, 0.95)
NO_BETS = (0.0,) * len(STAKES)


def bet_above(differences: Sequence[float], threshold: float) -> tuple[float, ...]:
    """Logarithm of the capital won against "mean <= threshold", per stake. -1 < threshold < 1."""
    most = 1 + threshold  # the worst difference, -1, lies this far below the threshold
    return tuple(math.fsum(math.log1p(stake * (x - threshold) / most) for x in differences) for stake in STAKES)


def bet_below(differences: Sequence[float], threshold: float) -> tuple[float, ...]:
    """The same against "mean >= threshold"."""
    return bet_above([-x for x in differences], -threshold)


def add(bets: Sequence[float], more: Sequence[float]) -> tuple[float, ...]:
    """Capital after further differences."""
    return tuple(a + b for a, b in zip(bets, more, strict=True))


def e_value(bets: Sequence[float]) -> float:
    """E-value of all stakes together."""
    return mean_e(bets)


@dataclass(frozen=True, slots=True, kw_only=True)
class Band:
    """What the confidence sequence needs to go on.

    Args:
        num: differences so far.
        total, squares: their sum, and the sum of squared distances from the mean as it was known at the time.
        weight, weighted, cost: sums of the theorem: of lambda, of lambda times difference, of the price paid.
    """

    num: int = 0
    total: float = 0.0
    squares: float = 0.0
    weight: float = 0.0
    weighted: float = 0.0
    cost: float = 0.0


NO_BAND = Band()


def widen(band: Band, differences: Iterable[float], *, alpha: float) -> Band:
    """The band after further differences, in order; the same `alpha` every time."""
    num, total, squares = band.num, band.total, band.squares
    weight, weighted, cost = [band.weight], [band.weighted], [band.cost]
    for x in differences:
        y = (x + 1) / 2  # the theorem speaks of numbers between 0 and 1
        mean, variance = (0.5 + total) / (num + 1), (0.25 + squares) / (num + 1)
        num += 1
        stake = min(0.5, math.sqrt(2 * math.log(2 / alpha) / (variance * num * math.log(1 + num))))
        weight.append(stake)
        weighted.append(stake * y)
        cost.append((y - mean) ** 2 * (-math.log1p(-stake) - stake))
        total += y
        squares += (y - (0.5 + total) / (num + 1)) ** 2
    return dataclasses.replace(
        band,
        num=num,
        total=total,
        squares=squares,
        weight=math.fsum(weight),
        weighted=math.fsum(weighted),
        cost=math.fsum(cost),
    )


def limits(band: Band, *, alpha: float) -> tuple[float, float, float] | None:
    """(lower, estimate, upper) of the mean difference, within -1 and 1; None for no differences."""
    if not band.num:
        return None
    centre, width = band.weighted / band.weight, (math.log(2 / alpha) + band.cost) / band.weight
    low, high = max(0.0, centre - width), min(1.0, centre + width)
    return 2 * low - 1, 2 * band.total / band.num - 1, 2 * high - 1
