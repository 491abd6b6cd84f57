"""From folds to thresholds: how much worse is still as good, on this product, on windows of this length. Pure.

Every margin is  tolerated loss + room for noise:
- the tolerated loss is a share of what the trees gain over knowing the base rate alone (the fixed-margin rule of
  non-inferiority trials, ICH E10: keep most of the proven effect of the active control);
- the room is z x the day-block standard error that the paired difference of two honest models shows on the folds,
  since a bound, not an estimate, is held against the margin. It is capped: noise may not excuse losing the model's
  worth.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy.special import ndtri  # type: ignore[import-untyped]

from clearway.contracts.errors import Unmeasurable
from clearway.evaluate.folds import Fold, used_slices

# Share of the trees' gain over the base rate that a model may give up: 0.20 in nats, as trials keep 80 % of a proven
# effect. In AUC above one half the same model loses a third of that (noise of 0.7 added to the logits of an honest
# flights model took 43 % of the nats and 15 % of the AUC above 0.5, and is beyond both margins).
TOLERATED_LOGLOSS = 0.20
TOLERATED_AUC = 0.07
# No margin may exceed this share of the gain, however noisy the folds are.
LARGEST_SHARE = 0.35
# A model must save at least this share of what the trees saved on their worst fold.
SKILL_SHARE = 0.5
# A slice counts as broken beyond this many root-mean-squares of what slices of honest models do on the folds.
SLICE_RMS = 3.0
# Below these a slice's difference is no news, however quiet the folds were.
LEAST_SLICE = {"auc": 0.05, "calibration": 0.03, "logloss": 0.01}
# Used when no fold has a slice large enough to learn from; read off 108 slice-months of flights with honest models.
DEFAULT_SLICE = {"auc": 0.09, "calibration": 0.10, "logloss": 0.03}


@dataclass(frozen=True, slots=True, kw_only=True)
class Margins:
    """Thresholds derived from folds.

    Args:
        skill_floor: smallest share of the base rate's log-loss to save, 0 to 1.
        logloss, auc: how much worse than a reference is still as good (nats per row; AUC); 0 where the trees gained
            nothing that could be given up.
        line_slack: how far below the straight line's AUC is still noise.
        slice_auc: how far a slice's AUC may fall below the AUC of all rows, beyond what a yardstick falls behind.
        slice_calibration: how far a slice's calibration gap may differ from that of all rows, beyond a yardstick's.
        slice_logloss: how much more than all rows a slice may lose to the champion, nats.
    """

    skill_floor: float
    logloss: float
    auc: float
    line_slack: float
    slice_auc: float
    slice_calibration: float
    slice_logloss: float

    @property
    def has_yardstick(self) -> bool:
        """Whether the trees learned anything on the folds; where not, a comparison with them shows nothing."""
        return self.logloss > 0.0 and self.auc > 0.0


def derive(folds: Sequence[Fold], *, confidence: float) -> Margins:
    """Raises: Unmeasurable if a fold's figures are no numbers.

    Trees that learned nothing leave nothing to give up, so the margins are 0. That is no failure of the measurement:
    shuffled labels look like this, and the absolute gates must be free to say no to what was trained on them.
    """
    gain = float(np.mean([f.gain_nats for f in folds]))
    lift = float(np.mean([f.auc_trees for f in folds])) - 0.5
    if not np.isfinite([gain, lift]).all():
        raise Unmeasurable(
            f"the trees gain {gain:.4g} nats and {lift:.4g} AUC over the base rate on {len(folds)} folds; both must be "
            "finite: look for scores that are no numbers"
        )
    gain, lift = max(0.0, gain), max(0.0, lift)
    z = float(ndtri(confidence))
    logloss_room = z * float(np.median([f.logloss_se for f in folds]))
    auc_room = z * float(np.median([f.auc_se for f in folds]))
    return Margins(
        skill_floor=max(0.0, SKILL_SHARE * min(f.skill for f in folds)),
        logloss=min(TOLERATED_LOGLOSS * gain + logloss_room, LARGEST_SHARE * gain),
        auc=min(TOLERATED_AUC * lift + auc_room, LARGEST_SHARE * lift),
        line_slack=auc_room,
        slice_auc=_slice_bound("auc", [s.auc_lag for s in used_slices(folds)]),
        slice_calibration=_slice_bound("calibration", [s.calibration_excess for s in used_slices(folds)]),
        slice_logloss=_slice_bound("logloss", [s.logloss_excess for s in used_slices(folds)]),
    )


def _slice_bound(kind: str, seen: Sequence[float | None]) -> float:
    values = [v for v in seen if v is not None]
    if not values:
        return DEFAULT_SLICE[kind]
    return max(LEAST_SLICE[kind], SLICE_RMS * float(np.sqrt(np.mean(np.square(values)))))


FORMULAS = {
    "skill_floor": f"max(0, {SKILL_SHARE} x smallest fold skill)",
    "logloss": f"min({TOLERATED_LOGLOSS} x gain + z x median fold SE, {LARGEST_SHARE} x gain); gain = mean fold gain,"
    " at least 0",
    "auc": f"min({TOLERATED_AUC} x lift + z x median fold SE, {LARGEST_SHARE} x lift); lift = mean fold AUC - 0.5,"
    " at least 0",
    "line_slack": "z x median fold SE of the AUC difference trees - line",
    "slice_auc": f"max({LEAST_SLICE['auc']}, {SLICE_RMS} x RMS over fold slices of AUC below all rows"
    " of the trees beyond the line's)",
    "slice_calibration": f"max({LEAST_SLICE['calibration']}, {SLICE_RMS} x RMS over fold slices of |gap - overall gap|"
    " of the trees beyond the line's)",
    "slice_logloss": f"max({LEAST_SLICE['logloss']}, {SLICE_RMS} x RMS over fold slices of excess loss trees - line)",
}


def derivation(margins: Margins, folds: Sequence[Fold], *, confidence: float) -> dict[str, Any]:
    """What the thresholds are and where they came from, for the evaluation's JSON."""
    return {
        "confidence": confidence,
        "margins": asdict(margins),
        "formulas": FORMULAS,
        "folds": [{k: v for k, v in asdict(f).items() if k != "slices"} for f in folds],
        "num_fold_slices": len(used_slices(folds)),
    }
