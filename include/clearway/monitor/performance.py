"""How good the served scores were, on the labels that arrived with a batch."""

from datetime import datetime

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from clearway.contracts.errors import Unmeasurable
from clearway.infra.datasets import KEY, LABEL
from clearway.measures import binary
from clearway.measures.expected import expected_quality
from clearway.measures.resample import mean_difference
from clearway.monitor.carried import Arrived
from clearway.monitor.summary import AgePerformance, ModelPerformance, PerformancePart

# Interval of the gap: days are drawn, not rows, since rows of a day share their weather. Seven days make a rough one.
NUM_RESAMPLES = 500
CONFIDENCE = 0.975  # of each bound alone: 95 % for both
SEED = 2013
DAY_S = 86_400


def join_labels(labels: pa.Table, predictions: pa.Table) -> pa.Table:
    """The predictions (one row per key) that got a label (KEY, LABEL), in order of time."""
    joined = predictions.join(labels.select([KEY, LABEL]), keys="key", right_keys=KEY, join_type="inner")
    return joined.filter(pc.is_finite(joined["score"])).sort_by([("event_time", "ascending"), ("key", "ascending")])


def measure_performance(joined: pa.Table, *, num_labels: int, num_predictions: int, as_of: str) -> PerformancePart:
    """Judge each model on its own rows of `joined`. `as_of`: when these labels were known, ISO 8601 UTC."""
    digests = sorted(pc.unique(joined["model_digest"]).drop_null().to_pylist())
    known = int(datetime.fromisoformat(as_of).timestamp() // DAY_S)
    models = (_one_model(d, joined.filter(pc.equal(joined["model_digest"], d)), known_day=known) for d in digests)
    return PerformancePart(
        num_labels=num_labels,
        num_unpredicted=num_labels - len(joined),
        num_predictions=num_predictions,
        num_unlabelled=num_predictions - len(joined),
        models=tuple(models),
    )


def arrived_for(joined: pa.Table, model_digest: str | None) -> Arrived:
    """Labels and scores of one model's rows."""
    rows = joined.filter(pc.fill_null(pc.equal(joined["model_digest"], pa.scalar(model_digest, pa.string())), False))
    return Arrived(labels=rows[LABEL].to_numpy(), scores=rows["score"].to_numpy(), num_rows=len(rows))


def _one_model(digest: str, rows: pa.Table, *, known_day: int) -> ModelPerformance:
    labels, scores = rows[LABEL].to_numpy(), rows["score"].to_numpy()
    # A caller need not say when the predicted thing takes place; the moment of the answer is the next best block.
    moments = pc.coalesce(rows["event_time"], rows["logged_at"])
    days = moments.cast(pa.timestamp("us")).cast(pa.date32()).cast(pa.int32()).to_numpy()
    lower, upper = _gap_interval(labels, scores, days)
    return ModelPerformance(
        model_digest=digest,
        num_rows=len(rows),
        num_days=len(np.unique(days)),
        mean_label=float(labels.mean()),
        mean_score=float(scores.mean()),
        calibration_gap=binary.calibration_gap(labels, scores),
        gap_lower=lower,
        gap_upper=upper,
        auc=binary.auc(labels, scores) if labels.min() < labels.max() else None,
        log_loss=binary.log_loss(labels, scores),
        ece=binary.ece(labels, scores),
        loss_excess=binary.log_loss(labels, scores) - expected_quality(scores, scores).log_loss,
        by_age=_by_age(labels, scores, known_day - days),
    )


def _by_age(labels: binary.Array, scores: binary.Array, ages: npt.NDArray[np.int32]) -> tuple[AgePerformance, ...]:
    """Labels that come late may be of other rows than those that come soon, so each age is shown by itself."""
    found = []
    for age in np.unique(ages).tolist():
        chosen = ages == age
        found.append(
            AgePerformance(
                age_days=age,
                num_rows=int(chosen.sum()),
                mean_label=float(labels[chosen].mean()),
                mean_score=float(scores[chosen].mean()),
                log_loss=binary.log_loss(labels[chosen], scores[chosen]),
            )
        )
    return tuple(found)


def _gap_interval(labels: binary.Array, scores: binary.Array, days: binary.Array) -> tuple[float | None, float | None]:
    rng = np.random.default_rng(SEED)
    try:
        found = mean_difference(labels, scores, days, num_resamples=NUM_RESAMPLES, confidence=CONFIDENCE, rng=rng)
    except Unmeasurable:  # labels of one day only: a gap without an interval is still worth showing
        return None, None
    return found.lower, found.upper
