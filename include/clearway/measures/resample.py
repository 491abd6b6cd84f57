"""How sure can we be of a difference: paired resampling by whole days.

Rows of one day share weather and knock-on delays, so a bootstrap over rows claims 4 to 6 times too much certainty
(measured on flights). Here whole days are drawn, and both models are judged on the same draw. No row is touched twice:
sums per day, or pair counts per pair of days, are sufficient, so a draw costs D or D x D numbers instead of N.

Shapes: N rows, D days, R draws.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtr, stdtrit  # type: ignore[import-untyped]

from clearway.contracts.errors import Unmeasurable
from clearway.measures.binary import Array, checked

# A draw without positives (or negatives) has no AUC; it is left out, but not more than this share of all draws.
MAX_SHARE_UNDEFINED = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A difference with its uncertainty.

    Args:
        estimate: the difference on all rows.
        lower, upper: bounds; each alone holds with the confidence asked for (one-sided), so both together with less.
        standard_error: standard deviation over the draws.
        num_days: blocks drawn from.
    """

    estimate: float
    lower: float
    upper: float
    standard_error: float
    num_days: int


def day_codes(days: ArrayLike) -> tuple[NDArray[np.int64], int]:
    """Days (any sortable values) as 0..D-1 [N], and D. Raises: Unmeasurable for fewer than two days."""
    distinct, codes = np.unique(np.asarray(days), return_inverse=True)
    if distinct.size < 2:  # noqa: PLR2004 - one block has no spread
        raise Unmeasurable(f"{distinct.size} distinct day(s) cannot be resampled; at least 2 are needed")
    return codes.astype(np.int64), int(distinct.size)


def draw_day_counts(
    num_days: int, *, num_resamples: int, rng: np.random.Generator, num_drawn: int | None = None
) -> Array:
    """How often each day is drawn, with replacement, `num_drawn` draws each, or D. [R, D]"""
    drawn = num_days if num_drawn is None else num_drawn
    return rng.multinomial(drawn, np.full(num_days, 1.0 / num_days), size=num_resamples).astype(np.float64)


def mean_difference(
    values: ArrayLike,
    other: ArrayLike,
    days: ArrayLike,
    *,
    num_resamples: int,
    confidence: float,
    rng: np.random.Generator,
    weights: ArrayLike | None = None,
) -> Interval:
    """mean(values) - mean(other) over the same rows, e.g. row log-losses of candidate and champion.

    Args: values, other, days: [N]; weights: of the rows in both means, e.g. bytes of texts whose values are per byte;
        None for equal ones. [N] confidence: of each bound alone, 0.5 to 1.
    Raises: Unmeasurable.
    """
    difference = np.asarray(values, dtype=np.float64) - np.asarray(other, dtype=np.float64)
    if difference.size == 0 or not np.isfinite(difference).all():
        raise Unmeasurable(f"paired differences of {difference.size} rows are empty or not finite; pass numbers")
    codes, num_days = day_codes(days)
    row_weights = np.ones(difference.size) if weights is None else np.asarray(weights, dtype=np.float64)
    sums = np.bincount(codes, weights=difference * row_weights, minlength=num_days)
    sizes = np.bincount(codes, weights=row_weights, minlength=num_days)
    counts = draw_day_counts(num_days, num_resamples=num_resamples, rng=rng)
    draws = (counts @ sums) / (counts @ sizes)
    estimate = difference.mean() if weights is None else np.average(difference, weights=row_weights)
    return _interval(float(estimate), draws, num_days=num_days, confidence=confidence)


def auc_difference(
    labels: ArrayLike,
    scores: ArrayLike,
    other: ArrayLike,
    days: ArrayLike,
    *,
    num_resamples: int,
    confidence: float,
    rng: np.random.Generator,
) -> Interval:
    """AUC(scores) - AUC(other) over the same rows.

    AUC with day weights w is w'Mw / (w'p)(w'n), where M[d, e] counts the pairs (positive of day d, negative of day e)
    ranked rightly: M is made once, each draw costs D x D. Raises: Unmeasurable.
    """
    y, s = checked(labels, scores, needs_both_classes=True)
    _, o = checked(labels, other)
    codes, num_days = day_codes(days)
    wins = pair_wins(y, s, codes, num_days) - pair_wins(y, o, codes, num_days)
    positives = np.bincount(codes, weights=y, minlength=num_days)
    negatives = np.bincount(codes, weights=1.0 - y, minlength=num_days)
    counts = draw_day_counts(num_days, num_resamples=num_resamples, rng=rng)
    pairs = (counts @ positives) * (counts @ negatives)
    won = np.einsum("rd,rd->r", counts @ wins, counts)
    draws = won[pairs > 0] / pairs[pairs > 0]
    if draws.size < (1.0 - MAX_SHARE_UNDEFINED) * num_resamples:
        raise Unmeasurable(
            f"{num_resamples - draws.size} of {num_resamples} draws of days hold one class only; widen the window"
        )
    estimate = float(wins.sum() / (positives.sum() * negatives.sum()))
    return _interval(estimate, draws, num_days=num_days, confidence=confidence)


def pair_wins(labels: Array, scores: Array, codes: NDArray[np.int64], num_days: int) -> Array:
    """M[d, e]: pairs of a positive of day d above a negative of day e, ties counted half. [D, D]"""
    order = np.argsort(scores[labels == 1.0], kind="stable")
    positive_scores = scores[labels == 1.0][order]
    positive_codes = codes[labels == 1.0][order]
    wins = np.zeros((num_days, num_days))
    for day in range(num_days):
        negative = np.sort(scores[(labels == 0.0) & (codes == day)])
        below = np.searchsorted(negative, positive_scores, side="left")
        not_above = np.searchsorted(negative, positive_scores, side="right")
        wins[:, day] = np.bincount(positive_codes, weights=(below + not_above) / 2.0, minlength=num_days)
    return wins


def expanded_tail(confidence: float, *, num_days: int) -> float:
    """Share of draws to cut off at each end, for a bound that holds with `confidence` although blocks are few.

    Source: level Phi(-sqrt(D / (D - 1)) t(alpha, D - 1)) instead of alpha (Hesterberg 2015, section 5.3).
    """
    quantile = stdtrit(num_days - 1, confidence) * np.sqrt(num_days / (num_days - 1.0))
    return float(ndtr(-quantile))


def _interval(estimate: float, draws: Array, *, num_days: int, confidence: float) -> Interval:
    """Expanded percentile bounds: with few blocks the plain percentile interval is too short."""
    tail = expanded_tail(confidence, num_days=num_days)
    lower, upper = np.quantile(draws, [tail, 1.0 - tail])
    return Interval(
        estimate=estimate,
        lower=float(lower),
        upper=float(upper),
        standard_error=float(draws.std(ddof=1)),
        num_days=num_days,
    )
