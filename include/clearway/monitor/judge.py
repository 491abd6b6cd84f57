"""From what was measured to a summary: faults, checks, one verdict with its reason. Pure."""

import math
from collections.abc import Sequence

from clearway.contracts.verdict import Check, Verdict, at_most, judge
from clearway.monitor.carried import Arrived, Carried, carry
from clearway.monitor.drift import drift_words, lost_features, thinned_features
from clearway.monitor.drift_part import DriftPart
from clearway.monitor.estimate import Estimate
from clearway.monitor.length_part import LengthPart, length_words
from clearway.monitor.summary import ModelPerformance, PerformancePart, Summary
from clearway.monitor.surprise_part import SurprisePart, surprise_words
from clearway.product_monitor import Monitor

# Names shown in a sentence; all of them are in the summary.
MAX_NAMES = 5
# Labels of one class are held for a person where the scores give that less than this chance: about one false alarm in
# ten thousand years of weekly batches.
MIN_CHANCE = 1e-6


def summarise(
    *,
    product: str,
    batch_id: str,
    as_of: str,
    dataset_digest: str,
    champion_digest: str | None,
    num_rows: int,
    drift: DriftPart | None,
    performance: PerformancePart | None,
    scores: Sequence[float],
    arrived: Arrived,
    before: Carried,
    num_passed: int,
    policy: Monitor,
    surprise: SurprisePart | None = None,
    length: LengthPart | None = None,
    other_faults: tuple[str, ...] = (),
) -> Summary:
    """Put all parts together; `drift` is None when no champion serves or the batch is too small to measure.

    Args:
        performance, surprise: the one that the product's kind of model has. length: of texts.
        scores: the champion's of this batch. arrived: labels of its earlier ones.
        other_faults: lost input that no feature shows.
        before, num_passed: the state of the newest earlier summary, and how many batches ago that was.
    """
    served = performance.of(champion_digest) if performance else None
    judged = served if served is not None and served.num_rows >= policy.min_rows else None
    label_faults = _label_faults(judged) if judged is not None else ()
    faults = (*_faults(num_rows, drift, policy), *label_faults, *other_faults)
    carried = carry(
        before,
        champion=champion_digest,
        num_passed=num_passed,
        drift=drift,
        is_faulty=bool(faults),
        arrived=arrived,
        policy=policy,
    )
    checks = (
        _champion_check(champion_digest),
        *(Check(name="input", verdict=Verdict.INCONCLUSIVE, reason=text) for text in faults),
        _drift_check(drift, policy, is_decisive=not faults),
        *([_gap_check(judged, performance, policy, is_decisive=not label_faults)] if performance else []),
        *([_surprise_check(surprise, policy, is_decisive=not faults)] if surprise else []),
        *([_length_check(length, is_decisive=not faults)] if length else []),
    )
    judgement = judge(checks)
    return Summary(
        product=product,
        batch_id=batch_id,
        as_of=as_of,
        dataset_digest=dataset_digest,
        champion_digest=champion_digest,
        verdict=judgement.verdict,
        reason="; ".join(judgement.reasons) or "; ".join(c.reason for c in checks if c.reason),
        faults=faults,
        drift=drift,
        performance=performance,
        calibration_gap=judged.calibration_gap if judged else None,
        loss_excess=judged.loss_excess if judged else None,
        estimate=_estimate(carried, scores, policy) if performance else None,
        checks=checks,
        carried=carried,
        surprise=surprise,
        length=length,
    )


def _estimate(carried: Carried, scores: Sequence[float], policy: Monitor) -> Estimate:
    return carried.estimator.estimate(
        scores, min_rows=policy.min_rows, num_unlabelled=carried.num_unlabelled, patience=policy.label_patience
    )


def _faults(num_rows: int, drift: DriftPart | None, policy: Monitor) -> tuple[str, ...]:
    found = []
    if num_rows < policy.min_rows:
        found.append(f"the batch has {num_rows} rows, at least {policy.min_rows} are needed; look at ingest")
    lost = lost_features(drift) if drift else ()
    if lost:
        found.append(f"{len(lost)} features lost nearly all of their values ({_some(lost)}); look at their source")
    thinned = thinned_features(drift) if drift else ()
    if set(thinned) - set(lost):
        found.append(f"{len(thinned)} features lost many of their values at once ({_some(thinned)}); a feed is silent")
    return tuple(found)


def _label_faults(served: ModelPerformance) -> tuple[str, ...]:
    """Labels that are all the same, where the scores promise both: they rank nothing, and no model learns from them.

    Of rows with scores s, none is positive with chance prod(1 - s), at most (1 - mean s) ** num_rows.
    """
    if 0.0 < served.mean_label < 1.0:
        return ()
    promised = served.mean_score if served.mean_label == 0.0 else 1.0 - served.mean_score
    log_chance = served.num_rows * math.log(max(1.0 - promised, MIN_CHANCE))
    if log_chance >= math.log(MIN_CHANCE):
        return ()
    found, missing = f"{served.mean_label:.0f}", f"{1.0 - served.mean_label:.0f}"
    return (
        f"all {served.num_rows} labels that arrived are {found}, where the scores promise about "
        f"{promised * served.num_rows:.0f} of {missing}; look at the labels' source",
    )


def _some(names: tuple[str, ...]) -> str:
    return ", ".join(names[:MAX_NAMES]) + (", …" if len(names) > MAX_NAMES else "")


def _champion_check(digest: str | None) -> Check:
    if digest is None:
        text = "no champion serves, so there is nothing to compare with; release a model first"
        return Check(name="champion", verdict=Verdict.INCONCLUSIVE, reason=text)
    return Check(name="champion", verdict=Verdict.PASS)


def _drift_check(drift: DriftPart | None, policy: Monitor, *, is_decisive: bool) -> Check:
    if drift is None or drift.share_over is None:
        text = drift_words(drift, bound=policy.share_over_limit) if drift else "drift was not measured"
        return Check(name="drift_share", verdict=Verdict.INCONCLUSIVE, reason=text, is_decisive=is_decisive)
    words = drift_words(drift, bound=policy.share_over_limit)
    return at_most("drift_share", drift.share_over, policy.share_over_limit, reason=words, is_decisive=is_decisive)


def _gap_check(
    served: ModelPerformance | None, performance: PerformancePart, policy: Monitor, *, is_decisive: bool
) -> Check:
    """Labels come late, so their absence is no fault of this batch; but it is said, and it is never a pass."""
    if served is None:
        text = (
            f"performance is unknown: {performance.num_labels} labels arrived, {performance.num_unpredicted} of them "
            f"without a logged prediction, fewer than {policy.min_rows} for predictions of the champion"
        )
        return Check(name="calibration_gap", verdict=Verdict.INCONCLUSIVE, reason=text, is_decisive=False)
    interval = (
        f"label minus score {served.gap_lower:+.3f} to {served.gap_upper:+.3f} (95 %, {served.num_days} days resampled)"
        if served.gap_lower is not None and served.gap_upper is not None
        else "too few days for an interval"
    )
    text = f"{interval}, {served.num_rows} labels, log-loss {served.log_loss:.4f}"
    gap, bound = served.calibration_gap, policy.calibration_gap
    return at_most("calibration_gap", gap, bound, reason=text, is_decisive=is_decisive)


def _surprise_check(part: SurprisePart, policy: Monitor, *, is_decisive: bool) -> Check:
    words = surprise_words(part)
    if part.over is None:
        return Check(name="surprise", verdict=Verdict.INCONCLUSIVE, reason=words, is_decisive=False)
    return at_most("surprise", part.over, policy.surprise, reason=words, is_decisive=is_decisive)


def _length_check(part: LengthPart, *, is_decisive: bool) -> Check:
    if part.over is None:
        return Check(name="length", verdict=Verdict.INCONCLUSIVE, reason=length_words(part), is_decisive=False)
    return at_most("length", part.over, 1.0, reason=length_words(part), is_decisive=is_decisive)
