"""How good the served scores were, on the labels that arrived with a batch."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from clearway.contracts.errors import Unmeasurable
from clearway.infra.datasets import KEY, LABEL
from clearway.measures import binary
from clearway.measures.resample import mean_difference
from clearway.monitor.summary import ModelPerformance, PerformancePart

# Interval of the gap: days are drawn, not rows, since rows of a day share their weather. Seven days make a rough one.
NUM_RESAMPLES = 500
CONFIDENCE = 0.975  # of each bound alone: 95 % for both
SEED = 2013


def measure_performance(labels: pa.Table, predictions: pa.Table) -> PerformancePart:
    """Join arrived labels (KEY, LABEL) with the prediction log (one row per key); judge each model on its own rows."""
    joined = predictions.join(labels.select([KEY, LABEL]), keys="key", right_keys=KEY, join_type="inner")
    joined = joined.filter(pc.is_finite(joined["score"])).sort_by([("event_time", "ascending"), ("key", "ascending")])
    digests = sorted(pc.unique(joined["model_digest"]).drop_null().to_pylist())
    models = (_one_model(d, joined.filter(pc.equal(joined["model_digest"], d))) for d in digests)
    return PerformancePart(
        num_labels=len(labels),
        num_unpredicted=len(labels) - len(joined),
        num_predictions=len(predictions),
        num_unlabelled=len(predictions) - len(joined),
        models=tuple(models),
    )


def _one_model(digest: str, rows: pa.Table) -> ModelPerformance:
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
    )


def _gap_interval(labels: binary.Array, scores: binary.Array, days: binary.Array) -> tuple[float | None, float | None]:
    rng = np.random.default_rng(SEED)
    try:
        found = mean_difference(labels, scores, days, num_resamples=NUM_RESAMPLES, confidence=CONFIDENCE, rng=rng)
    except Unmeasurable:  # labels of one day only: a gap without an interval is still worth showing
        return None, None
    return found.lower, found.upper
