"""How far the inputs of one batch lie from the champion's training period."""

import math
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from clearway.measures.distance import Drift, compare, compare_column
from clearway.monitor.summary import DriftPart, FeatureDrift

# A feature that kept less than this share of the values training had is an outage, not drift: the rest is a selection,
# so its distance is not counted. Calm weeks keep 0.08 of the gust reports on flights, nothing else falls below 0.65.
KEPT_SHARE = 0.05
# Rows with a value that training lets us expect, before their absence means anything.
MIN_EXPECTED = 30
# A part of a feed that falls silent thins many features at once. On flights the silence of one of three airports takes
# more than this share of all rows' values from at least 41 of 89 features; in 52 calm weeks at most 5 lose that much.
THINNED_BY = 0.15
MIN_THINNED_SHARE = 0.2
# With fewer than half of the features left to compare, a share of them describes the outage rather than the world.
MIN_COUNTED_SHARE = 0.5


def measure_drift(
    reference: dict[str, Any], batch: pa.Table, *, ignore: Sequence[str], scores: Sequence[float] | None
) -> DriftPart:
    """Compare a batch with a package's reference (clearway.measures.distance.build_reference).

    Args:
        batch: feature rows of the batch; all columns of the reference.
        ignore: columns shown but not counted.
        scores: the champion's logged scores for this batch; None for none.
    """
    features = tuple(_feature(d, len(batch), ignore=ignore) for d in compare(reference, batch))
    counted = [f for f in features if not f.is_ignored and not f.is_lost and f.is_over is not None]
    num_wanted = sum(not f.is_ignored for f in features)
    can_tell = bool(counted) and len(counted) >= MIN_COUNTED_SHARE * num_wanted
    num_over = sum(bool(f.is_over) for f in counted)
    null_shares = reference["null_shares"]
    return DriftPart(
        num_rows=len(batch),
        share_over=num_over / len(counted) if can_tell else None,
        num_over=num_over,
        num_counted=len(counted),
        null_share_mean=sum(null_shares) / len(null_shares) if null_shares else None,
        null_share_max=max(null_shares, default=None),
        score=_score_drift(reference, scores),
        features=features,
    )


def lost_features(part: DriftPart) -> tuple[str, ...]:
    """Features that lost nearly all of their values, by name."""
    return tuple(sorted(f.name for f in part.features if f.is_lost))


def thinned_features(part: DriftPart) -> tuple[str, ...]:
    """Features with far more missing values than in training, by name; empty unless too many thin out together."""
    thinned = sorted(f.name for f in part.features if f.missing - f.missing_reference > THINNED_BY)
    return tuple(thinned) if len(thinned) > MIN_THINNED_SHARE * len(part.features) else ()


def drift_words(part: DriftPart, *, bound: float) -> str:
    """One sentence that says what the share means when many features are looked at together."""
    if part.share_over is None:
        return f"only {part.num_counted} features can be compared; too few to speak of drift"
    usual = (
        f"training batches themselves reached {part.null_share_mean:.2f} on average, {part.null_share_max:.2f} at most"
        if part.null_share_mean is not None
        else "the training period is too short to say what is usual"
    )
    return (
        f"{part.num_over} of {part.num_counted} features are beyond their own limit (share {part.share_over:.2f}, "
        f"alarm above {bound:g}); some always are: {usual}"
    )


def _is_lost(drift: Drift, num_rows: int) -> bool:
    expected = (1 - drift.missing_reference) * num_rows
    return expected >= MIN_EXPECTED and drift.num_values < KEPT_SHARE * expected


def _feature(drift: Drift, num_rows: int, *, ignore: Sequence[str]) -> FeatureDrift:
    return FeatureDrift(
        name=drift.name,
        kind=drift.kind,
        distance=_finite(drift.distance),
        limit=drift.limit,
        is_over=drift.is_over,
        is_ignored=drift.name in ignore,
        is_lost=_is_lost(drift, num_rows),
        psi=_finite(drift.psi),
        jensen_shannon=_finite(drift.jensen_shannon),
        missing=drift.missing,
        missing_reference=drift.missing_reference,
    )


def _score_drift(reference: dict[str, Any], scores: Sequence[float] | None) -> FeatureDrift | None:
    entry = reference["score"]
    if entry is None or not scores:
        return None
    column = pa.chunked_array([pa.array(scores, pa.float64())])
    return _feature(compare_column("score", entry, column), len(scores), ignore=())


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
