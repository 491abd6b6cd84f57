"""What was measured on the holdout: scores of every model on the same rows, and the figures made of them. Pure.

Shapes: N holdout rows.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from clearway.evaluate.slices import SliceFigures, slice_figures
from clearway.measures import binary
from clearway.measures.binary import Array
from clearway.measures.resample import Interval, auc_difference, mean_difference

CANDIDATE, CHAMPION, TREES, LINE = "candidate", "champion", "trees", "line"


@dataclass(frozen=True, slots=True, kw_only=True)
class Holdout:
    """Labelled rows no model under judgement may have been trained on.

    Args:
        labels: 0/1 [N]. days: days since 1970 [N]. slices: column → values [N].
        base_rate: share of positives in the training period.
        scores: model → probabilities [N].
        is_new_to_champion: rows the champion was not trained on [N]; None without a champion.
    """

    labels: Array
    days: npt.NDArray[np.int64]
    slices: Mapping[str, npt.NDArray[np.object_]]
    base_rate: float
    scores: Mapping[str, Array]
    is_new_to_champion: npt.NDArray[np.bool_] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """One model on the holdout; see clearway.measures.binary for each."""

    auc: float
    average_precision: float
    logloss: float
    skill: float
    brier: float
    ece: float
    calibration_gap: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Candidate minus `other` on `num_rows` shared rows; positive log-loss is worse, positive AUC better."""

    other: str
    num_rows: int
    num_days: int
    auc_other: float
    logloss_other: float
    auc: Interval
    logloss: Interval


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """Everything the gates read."""

    num_rows: int
    num_days: int
    num_positives: int
    figures: dict[str, Figures]
    comparisons: dict[str, Comparison]
    slices: tuple[SliceFigures, ...]


def fair_rows(other: str, is_new_to_champion: npt.NDArray[np.bool_] | None, *, num_rows: int) -> npt.NDArray[np.bool_]:
    """Rows to compare with `other` on: a champion is not judged on what it has learned. [N]"""
    if other == CHAMPION and is_new_to_champion is not None:
        return is_new_to_champion
    return np.ones(num_rows, dtype=bool)


def gather(
    holdout: Holdout,
    *,
    num_resamples: int,
    confidence: float,
    min_slice: tuple[int, int],
    min_days: int,
    make_rng: Callable[[str], np.random.Generator],
) -> Evidence:
    """Measure every model and every pair. A champion that knows too many of the rows is left out of the comparisons.

    Raises: Unmeasurable.
    """
    labels, candidate = holdout.labels, holdout.scores[CANDIDATE]
    comparisons = {}
    for other in (name for name in holdout.scores if name != CANDIDATE):
        is_used = fair_rows(other, holdout.is_new_to_champion, num_rows=labels.size)
        if np.unique(holdout.days[is_used]).size < min_days or np.unique(labels[is_used]).size < len((0, 1)):
            continue
        comparisons[other] = _compare(
            other,
            labels[is_used],
            candidate[is_used],
            holdout.scores[other][is_used],
            holdout.days[is_used],
            num_resamples=num_resamples,
            confidence=confidence,
            rng=make_rng(f"against {other}"),
        )
    has_champion = CHAMPION in comparisons
    return Evidence(
        num_rows=int(labels.size),
        num_days=int(np.unique(holdout.days).size),
        num_positives=int(labels.sum()),
        figures={n: _figures(labels, s, base_rate=holdout.base_rate) for n, s in holdout.scores.items()},
        comparisons=comparisons,
        slices=slice_figures(
            labels,
            candidate,
            holdout.slices,
            other=holdout.scores[CHAMPION] if has_champion else None,
            yardstick=holdout.scores.get(TREES),
            min_slice=min_slice,
        ),
    )


def _figures(labels: Array, scores: Array, *, base_rate: float) -> Figures:
    return Figures(
        auc=binary.auc(labels, scores),
        average_precision=binary.average_precision(labels, scores),
        logloss=binary.log_loss(labels, scores),
        skill=binary.log_loss_skill(labels, scores, base_rate=base_rate),
        brier=binary.brier(labels, scores),
        ece=binary.ece(labels, scores),
        calibration_gap=binary.calibration_gap(labels, scores),
    )


def _compare(
    other: str,
    labels: Array,
    candidate: Array,
    reference: Array,
    days: npt.NDArray[np.int64],
    *,
    num_resamples: int,
    confidence: float,
    rng: np.random.Generator,
) -> Comparison:
    losses = binary.row_log_loss(labels, candidate), binary.row_log_loss(labels, reference)
    logloss = mean_difference(*losses, days, num_resamples=num_resamples, confidence=confidence, rng=rng)
    auc = auc_difference(
        labels, candidate, reference, days, num_resamples=num_resamples, confidence=confidence, rng=rng
    )
    return Comparison(
        other=other,
        num_rows=int(labels.size),
        num_days=logloss.num_days,
        auc_other=binary.auc(labels, reference),
        logloss_other=float(losses[1].mean()),
        auc=auc,
        logloss=logloss,
    )
