"""The inputs of one batch beside the champion's training period, as numbers."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureDrift:
    """One feature against the champion's training period; see clearway.measures.distance.Drift for the fields.

    `q_value`: `p_value` after control of false discoveries over the counted features of the batch. `effect`: of all
    effects of counted features on the champion's predictions, the share of this one; None where its package says none.
    """

    name: str
    kind: str
    distance: float | None
    lower: float | None
    upper: float | None
    limit: float | None
    p_value: float | None
    q_value: float | None
    is_over: bool | None
    is_ignored: bool
    is_lost: bool
    psi: float | None
    jensen_shannon: float | None
    kolmogorov_smirnov: tuple[float, float] | None
    unseen: float | None
    missing: float
    missing_reference: float
    effect: float | None = None
    size_factor: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Separated:
    """How well a model tells the batch from training rows; see clearway.measures.together for the fields."""

    auc: float
    lower: float
    upper: float
    limit: float | None
    is_over: bool | None


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftPart:
    """Inputs of the batch.

    Args:
        share_over: share of counted features over their own limit, 0 to 1, as the policy weighs them; None when too
            little can be compared.
        num_over, num_counted: what the share is made of; ignored and lost features are not counted.
        p_value: of "no counted feature changed"; num_changed: features that stand after control of false discoveries.
        together: all features at once; None when too few rows can be compared.
        null_share_mean, null_share_max: `share_over` of training batches, each against limits from the others.
        score: the champion's scores of this batch against those of its training period.
        features: largest excess over the limit first.
        is_by_effect: features count by their effects, see clearway.measures.effect.
    """

    num_rows: int
    share_over: float | None
    num_over: int
    num_counted: int
    p_value: float | None
    num_changed: int
    together: Separated | None
    null_share_mean: float | None
    null_share_max: float | None
    score: FeatureDrift | None
    features: tuple[FeatureDrift, ...]
    is_by_effect: bool = False
