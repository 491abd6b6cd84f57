"""How far the inputs of one batch lie from the champion's training period."""

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from clearway.infra.datasets import DAY
from clearway.measures.distance import Drift, compare_column, compare_tally
from clearway.measures.effect import weights
from clearway.measures.false_discovery import any_change, benjamini_yekutieli
from clearway.measures.season import in_season
from clearway.measures.tally import Tally, tally
from clearway.measures.together import compare_together
from clearway.monitor.batch_rows import even_places, taken
from clearway.monitor.drift_part import DriftPart, FeatureDrift, Separated

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
# Rows of a larger batch, evenly spaced, that are looked at all features at once; everything else counts every row.
TOGETHER_ROWS = 20_000


def measure_drift(
    reference: dict[str, Any],
    batch: pa.Table,
    *,
    ignore: Sequence[str],
    scores: Sequence[float] | None,
    false_discovery_rate: float,
    is_by_effect: bool = True,
) -> DriftPart:
    """Compare a batch with a package's reference (clearway.measures.distance.build_reference), in its season's part if
    there is one.

    Args:
        batch: feature rows of the batch; all columns of the reference, and DAY.
        ignore: columns shown but not counted.
        scores: the champion's logged scores for this batch; None for none.
        is_by_effect: features count by their effects on predictions, where the reference knows them; else all the same.
    """
    return measure_pieces(
        reference,
        [batch],
        num_rows=len(batch),
        ignore=ignore,
        scores=scores,
        false_discovery_rate=false_discovery_rate,
        is_by_effect=is_by_effect,
    )


def measure_pieces(
    reference: dict[str, Any],
    pieces: Iterable[pa.Table],
    *,
    num_rows: int,
    ignore: Sequence[str],
    scores: Sequence[float] | None,
    false_discovery_rate: float,
    is_by_effect: bool = True,
) -> DriftPart:
    """The same for a batch that comes in pieces of a few rows, of which one is held at a time. `num_rows`: of all."""
    counted, sample = _counted(reference, pieces, num_rows=num_rows)
    return measure_counted(
        reference,
        counted,
        sample=sample,
        num_rows=num_rows,
        ignore=ignore,
        scores=scores,
        false_discovery_rate=false_discovery_rate,
        is_by_effect=is_by_effect,
    )


def measure_counted(
    reference: dict[str, Any],
    counted: Tally,
    *,
    sample: pa.Table | None,
    num_rows: int,
    ignore: Sequence[str],
    scores: Sequence[float] | None,
    false_discovery_rate: float,
    is_by_effect: bool = True,
) -> DriftPart:
    """The same for a batch that was counted elsewhere. `sample`: some of its rows, to look at all features at once."""
    reference = in_season(reference, counted.days[0])
    drifts = compare_tally(reference["features"], counted)
    features = _with_q_values(tuple(_feature(d, num_rows, ignore=ignore) for d in drifts))
    features = _with_effects(features, reference.get("effects") or {})
    part = _part(reference, features, sample, num_rows=num_rows, scores=scores, rate=false_discovery_rate)
    return by_effect(part, reference) if is_by_effect else part


def _counted(reference: dict[str, Any], pieces: Iterable[pa.Table], *, num_rows: int) -> tuple[Tally, pa.Table]:
    """Every row counted, some rows kept."""
    places, looked_at = even_places(num_rows, TOGETHER_ROWS), list(reference["sample"])
    total, sample, start = None, list[pa.Table](), 0
    for piece in pieces:
        found = tally(reference["features"], piece, days=piece[DAY].cast(pa.int32()).to_numpy())
        total = found if total is None else total.plus(found)
        sample.append(taken(piece, places, start=start).select(looked_at))
        start += len(piece)
    if total is None:
        raise ValueError("a batch without rows has no drift; pass at least one piece")
    return total, pa.concat_tables(sample)


def _part(
    reference: dict[str, Any],
    features: tuple[FeatureDrift, ...],
    sample: pa.Table | None,
    *,
    num_rows: int,
    scores: Sequence[float] | None,
    rate: float,
) -> DriftPart:
    counted = [f for f in features if _is_counted(f)]
    num_wanted = sum(not f.is_ignored for f in features)
    can_tell = bool(counted) and len(counted) >= MIN_COUNTED_SHARE * num_wanted
    num_over = sum(bool(f.is_over) for f in counted)
    null_shares = reference["null_shares"]
    p_values = [f.p_value for f in features if f.q_value is not None and f.p_value is not None]
    return DriftPart(
        num_rows=num_rows,
        share_over=num_over / len(counted) if can_tell else None,
        num_over=num_over,
        num_counted=len(counted),
        p_value=any_change(p_values) if p_values else None,
        num_changed=sum(f.q_value is not None and f.q_value <= rate for f in features),
        together=_together(reference, sample) if sample is not None else None,
        null_share_mean=sum(null_shares) / len(null_shares) if null_shares else None,
        null_share_max=max(null_shares, default=None),
        score=_score_drift(reference, scores),
        features=features,
    )


def _is_counted(feature: FeatureDrift) -> bool:
    return not feature.is_ignored and not feature.is_lost and feature.is_over is not None


def _with_effects(features: tuple[FeatureDrift, ...], effects: Mapping[str, float]) -> tuple[FeatureDrift, ...]:
    """Shares of what the counted features do; the others keep None."""
    total = sum(effects.get(f.name, 0.0) for f in features if _is_counted(f))
    if total <= 0:
        return features
    return tuple(
        dataclasses.replace(f, effect=effects.get(f.name, 0.0) / total) if _is_counted(f) else f for f in features
    )


def by_effect(part: DriftPart, reference: Mapping[str, Any]) -> DriftPart:
    """The part with features weighed; as it is where nothing is known of their effects, or too little compared.

    Args: reference: of which `effects` and `null_shares_by_effect` are read.
    """
    part = dataclasses.replace(part, features=_with_effects(part.features, reference.get("effects") or {}))
    counted = [f for f in part.features if _is_counted(f)]
    if part.share_over is None or all(f.effect is None for f in counted):
        return part
    usual = reference.get("null_shares_by_effect") or []
    over = np.asarray([bool(f.is_over) for f in counted])
    return dataclasses.replace(
        part,
        share_over=float(weights([f.effect for f in counted])[over].sum()),
        null_share_mean=sum(usual) / len(usual) if usual else None,
        null_share_max=max(usual, default=None),
        is_by_effect=True,
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
    how = "share" if not part.is_by_effect else "weighed by their effect on predictions"
    return (
        f"{part.num_over} of {part.num_counted} features are beyond their own limit ({how} {part.share_over:.2f}, "
        f"alarm above {bound:g}); some always are: {usual}; {part.num_changed} stand after control of false discoveries"
    )


def _is_lost(drift: Drift, num_rows: int) -> bool:
    expected = (1 - drift.missing_reference) * num_rows
    return expected >= MIN_EXPECTED and drift.num_values < KEPT_SHARE * expected


def _feature(drift: Drift, num_rows: int, *, ignore: Sequence[str]) -> FeatureDrift:
    return FeatureDrift(
        name=drift.name,
        kind=drift.kind,
        distance=_finite(drift.distance),
        lower=_finite(drift.lower),
        upper=_finite(drift.upper),
        limit=drift.limit,
        p_value=_finite(drift.p_value),
        q_value=None,
        is_over=drift.is_over,
        is_ignored=drift.name in ignore,
        is_lost=_is_lost(drift, num_rows),
        psi=_finite(drift.psi),
        jensen_shannon=_finite(drift.jensen_shannon),
        kolmogorov_smirnov=drift.kolmogorov_smirnov,
        unseen=drift.unseen,
        size_factor=_finite(drift.size_factor),
        missing=drift.missing,
        missing_reference=drift.missing_reference,
    )


def _with_q_values(features: tuple[FeatureDrift, ...]) -> tuple[FeatureDrift, ...]:
    """Control of false discoveries over the features that count, which move together; the others keep None."""
    judged = [f for f in features if f.p_value is not None and not f.is_ignored and not f.is_lost]
    if not judged:
        return features
    adjusted = benjamini_yekutieli([f.p_value for f in judged if f.p_value is not None])
    q_values = {f.name: float(q) for f, q in zip(judged, adjusted, strict=True)}
    return tuple(dataclasses.replace(f, q_value=q_values.get(f.name)) for f in features)


def _together(reference: dict[str, Any], batch: pa.Table) -> Separated | None:
    found = compare_together(reference, batch)
    if found is None:
        return None
    seen = found.found
    return Separated(auc=seen.auc, lower=seen.lower, upper=seen.upper, limit=found.limit, is_over=found.is_over)


def _score_drift(reference: dict[str, Any], scores: Sequence[float] | None) -> FeatureDrift | None:
    entry = reference["score"]
    if entry is None or not scores:
        return None
    column = pa.chunked_array([pa.array(scores, pa.float64())])
    return _feature(compare_column("score", entry, column), len(scores), ignore=())


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
