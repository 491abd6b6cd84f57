"""How sure is a distance: the batch's days drawn anew, not its rows, since rows of a day share their weather.

Shapes: D days, B bins, R draws.
"""

# ruff: noqa: N803, N806 - shape letters in names

import numpy as np
import numpy.typing as npt

from clearway.measures.resample import draw_day_counts, expanded_tail

Floats = npt.NDArray[np.float64]

NUM_DRAWS = 400
CONFIDENCE = 0.975  # of each bound alone: 95 % for both
SEED = 2013
# Two days have a difference, but no spread worth the name.
MIN_DAYS = 3


def days_drawn(num_days: int) -> Floats:
    """How often each day is drawn; the same draws for every feature of a batch. [R, D]"""
    return draw_day_counts(num_days, num_resamples=NUM_DRAWS, rng=np.random.default_rng(SEED))


def distance_interval(distance: float, draws_R: Floats, *, num_days: int) -> tuple[float, float] | None:
    """(lower, upper) of a distance whose draws are given; None for fewer than MIN_DAYS days.

    Source: basic bootstrap (Davison and Hinkley 1997, section 2.4): the draws are reflected about the distance, because
        drawing adds noise and noise only ever lengthens a distance. Bounds widened for few days as in `resample`.
    """
    held = draws_R[np.isfinite(draws_R)]
    if num_days < MIN_DAYS or not held.size:
        return None
    tail = expanded_tail(CONFIDENCE, num_days=num_days)
    low, high = np.quantile(held, [tail, 1.0 - tail])
    return min(distance, max(0.0, 2 * distance - float(high))), max(distance, 2 * distance - float(low))


def wasserstein_draws(
    reference_B: Floats, reference_at_B: Floats, counts_DB: Floats, sums_DB: Floats, draws_RD: Floats
) -> Floats:
    """`wasserstein` for every draw of days, in the unit of the values; NaN for a draw without values. [R]"""
    weights_RB, sums_RB = draws_RD @ counts_DB, draws_RD @ sums_DB
    at_RB = np.divide(sums_RB, weights_RB, out=np.zeros_like(sums_RB), where=weights_RB > 0)
    at = np.concatenate([np.broadcast_to(reference_at_B, at_RB.shape), at_RB], axis=1)
    before = np.broadcast_to(reference_B / reference_B.sum(), at_RB.shape)
    steps = np.concatenate([before, -_shares_per_draw(weights_RB)], axis=1)
    order = np.argsort(at, axis=1)
    at, steps = np.take_along_axis(at, order, axis=1), np.take_along_axis(steps, order, axis=1)
    areas: Floats = np.sum(np.abs(np.cumsum(steps, axis=1)[:, :-1]) * np.diff(at, axis=1), axis=1)
    return areas


def total_variation_draws(reference_B: Floats, counts_DB: Floats, draws_RD: Floats) -> Floats:
    """`total_variation` for every draw of days; NaN for a draw without values. [R]"""
    moved: Floats = 0.5 * np.abs(reference_B / reference_B.sum() - _shares_per_draw(draws_RD @ counts_DB)).sum(axis=1)
    return moved


def _shares_per_draw(weights_RB: Floats) -> Floats:
    totals = weights_RB.sum(axis=1, keepdims=True)
    shares: Floats = np.divide(weights_RB, totals, out=np.full_like(weights_RB, np.nan), where=totals > 0)
    return shares
