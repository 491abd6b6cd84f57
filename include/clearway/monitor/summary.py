"""Everything one batch showed, as numbers: what the decision, the pages and later batches read."""

import json
from dataclasses import dataclass

from clearway.contracts.codec import from_jsonable, to_jsonable
from clearway.contracts.manifest import canonical_json, sha256_of
from clearway.contracts.verdict import Check, Verdict
from clearway.monitor.decide import Window


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureDrift:
    """One feature against the champion's training period; see clearway.measures.distance.Drift for the fields."""

    name: str
    kind: str
    distance: float | None
    limit: float | None
    is_over: bool | None
    is_ignored: bool
    is_lost: bool
    psi: float | None
    jensen_shannon: float | None
    missing: float
    missing_reference: float


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftPart:
    """Inputs of the batch.

    Args:
        share_over: share of counted features over their own limit, 0 to 1; None when too little can be compared.
        num_over, num_counted: what the share is made of; ignored and lost features are not counted.
        null_share_mean, null_share_max: the same for training batches themselves, each against limits from the others.
        score: the champion's scores of this batch against those of its training period.
        features: largest excess over the limit first.
    """

    num_rows: int
    share_over: float | None
    num_over: int
    num_counted: int
    null_share_mean: float | None
    null_share_max: float | None
    score: FeatureDrift | None
    features: tuple[FeatureDrift, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelPerformance:
    """One model on labels that arrived with this batch.

    Args:
        mean_label, mean_score: 0 to 1.
        calibration_gap: their absolute difference.
        gap_lower, gap_upper: of mean label - mean score, whole days resampled; None for fewer than two days.
        auc: None when only one class arrived.
        log_loss: nats per row. ece: 0 to 1.
    """

    model_digest: str
    num_rows: int
    num_days: int
    mean_label: float
    mean_score: float
    calibration_gap: float
    gap_lower: float | None
    gap_upper: float | None
    auc: float | None
    log_loss: float
    ece: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PerformancePart:
    """Labels that arrived with the batch, joined with the predictions that were served for them.

    Args:
        num_labels: arrived labels; num_unpredicted: those of them no prediction was logged for.
        num_predictions: distinct keys logged in the batches these labels may belong to; num_unlabelled: those of them
            that no label came for.
    """

    num_labels: int
    num_unpredicted: int
    num_predictions: int
    num_unlabelled: int
    models: tuple[ModelPerformance, ...]

    def of(self, model_digest: str | None) -> ModelPerformance | None:
        """Performance of one model, if any of its predictions got a label."""
        return next((m for m in self.models if m.model_digest == model_digest), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """One batch, measured once.

    Args:
        as_of: end of what is known, ISO 8601 UTC.
        champion_digest: the model whose training period is the reference; None before the first release.
        faults: lost input, in sentences; such a batch never speaks for a retraining.
        calibration_gap: the champion's, once enough labels arrived to count; the decision reads this one.
        checks: the claims behind `verdict`.
    """

    product: str
    batch_id: str
    as_of: str
    dataset_digest: str
    champion_digest: str | None
    verdict: Verdict
    reason: str
    faults: tuple[str, ...]
    drift: DriftPart | None
    performance: PerformancePart
    calibration_gap: float | None
    checks: tuple[Check, ...]

    def to_json(self) -> bytes:
        return canonical_json(to_jsonable(self))

    @classmethod
    def from_json(cls, data: bytes) -> "Summary":
        return from_jsonable(cls, json.loads(data))

    @property
    def digest(self) -> str:
        return sha256_of(self.to_json())

    @property
    def window(self) -> Window:
        """What the decision reads of it."""
        return Window(
            batch_id=self.batch_id,
            model_digest=self.champion_digest,
            drift_share=self.drift.share_over if self.drift else None,
            calibration_gap=self.calibration_gap,
            faults=self.faults,
        )
