"""Whether to retrain: a pure function of measured windows, earlier decisions and the product's policy.

Nothing here reads a clock, a store or a random number, so a decision can be replayed years later from the summaries it
names. A window without a number never counts as a signal: missing evidence can delay a retraining, never cause one.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from clearway.contracts.manifest import canonical_json, sha256_of
from clearway.product import Monitor

# Decisions older than this no longer count against `max_retrains`: the budget is per year of the batch clock.
BUDGET_PERIOD = timedelta(days=365)


class Signal(StrEnum):
    """What can speak for a retraining, each on its own."""

    DRIFT = "drift"
    CALIBRATION = "calibration"


class Answer(StrEnum):
    """RETRAIN acts; HOLD: nothing to do, or not yet; ALERT: a person should look; UNKNOWN: no evidence either way."""

    RETRAIN = "retrain"
    HOLD = "hold"
    ALERT = "alert"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """What one batch showed; all None for a batch that was never measured.

    Args:
        model_digest: champion it was measured against.
        drift_share: share of features over their own limit, 0 to 1; None when it cannot be measured.
        calibration_gap: |mean label - mean score| of that champion on labels that came with the batch, or None.
        faults: plain sentences about lost input (an outage, too few rows); any of them silences this window.
    """

    batch_id: str
    model_digest: str | None = None
    drift_share: float | None = None
    calibration_gap: float | None = None
    faults: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PastDecision:
    """A retraining decided earlier; `as_of` ISO 8601 UTC. Whether its model was promoted does not matter here."""

    evidence_digest: str
    batch_id: str
    as_of: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """The answer for the newest window.

    Args:
        signals: those that hold over enough windows, whatever the answer.
        evidence_digest: SHA-256 over model, windows and signals; the same evidence always has the same digest.
        reasons: sentences for people, the deciding one first.
    """

    answer: Answer
    signals: tuple[Signal, ...]
    evidence_digest: str
    reasons: tuple[str, ...]


def decide(
    windows: Sequence[Window], past: Sequence[PastDecision], policy: Monitor, *, product: str, as_of: str
) -> Decision:
    """Judge the newest window in the light of those before it.

    Args:
        windows: one per batch interval, oldest first, without gaps (an empty Window where none was measured).
        past: every retraining decided before the newest window, any order; later ones are left out here.
        as_of: end of the newest window's interval, ISO 8601 UTC.
    Raises: ValueError for no windows at all.
    """
    if not windows:
        raise ValueError("decide needs at least the newest window; got none, measure the batch first")
    newest = windows[-1]
    earlier = [p for p in past if p.batch_id < newest.batch_id]
    signals = tuple(s for s in Signal if _persists(s, windows, policy))
    digest = _evidence_digest(windows, signals, policy, product=product)
    answer, reasons = _answer(windows, signals, earlier, policy, as_of=as_of)
    return Decision(answer=answer, signals=signals, evidence_digest=digest, reasons=reasons)


def speaks(window: Window, signal: Signal, policy: Monitor) -> bool:
    """Whether one window carries a signal. None, NaN and a window with faults never do."""
    value, bound = _value(window, signal), _bound(signal, policy)
    return value is not None and math.isfinite(value) and value > bound and not window.faults


def _answer(
    windows: Sequence[Window],
    signals: tuple[Signal, ...],
    earlier: Sequence[PastDecision],
    policy: Monitor,
    *,
    as_of: str,
) -> tuple[Answer, tuple[str, ...]]:
    newest = windows[-1]
    if newest.faults:
        return Answer.ALERT, (
            *newest.faults,
            "input is missing, not drifting: repair it; no retraining on such a batch",
        )
    if newest.model_digest is None or (newest.drift_share is None and newest.calibration_gap is None):
        return Answer.UNKNOWN, (f"batch {newest.batch_id} has neither a drift share nor labels; nothing can be said",)
    if not signals:
        return Answer.HOLD, (_why_quiet(windows, policy),)
    evidence = tuple(_why(signal, windows, policy) for signal in signals)
    blocked = _cooling(windows, earlier, policy)
    if blocked:
        return Answer.HOLD, (blocked, *evidence)
    spent = _num_recent(earlier, as_of=as_of)
    if spent >= policy.max_retrains:
        text = f"{spent} retrainings within a year, at most {policy.max_retrains} allowed; a person should look"
        return Answer.ALERT, (text, *evidence)
    return Answer.RETRAIN, evidence


def _persists(signal: Signal, windows: Sequence[Window], policy: Monitor) -> bool:
    """At least k of the last n windows of this model, and the newest among them."""
    least, _ = policy.persistence
    kept = _of_this_model(windows, policy)
    return speaks(windows[-1], signal, policy) and sum(speaks(w, signal, policy) for w in kept) >= least


def _of_this_model(windows: Sequence[Window], policy: Monitor) -> list[Window]:
    """Those of the last n windows that were measured against the newest window's champion."""
    _, num_windows = policy.persistence
    digest = windows[-1].model_digest
    return [w for w in windows[-num_windows:] if digest is not None and w.model_digest == digest]


def _cooling(windows: Sequence[Window], earlier: Sequence[PastDecision], policy: Monitor) -> str:
    """Why it is too soon, or "". Counts from decisions, so that a rejected retraining does not start over at once, and
    from the champion's first window, so that a model promoted by hand gets its time too."""
    wait = policy.cooldown_batches
    if wait <= 1:
        return ""
    recent = [w.batch_id for w in windows[-wait:]]
    decided = sorted(p.batch_id for p in earlier if p.batch_id in recent)
    if decided:
        return f"retraining was decided with batch {decided[-1]}; at least {wait} batches lie between two decisions"
    num_served = _num_served(windows)
    if num_served < wait:
        return f"this champion has been watched for {num_served} batches; at least {wait} before it is replaced"
    return ""


def _num_served(windows: Sequence[Window]) -> int:
    """Batches from the champion's first window to the newest; unmeasured ones in between count."""
    digest, num_served = windows[-1].model_digest, 0
    for age, window in enumerate(reversed(windows), start=1):
        if window.model_digest == digest:
            num_served = age
        elif window.model_digest is not None:
            break
    return num_served


def _num_recent(earlier: Sequence[PastDecision], *, as_of: str) -> int:
    now = datetime.fromisoformat(as_of)
    return sum(datetime.fromisoformat(p.as_of) > now - BUDGET_PERIOD for p in earlier)


def _evidence_digest(windows: Sequence[Window], signals: tuple[Signal, ...], policy: Monitor, *, product: str) -> str:
    kept = _of_this_model(windows, policy) or list(windows[-1:])
    evidence = {
        "product": product,
        "model_digest": windows[-1].model_digest,
        "windows": [[w.batch_id, [s.value for s in Signal if speaks(w, s, policy)]] for w in kept],
        "signals": [s.value for s in signals],
    }
    return sha256_of(canonical_json(evidence))


def _value(window: Window, signal: Signal) -> float | None:
    return window.drift_share if signal is Signal.DRIFT else window.calibration_gap


def _bound(signal: Signal, policy: Monitor) -> float:
    return policy.share_over_limit if signal is Signal.DRIFT else policy.calibration_gap


_WORDS = {
    Signal.DRIFT: "share of features beyond what training weeks reached",
    Signal.CALIBRATION: "gap between mean label and mean score",
}


def _why(signal: Signal, windows: Sequence[Window], policy: Monitor) -> str:
    kept = _of_this_model(windows, policy)
    loud = [w for w in kept if speaks(w, signal, policy)]
    values = ", ".join(f"{w.batch_id}: {_value(w, signal):.3f}" for w in loud)
    return (
        f"{_WORDS[signal]} exceeds {_bound(signal, policy):g} in {len(loud)} of the last {len(kept)} windows "
        f"({values}); {_k_of_n(policy)} are asked for"
    )


def _k_of_n(policy: Monitor) -> str:
    return f"{policy.persistence[0]} of {policy.persistence[1]}"


def _why_quiet(windows: Sequence[Window], policy: Monitor) -> str:
    newest = windows[-1]
    loud = [s for s in Signal if speaks(newest, s, policy)]
    if loud:
        names = " and ".join(s.value for s in loud)
        return f"signal in batch {newest.batch_id} ({names}), but not yet in {_k_of_n(policy)} windows"
    return f"batch {newest.batch_id} is within its limits"
