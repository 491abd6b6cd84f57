"""How good are scores expected to be, before a label is there: from chances that stand in for the labels.

N rows, B bins of score. `chance` is the calibrated probability of a label of 1, `score` what was served. Source:
confidence-based performance estimation as published in NannyML's documentation ("CBPE"): every row counts as a
positive with its chance and as a negative with the rest.
"""

# ruff: noqa: N803, N806 - shape letters in names

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from clearway.contracts.errors import Unmeasurable
from clearway.measures.binary import SCORE_EPSILON, auc, brier, log_loss

Floats = npt.NDArray[np.float64]

# Bins of equal width in score: with served scores, fixed edges are what lets counts of different batches be added.
NUM_BINS = 20
# Rows that vouch for the score itself in every bin: a bin with as many labels goes half of the way to what they say.
PRIOR_ROWS = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    """One set of rows, expected or found: nats per row, 0 to 1, 0 to 1 (None without both classes), 0 to 1."""

    log_loss: float
    brier: float
    auc: float | None
    mean_label: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """What labels said about scores so far. [B] Adds up over batches; empty, a score is its own chance."""

    num_rows: tuple[int, ...] = (0,) * NUM_BINS
    label_sums: tuple[float, ...] = (0.0,) * NUM_BINS
    score_sums: tuple[float, ...] = (0.0,) * NUM_BINS

    def chances(self, scores_N: npt.ArrayLike) -> Floats:
        """Calibrated probability of each row. [N]"""
        scores = np.asarray(scores_N, dtype=np.float64)
        surplus = np.asarray(self.label_sums) - np.asarray(self.score_sums)
        shift_B = surplus / (np.asarray(self.num_rows) + PRIOR_ROWS)
        chances: Floats = np.clip(scores + shift_B[_bin_of(scores)], SCORE_EPSILON, 1 - SCORE_EPSILON)
        return chances

    def after(self, labels_N: npt.ArrayLike, scores_N: npt.ArrayLike) -> "Calibration":
        """With more labelled rows."""
        scores = np.asarray(scores_N, dtype=np.float64)
        bins = _bin_of(scores)
        counts = np.bincount(bins, minlength=NUM_BINS)
        labels = np.bincount(bins, weights=np.asarray(labels_N, dtype=np.float64), minlength=NUM_BINS)
        sums = np.bincount(bins, weights=scores, minlength=NUM_BINS)
        return Calibration(
            num_rows=tuple(int(a + b) for a, b in zip(self.num_rows, counts, strict=True)),
            label_sums=tuple(float(a + b) for a, b in zip(self.label_sums, labels, strict=True)),
            score_sums=tuple(float(a + b) for a, b in zip(self.score_sums, sums, strict=True)),
        )

    def uncovered(self, scores_N: npt.ArrayLike, *, min_rows: int) -> float:
        """Share of rows whose bin of score holds fewer than `min_rows` labels: where nothing was learned."""
        is_known = np.asarray(self.num_rows) >= min_rows
        return float(1.0 - is_known[_bin_of(np.asarray(scores_N, dtype=np.float64))].mean())


def expected_quality(chances_N: npt.ArrayLike, scores_N: npt.ArrayLike) -> Quality:
    """What the served scores are worth if the chances are right. Raises: Unmeasurable for no rows."""
    c, s = np.asarray(chances_N, dtype=np.float64), np.asarray(scores_N, dtype=np.float64)
    if not c.size or c.shape != s.shape:
        raise Unmeasurable(f"chances {c.shape} and scores {s.shape} cannot be compared; pass two non-empty columns")
    p = np.clip(s, SCORE_EPSILON, 1 - SCORE_EPSILON)
    return Quality(
        log_loss=float(-np.mean(c * np.log(p) + (1 - c) * np.log1p(-p))),
        brier=float(np.mean(c * (1 - s) ** 2 + (1 - c) * s**2)),
        auc=_expected_auc(c, s),
        mean_label=float(c.mean()),
    )


def found_quality(labels_N: npt.ArrayLike, scores_N: npt.ArrayLike) -> Quality:
    """The same figures once the labels are there. Raises: Unmeasurable."""
    y = np.asarray(labels_N, dtype=np.float64)
    loss = log_loss(y, scores_N)
    has_both = bool(y.min() < y.max())
    return Quality(
        log_loss=loss,
        brier=brier(y, scores_N),
        auc=auc(y, scores_N) if has_both else None,
        mean_label=float(y.mean()),
    )


def _expected_auc(c: Floats, s: Floats) -> float | None:
    """Chance that an expected positive scores above an expected negative, ties counted half."""
    _, at = np.unique(s, return_inverse=True)
    positive, negative = np.bincount(at, weights=c), np.bincount(at, weights=1 - c)
    pairs = positive.sum() * negative.sum()
    below = np.cumsum(negative) - negative
    return float(np.sum(positive * (below + negative / 2)) / pairs) if pairs > 0 else None


def _bin_of(scores: Floats) -> npt.NDArray[np.int64]:
    found: npt.NDArray[np.int64] = np.clip((scores * NUM_BINS).astype(np.int64), 0, NUM_BINS - 1)
    return found
