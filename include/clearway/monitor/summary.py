"""Everything one batch showed, as numbers: what the decision, the pages and later batches read."""

import json
from dataclasses import dataclass

from clearway.contracts.codec import from_jsonable, to_jsonable
from clearway.contracts.manifest import canonical_json, sha256_of
from clearway.contracts.verdict import Check, Verdict
from clearway.monitor.carried import Carried
from clearway.monitor.decide import Window
from clearway.monitor.drift_part import DriftPart
from clearway.monitor.estimate import Estimate
from clearway.monitor.length_part import LengthPart
from clearway.monitor.surprise_part import SurprisePart


@dataclass(frozen=True, slots=True, kw_only=True)
class AgePerformance:
    """Rows whose labels needed equally long: `age_days` from the predicted moment to the end of the batch."""

    age_days: int
    num_rows: int
    mean_label: float
    mean_score: float
    log_loss: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelPerformance:
    """One model on labels that arrived with this batch.

    Args:
        mean_label, mean_score: 0 to 1.
        calibration_gap: their absolute difference.
        gap_lower, gap_upper: of mean label - mean score, whole days resampled; None for fewer than two days.
        auc: None when only one class arrived.
        log_loss: nats per row. ece: 0 to 1.
        loss_excess: log-loss less what it would be if every score were right, nats; above 0 is worse than promised.
        by_age: the same rows by the age of their labels, youngest first.
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
    loss_excess: float
    by_age: tuple[AgePerformance, ...]


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
        performance: of models that are judged by labels. surprise: of models that read texts; see its `over`.
        length: of those texts.
        calibration_gap, loss_excess: the champion's, once enough labels arrived to count; the decision reads these.
        estimate: what the champion's scores of this batch are worth, before its labels are there; None where none come.
        checks: the claims behind `verdict`.
        carried: what the next batch starts from.
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
    performance: PerformancePart | None
    calibration_gap: float | None
    loss_excess: float | None
    estimate: Estimate | None
    checks: tuple[Check, ...]
    carried: Carried
    surprise: SurprisePart | None = None
    length: LengthPart | None = None

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
            loss_excess=self.loss_excess,
            surprise=self.surprise.over if self.surprise else None,
            faults=self.faults,
            sudden=self.carried.held,
            num_batches=self.carried.num_batches,
            num_new_rows=self.carried.num_new_rows,
            num_unlabelled=self.carried.num_unlabelled,
            had_labels=self.carried.had_labels,
        )
