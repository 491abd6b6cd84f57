"""A model group by group, against its own mean: what an average hides.

True base rates differ between groups, so nothing is held against equal rates; a group counts against the model's
behaviour on everybody. Groups with few rows or few positives are reported and never gated.

Shapes: N rows.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from clearway.measures import binary
from clearway.measures.binary import Array

MISSING = "(missing)"


@dataclass(frozen=True, slots=True, kw_only=True)
class SliceFigures:
    """One group.

    Args:
        name: `column=value`.
        auc: None for one class only. `auc_gap`: AUC here - AUC on all rows. `auc_lag`: how far below all rows, less
            what the yardstick falls behind there: a group that is hard for every model is no fault of this one.
        calibration_gap: mean score - mean label. `calibration_excess`: |gap here - gap on all rows|, less what a
            yardstick trained on the same rows shows there in the same direction: when a group itself changes, every
            model of the past is off by as much (flights in May: LGA, MQ, US by 0.06 to 0.10, the yardstick too).
        logloss_excess: (loss - other model's loss here) - (the same on all rows), nats; None without another model.
        is_gated: large enough to count.
    """

    name: str
    num_rows: int
    num_positives: int
    auc: float | None
    auc_gap: float | None
    auc_lag: float | None
    calibration_gap: float
    calibration_excess: float
    logloss: float
    logloss_excess: float | None
    is_gated: bool


def slice_figures(
    labels: Array,
    scores: Array,
    slices: Mapping[str, npt.NDArray[np.object_]],
    *,
    other: Array | None,
    yardstick: Array | None = None,
    min_slice: tuple[int, int],
) -> tuple[SliceFigures, ...]:
    """Every value of every slicing column, largest first within a column.

    Args:
        slices: column → values [N], None for missing.
        other: scores of another model on the same rows. [N]
        yardstick: scores of a cheap model fitted on the candidate's training rows. [N]
        min_slice: fewest rows and fewest of the rarer class for a group to count.
    """
    loss = binary.row_log_loss(labels, scores)
    worse = None if other is None else loss - binary.row_log_loss(labels, other)
    overall_yardstick = None if yardstick is None else binary.auc(labels, yardstick)
    overall_auc, overall_gap = binary.auc(labels, scores), float(scores.mean() - labels.mean())
    shared = None if yardstick is None else yardstick - labels - float(yardstick.mean() - labels.mean())

    def behind(is_in: npt.NDArray[np.bool_]) -> float:
        """What the yardstick's AUC falls behind on a group, as a number at or below zero."""
        if yardstick is None or overall_yardstick is None:
            return 0.0
        return min(0.0, binary.auc(labels[is_in], yardstick[is_in]) - overall_yardstick)

    found = []
    for column, values in slices.items():
        named = np.array([MISSING if v is None else str(v) for v in values], dtype=object)
        members = [(value, named == value) for value in sorted(set(named))]
        for value, is_in in sorted(members, key=lambda m: -int(m[1].sum())):
            num_rows, num_positives = int(is_in.sum()), int(labels[is_in].sum())
            rarer = min(num_positives, num_rows - num_positives)
            auc = binary.auc(labels[is_in], scores[is_in]) if rarer else None
            gap = float(scores[is_in].mean() - labels[is_in].mean())
            found.append(
                SliceFigures(
                    name=f"{column}={value}",
                    num_rows=num_rows,
                    num_positives=num_positives,
                    auc=auc,
                    auc_gap=None if auc is None else auc - overall_auc,
                    auc_lag=None if auc is None else _own_part(min(0.0, auc - overall_auc), behind(is_in)),
                    calibration_gap=gap,
                    calibration_excess=_own_part(gap - overall_gap, 0.0 if shared is None else shared[is_in].mean()),
                    logloss=float(loss[is_in].mean()),
                    logloss_excess=None if worse is None else float(worse[is_in].mean() - worse.mean()),
                    is_gated=num_rows >= min_slice[0] and rarer >= min_slice[1],
                )
            )
    return tuple(found)


def _own_part(gap: float, shared_gap: float) -> float:
    """How much of |gap| remains when `shared_gap` is excused, which it is in the same direction only."""
    excused = abs(shared_gap) if gap * shared_gap > 0 else 0.0
    return max(0.0, abs(gap) - float(excused))
