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
from clearway.product_monitor import Monitor, Override, Signal

# Decisions older than these no longer count against `max_retrains` and `max_retrains_monthly`, by the batch clock.
YEAR, MONTH = timedelta(days=365), timedelta(days=30)
# A single number of one window may be luck, so these need persistence; the other signals count up and cannot flicker.
MEASURED = (Signal.DRIFT, Signal.CALIBRATION, Signal.LOSS, Signal.SURPRISE)
# Names of features shown in a sentence; all of them are in the summary.
MAX_NAMES = 5


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
        loss_excess: log-loss on the same labels less what the scores promise if they are right, nats; or None.
        surprise: what the batch's texts cost that champion beyond held-out ones, bits per byte, as a multiple of what a
            batch like them may by chance; below 0 for cheaper ones, or None.
        faults: plain sentences about lost input (an outage, too few rows); any of them silences this window.
        sudden: features that jumped far beyond their limit, to values training never held or to another size, and have
            not come back.
        num_batches: batches from this champion's first window to this one.
        num_new_rows: labelled rows that arrived in that time.
        num_unlabelled: batches in a row, to this one, without enough labels to judge this champion.
        had_labels: whether this champion was ever judged on labels.
    """

    batch_id: str
    model_digest: str | None = None
    drift_share: float | None = None
    calibration_gap: float | None = None
    loss_excess: float | None = None
    surprise: float | None = None
    faults: tuple[str, ...] = ()
    sudden: tuple[str, ...] = ()
    num_batches: int = 0
    num_new_rows: int = 0
    num_unlabelled: int = 0
    had_labels: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class PastDecision:
    """A retraining decided earlier; `as_of`: end of its newest window, ISO 8601 UTC. Whether its model was promoted
    does not matter here."""

    evidence_digest: str
    batch_id: str
    as_of: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ManualRequest:
    """A retraining that a person or another system asks for.

    Args:
        digest: of its content; the same request is decided once.
        as_of: moment whose knowledge counts; "" for all that has landed.
        override: what it asks to set aside. The policy says what it may.
    """

    digest: str
    as_of: str = ""
    reason: str = ""
    override: tuple[Override, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """The answer for the newest window, or for a request in the light of it.

    Args:
        signals: those of the product's triggers that hold over enough windows, whatever the answer.
        evidence_digest: SHA-256 over model, windows and signals; the same evidence always has the same digest. Of a
            request, its own.
        reasons: sentences for people, the deciding one first.
        overridden: what stood against a request and was set aside.
    """

    answer: Answer
    signals: tuple[Signal, ...]
    evidence_digest: str
    reasons: tuple[str, ...]
    overridden: tuple[Override, ...] = ()


def decide(
    windows: Sequence[Window],
    past: Sequence[PastDecision],
    policy: Monitor,
    *,
    product: str,
    as_of: str,
    request: ManualRequest | None = None,
) -> Decision:
    """Judge the newest window in the light of those before it, or a request in the light of all of them.

    Args:
        windows: one per batch interval, oldest first, without gaps (an empty Window where none was measured).
        past: every retraining decided before the newest window, any order; later ones are left out here. For a request
            those of the newest window count too.
        as_of: end of the newest window's interval, ISO 8601 UTC.
        request: what is asked for by hand; without one no group of triggers with `manual` is complete.
    Raises: ValueError for no windows at all.
    """
    if not windows:
        raise ValueError("decide needs at least the newest window; got none, measure the batch first")
    if request is not None:
        return _decide_request(request, windows, past, policy, as_of=as_of)
    newest = windows[-1]
    earlier = [p for p in past if p.batch_id < newest.batch_id]
    wanted = {signal for group in policy.triggers for signal in group}
    signals = tuple(s for s in Signal if s in wanted and _holds(s, windows, policy))
    digest = _evidence_digest(windows, signals, policy, product=product)
    answer, reasons = _answer(windows, signals, earlier, policy, as_of=as_of)
    return Decision(answer=answer, signals=signals, evidence_digest=digest, reasons=reasons)


def look_back(policy: Monitor) -> int:
    """How many windows, the newest included, the rule reads."""
    return max(policy.persistence[1], policy.cooldown_batches, 1)


def speaks(window: Window, signal: Signal, policy: Monitor, *, is_on: bool = False) -> bool:
    """Whether one window carries a signal. None, NaN and a window with faults never do; MANUAL is none of a window.

    Args: is_on: the window before carried it, so that it takes less (`clear_at`) to go on.
    """
    if window.faults or signal is Signal.MANUAL:
        return False
    if signal is Signal.TIME:
        return window.num_batches >= policy.every_batches
    if signal is Signal.VOLUME:
        return window.num_new_rows >= policy.new_rows
    value, bound = _value(window, signal), _bound(signal, policy) * (policy.clear_at if is_on else 1.0)
    return value is not None and math.isfinite(value) and value > bound


def _answer(
    windows: Sequence[Window],
    signals: tuple[Signal, ...],
    earlier: Sequence[PastDecision],
    policy: Monitor,
    *,
    as_of: str,
) -> tuple[Answer, tuple[str, ...]]:
    newest = windows[-1]
    silenced = _why_silenced(newest)
    if silenced:
        return silenced
    if not any(set(group) <= set(signals) for group in policy.triggers):
        return _quiet(windows, signals, policy)
    evidence = tuple(_why(signal, windows, policy) for signal in signals)
    blocked = _cooling(windows, earlier, policy)
    if blocked:
        return Answer.HOLD, (blocked, *evidence)
    spent = _spent(earlier, policy, as_of=as_of)
    if spent:
        return Answer.ALERT, (spent, *evidence)
    return Answer.RETRAIN, evidence


def _decide_request(
    request: ManualRequest,
    windows: Sequence[Window],
    past: Sequence[PastDecision],
    policy: Monitor,
    *,
    as_of: str,
) -> Decision:
    """A person needs no evidence where the product says so, but meets the same bounds, or sets them aside by name."""
    earlier = [p for p in past if p.batch_id <= windows[-1].batch_id and p.evidence_digest != request.digest]
    groups = [group for group in policy.triggers if Signal.MANUAL in group]
    wanted = {signal for group in groups for signal in group}
    signals = tuple(s for s in Signal if s in wanted and (s is Signal.MANUAL or _holds(s, windows, policy)))
    against = _against(windows, earlier, policy, as_of=as_of)
    lifted = {*request.override} & {*policy.may_override}
    left = [(what, text) for what, text in against if what not in lifted]
    reasons: tuple[str, ...]
    if not any(set(group) <= set(signals) for group in groups):
        answer, reasons = Answer.HOLD, (_why_not_by_hand(signals, groups),)
    elif left:
        answer = Answer.HOLD if left[0][0] is Override.COOLDOWN else Answer.ALERT
        reasons = tuple(f"{text}; {_how_to_override(what, policy)}" for what, text in left)
    else:
        answer = Answer.RETRAIN
        evidence = tuple(_why(s, windows, policy) for s in signals if s is not Signal.MANUAL)
        overrides = tuple(f"overridden by the request ({what.value}): {text}" for what, text in against)
        reasons = (f"asked for by hand: {request.reason or 'no reason given'}", *evidence, *overrides)
    return Decision(
        answer=answer,
        signals=signals,
        evidence_digest=request.digest,
        reasons=reasons,
        overridden=tuple(what for what, _ in against) if answer is Answer.RETRAIN else (),
    )


def _against(
    windows: Sequence[Window], earlier: Sequence[PastDecision], policy: Monitor, *, as_of: str
) -> list[tuple[Override, str]]:
    """What stands against a request; that nothing was measured does not."""
    found = []
    if windows[-1].faults or windows[-1].sudden:
        _, reasons = _why_silenced(windows[-1]) or (None, ())
        found.append((Override.INPUT, "; ".join(reasons)))
    if blocked := _cooling(windows, earlier, policy):
        found.append((Override.COOLDOWN, blocked))
    if spent := _spent(earlier, policy, as_of=as_of):
        found.append((Override.BUDGET, spent))
    return found


def _why_not_by_hand(signals: tuple[Signal, ...], groups: Sequence[tuple[Signal, ...]]) -> str:
    if not groups:
        return "monitor.triggers of this product holds no group with manual; add [manual], or start its release DAG"
    needed = " or ".join("+".join(s.value for s in group) for group in groups)
    return f"asked for by hand; a retraining needs {needed}, and there is {'+'.join(s.value for s in signals)}"


def _how_to_override(what: Override, policy: Monitor) -> str:
    if what in policy.may_override:
        return f'ask again with "override": "{what.value}" to set that aside'
    return f"monitor.may_override of this product lets no request set aside {what.value}"


def _why_silenced(newest: Window) -> tuple[Answer, tuple[str, ...]] | None:
    """What comes before every signal: broken input, no evidence at all, a jump that a person has to look at."""
    if newest.faults:
        return Answer.ALERT, (
            *newest.faults,
            "input is missing, not drifting: repair it; no retraining on such a batch",
        )
    known = (newest.drift_share, newest.calibration_gap, newest.surprise)
    if newest.model_digest is None or all(value is None for value in known):
        return Answer.UNKNOWN, (f"batch {newest.batch_id} has neither a drift share nor labels; nothing can be said",)
    if newest.sudden:
        names = ", ".join(newest.sudden[:MAX_NAMES]) + (", …" if len(newest.sudden) > MAX_NAMES else "")
        text = (
            f"held for a person: {len(newest.sudden)} features jumped, far beyond their limit, to values that training "
            f"never held or to another size ({names}), as a changed unit, a changed code or poisoned data would; "
            "repair them, or start a release by hand"
        )
        return Answer.ALERT, (text,)
    return None


def _quiet(windows: Sequence[Window], signals: tuple[Signal, ...], policy: Monitor) -> tuple[Answer, tuple[str, ...]]:
    """No trigger is complete. Without labels that is not "fine": what the inputs mean may have changed."""
    newest = windows[-1]
    if newest.num_unlabelled >= policy.label_patience:
        seen = (
            f"{_why_quiet(windows, signals, policy)}; {newest.num_unlabelled} batches without labels for this champion"
        )
        if newest.had_labels:
            return Answer.ALERT, (f"{seen}, and there were some before: look at the source of the labels",)
        return Answer.UNKNOWN, (f"{seen}: whether its scores are right cannot be said",)
    return Answer.HOLD, (_why_quiet(windows, signals, policy),)


def _holds(signal: Signal, windows: Sequence[Window], policy: Monitor) -> bool:
    """Over enough windows: of a measured signal at least k of the last n of this model, and the newest among them."""
    if signal not in MEASURED:
        return speaks(windows[-1], signal, policy)
    loud = _loud(signal, windows, policy)
    return windows[-1] in loud and len(loud) >= policy.persistence[0]


def _loud(signal: Signal, windows: Sequence[Window], policy: Monitor) -> list[Window]:
    """Those of the last n windows of this model that carry a signal, with hysteresis from one to the next."""
    found: list[Window] = []
    is_on = False
    for window in _of_this_model(windows, policy):
        if _value(window, signal) is None or window.faults:
            continue  # says nothing: neither on nor off
        is_on = speaks(window, signal, policy, is_on=is_on)
        if is_on:
            found.append(window)
    return found


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
    if windows[-1].model_digest is not None and num_served < wait:
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


def _spent(earlier: Sequence[PastDecision], policy: Monitor, *, as_of: str) -> str:
    """Which budget is spent, or ""."""
    now = datetime.fromisoformat(as_of)
    for period, allowed in ((YEAR, policy.max_retrains), (MONTH, policy.max_retrains_monthly)):
        count = sum(datetime.fromisoformat(p.as_of) > now - period for p in earlier)
        if count >= allowed:
            return f"{count} retrainings within {period.days} days, at most {allowed} allowed; a person should look"
    return ""


def _evidence_digest(windows: Sequence[Window], signals: tuple[Signal, ...], policy: Monitor, *, product: str) -> str:
    kept = _of_this_model(windows, policy) or list(windows[-1:])
    loud = {signal: _loud(signal, windows, policy) for signal in MEASURED}
    evidence = {
        "product": product,
        "model_digest": windows[-1].model_digest,
        "windows": [[w.batch_id, [s.value for s in MEASURED if w in loud[s]]] for w in kept],
        "signals": [s.value for s in signals],
    }
    return sha256_of(canonical_json(evidence))


def _value(window: Window, signal: Signal) -> float | None:
    values = {
        Signal.DRIFT: window.drift_share,
        Signal.CALIBRATION: window.calibration_gap,
        Signal.SURPRISE: window.surprise,
    }
    return values.get(signal, window.loss_excess)


def _bound(signal: Signal, policy: Monitor) -> float:
    bounds = {
        Signal.DRIFT: policy.share_over_limit,
        Signal.CALIBRATION: policy.calibration_gap,
        Signal.SURPRISE: policy.surprise,
    }
    return bounds.get(signal, policy.loss_excess)


_WORDS = {
    Signal.DRIFT: "share of features beyond what training weeks reached",
    Signal.CALIBRATION: "gap between mean label and mean score",
    Signal.LOSS: "log-loss beyond what the scores promise",
    Signal.SURPRISE: "what texts cost beyond held-out ones, as a multiple of what is usual,",
}


def _why(signal: Signal, windows: Sequence[Window], policy: Monitor) -> str:
    newest = windows[-1]
    if signal is Signal.TIME:
        return f"this champion has been watched for {newest.num_batches} batches; {policy.every_batches} are asked for"
    if signal is Signal.VOLUME:
        return f"{newest.num_new_rows} labelled rows arrived since this champion came; {policy.new_rows} are asked for"
    kept, loud = _of_this_model(windows, policy), _loud(signal, windows, policy)
    values = ", ".join(f"{w.batch_id}: {_value(w, signal):.3f}" for w in loud)
    return (
        f"{_WORDS[signal]} exceeds {_bound(signal, policy):g} in {len(loud)} of the last {len(kept)} windows "
        f"({values}); {_k_of_n(policy)} are asked for"
    )


def _k_of_n(policy: Monitor) -> str:
    return f"{policy.persistence[0]} of {policy.persistence[1]}"


def _why_quiet(windows: Sequence[Window], signals: tuple[Signal, ...], policy: Monitor) -> str:
    newest = windows[-1]
    if signals:
        groups = " or ".join("+".join(s.value for s in group) for group in policy.triggers)
        shown = "+".join(s.value for s in signals)
        return f"batch {newest.batch_id} shows {shown}; a retraining needs {groups or 'a person'}"
    loud = [s for s in MEASURED if newest in _loud(s, windows, policy)]
    if loud:
        names = " and ".join(s.value for s in loud)
        return f"signal in batch {newest.batch_id} ({names}), but not yet in {_k_of_n(policy)} windows"
    return f"batch {newest.batch_id} is within its limits"
