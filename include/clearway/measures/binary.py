"""How good are scores of a yes/no outcome. Pure numbers on arrays; every function refuses what it cannot measure.

Shapes: N rows. Labels are 0 or 1, scores are probabilities in [0, 1] (`auc` and `average_precision` take any finite
number). Empty input, NaN, infinity, another label or one class where two are needed raise Unmeasurable: a gate makes
that an error, never a pass.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from clearway.contracts.errors import Unmeasurable

Array = NDArray[np.float64]

# Scores travel as float32, whose steps next to 1 are 6e-8: a score of exactly 0 or 1 then costs 16 nats, not infinity.
SCORE_EPSILON = 1e-7
NUM_BINS = 10


def checked(labels: ArrayLike, scores: ArrayLike, *, needs_both_classes: bool = False) -> tuple[Array, Array]:
    """Both inputs as float64 [N], or a refusal. Raises: Unmeasurable."""
    y, s = np.asarray(labels, dtype=np.float64), np.asarray(scores, dtype=np.float64)
    if y.ndim != 1 or y.shape != s.shape or y.size == 0:
        raise Unmeasurable(
            f"labels {y.shape} and scores {s.shape} cannot be compared; pass two non-empty columns of one length"
        )
    if not np.isfinite(s).all():
        raise Unmeasurable(
            f"{int((~np.isfinite(s)).sum())} of {s.size} scores are NaN or infinite; only finite scores can be judged"
        )
    if not np.isin(y, (0.0, 1.0)).all():
        raise Unmeasurable(
            f"labels hold values other than 0 and 1, e.g. {y[~np.isin(y, (0.0, 1.0))][0]}; correct the label column"
        )
    if needs_both_classes and y.min() == y.max():
        raise Unmeasurable(f"all {y.size} labels are {y[0]:.0f}; both classes are needed, use a longer window")
    return y, s


def _probabilities(labels: ArrayLike, scores: ArrayLike) -> tuple[Array, Array]:
    y, s = checked(labels, scores)
    if s.min() < 0.0 or s.max() > 1.0:
        raise Unmeasurable(f"scores reach from {s.min():.6g} to {s.max():.6g}; probabilities lie in [0, 1]")
    return y, s


def auc(labels: ArrayLike, scores: ArrayLike) -> float:
    """Chance that a positive scores above a negative, ties counted half; 0.5 is guessing, 1 is perfect.

    Source: Mann-Whitney U over the number of pairs, with midranks (Hanley and McNeil 1982).
    """
    y, s = checked(labels, scores, needs_both_classes=True)
    num_positives = y.sum()
    rank_sum = float(_midranks(s)[y == 1.0].sum())
    wins = rank_sum - num_positives * (num_positives + 1.0) / 2.0
    return float(wins / (num_positives * (y.size - num_positives)))


def row_log_loss(labels: ArrayLike, scores: ArrayLike) -> Array:
    """Loss of each row in nats, >= 0. [N]; scores are kept SCORE_EPSILON away from 0 and 1."""
    y, s = _probabilities(labels, scores)
    p = np.clip(s, SCORE_EPSILON, 1.0 - SCORE_EPSILON)
    return -np.where(y == 1.0, np.log(p), np.log1p(-p))


def log_loss(labels: ArrayLike, scores: ArrayLike) -> float:
    """Mean negative log-likelihood per row in nats; lower is better."""
    return float(row_log_loss(labels, scores).mean())


def log_loss_skill(labels: ArrayLike, scores: ArrayLike, *, base_rate: float) -> float:
    """Share of the log-loss of a constant forecast that the scores save; 0 is no better than `base_rate`, 1 is perfect.

    Args: base_rate: share of positives in the training period, strictly between 0 and 1.
    """
    if not 0.0 < base_rate < 1.0:
        raise Unmeasurable(f"base rate {base_rate} leaves nothing to predict; it must lie strictly between 0 and 1")
    y, _ = checked(labels, scores)
    return 1.0 - log_loss(y, scores) / log_loss(y, np.full(y.size, base_rate))


def brier(labels: ArrayLike, scores: ArrayLike) -> float:
    """Mean squared distance of score and label, 0 to 1; lower is better (Brier 1950)."""
    y, s = _probabilities(labels, scores)
    return float(np.mean((s - y) ** 2))


def calibration_gap(labels: ArrayLike, scores: ArrayLike) -> float:
    """|mean label - mean score|, 0 to 1: calibration in the large."""
    y, s = _probabilities(labels, scores)
    return float(abs(y.mean() - s.mean()))


@dataclass(frozen=True, slots=True, kw_only=True)
class Reliability:
    """Bins of about equal mass, by rising score; equal scores always share a bin. All [B], B <= number asked for."""

    mean_score: Array
    mean_label: Array
    num_rows: Array


def reliability(labels: ArrayLike, scores: ArrayLike, *, num_bins: int = NUM_BINS) -> Reliability:
    """What was promised against what happened, per bin of scores; the order of rows does not matter."""
    y, s = _probabilities(labels, scores)
    bins = np.minimum(((_midranks(s) - 0.5) / s.size * num_bins).astype(np.int64), num_bins - 1)
    counts = np.bincount(bins, minlength=num_bins).astype(np.float64)
    kept = counts > 0
    return Reliability(
        mean_score=np.bincount(bins, weights=s, minlength=num_bins)[kept] / counts[kept],
        mean_label=np.bincount(bins, weights=y, minlength=num_bins)[kept] / counts[kept],
        num_rows=counts[kept],
    )


def ece(labels: ArrayLike, scores: ArrayLike, *, num_bins: int = NUM_BINS) -> float:
    """Expected calibration error over bins of equal mass, 0 to 1.

    Source: mean over rows of |mean label - mean score| of the row's bin (Naeini et al. 2015), equal-mass bins as in
    Nguyen and O'Connor 2015, since equal-width bins are nearly empty at high scores.
    """
    bins = reliability(labels, scores, num_bins=num_bins)
    return float(np.sum(bins.num_rows * np.abs(bins.mean_label - bins.mean_score)) / bins.num_rows.sum())


def average_precision(labels: ArrayLike, scores: ArrayLike) -> float:
    """Area under the precision-recall steps, 0 to 1; guessing gives the base rate.

    Source: sum over distinct scores of (recall step) x precision, no interpolation (Davis and Goadrich 2006).
    """
    y, s = checked(labels, scores, needs_both_classes=True)
    true_positives, num_selected = _cumulative(y, s)
    steps = np.diff(true_positives, prepend=0.0) / y.sum()
    return float(np.sum(steps * true_positives / num_selected))


def roc(labels: ArrayLike, scores: ArrayLike) -> tuple[Array, Array]:
    """False and true positive rates at each distinct score, from (0, 0) to (1, 1)."""
    y, s = checked(labels, scores, needs_both_classes=True)
    true_positives, num_selected = _cumulative(y, s)
    true_rate = true_positives / y.sum()
    false_rate = (num_selected - true_positives) / (y.size - y.sum())
    return np.concatenate(([0.0], false_rate)), np.concatenate(([0.0], true_rate))


def _cumulative(y: Array, s: Array) -> tuple[Array, Array]:
    """True positives and selected rows when everything scored at least a threshold is selected, per distinct score."""
    order = np.argsort(-s, kind="stable")
    last_of_tie = np.append(np.diff(s[order]) != 0.0, True)
    selected = np.arange(1, s.size + 1, dtype=np.float64)
    return np.cumsum(y[order])[last_of_tie], selected[last_of_tie]


def _midranks(values: Array) -> Array:
    """Ranks from 1, equal values sharing their mean rank. [N]"""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return np.asarray((ends - (counts - 1) / 2.0)[inverse], dtype=np.float64)
