"""The one document per product that says what should serve, who may change it, and why.

Changed by compare-and-swap only. Taking the lease raises the fencing epoch in the same write; every later write names
its epoch, and a writer with an older epoch is refused. All functions here are pure: (document, intent, now) → document.

    IDLE ──begin_deploy──▶ DEPLOYING ──promote──▶ IDLE (promoted)
                               └──begin_abort──▶ ABORTING ──finish_abort──▶ IDLE (aborted or superseded)
    IDLE ──begin_rollback──▶ ROLLING_BACK ──finish_rollback──▶ IDLE (rolled back)
"""

import dataclasses
from dataclasses import dataclass
from enum import StrEnum

from clearway.contracts import rollout as rollouts
from clearway.contracts.errors import LeaseHeld, StaleWriter
from clearway.contracts.rollout import ALL_AT_ONCE, ALL_TRAFFIC_PCT, Order, Rollout


class Phase(StrEnum):
    """Where a release stands. IDLE is the only phase without an intent; the others say what a resumer must finish."""

    IDLE = "idle"
    DEPLOYING = "deploying"
    ABORTING = "aborting"
    ROLLING_BACK = "rolling_back"


class Outcome(StrEnum):
    """How a release ended."""

    PROMOTED = "promoted"
    ROLLED_BACK = "rolled_back"
    SUPERSEDED = "superseded"
    ABORTED = "aborted"


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """One deployable model: package address, package digest, the release that made it."""

    uri: str
    digest: str
    release_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """Who may write now, and until when (Unix seconds, UTC)."""

    holder: str
    expires_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryEntry:
    """One finished release or rollback: its outcome, champion before and after, the digest it was about, when and why.

    Args:
        release_id: the release, or the rollback order, that ended.
        before, after: champion digests around it; None when nothing served.
        at_s: Unix seconds, UTC.
        candidate: digest it tried to bring into service; None only in entries that never named one.
    """

    release_id: str
    outcome: Outcome
    before: str | None
    after: str | None
    at_s: float
    reason: str
    candidate: str | None = None


# History kept in the document itself; all of it lies in storage (clearway.deploy.history).
MAX_HISTORY = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseDocument:
    """State of one product's releases.

    Args:
        champion: the version that should take all traffic outside a rollout; None before the first release.
        previous: the version a rollback returns to.
        candidate: the version being brought into service (in a rollback: the one being returned to), or None.
        weight_pct: share of traffic the candidate should take, 0 to 100.
        phase: where the current release stands.
        release_id: the release or rollback order behind the phase; None when idle.
        reason: why it is rolling back or aborting; empty otherwise.
        ending: how an abort will be recorded; None outside ABORTING.
        rollout: the plan the candidate follows and where it stands, or ended while ABORTING; None otherwise.
        order_id: the rollback order that caused or joined the phase and is recorded beside it; None otherwise.
        epoch: fencing epoch; rises with every lease taken.
        lease: the current holder, or None.
        history: newest last, at most MAX_HISTORY.
    """

    product: str
    champion: Version | None = None
    previous: Version | None = None
    candidate: Version | None = None
    weight_pct: float = 0.0
    phase: Phase = Phase.IDLE
    rollout: Rollout | None = None
    release_id: str | None = None
    reason: str = ""
    ending: Outcome | None = None
    order_id: str | None = None
    epoch: int = 0
    lease: Lease | None = None
    history: tuple[HistoryEntry, ...] = ()


def take_lease(
    document: ReleaseDocument, *, holder: str, now_s: float, ttl_s: float, is_seized: bool = False
) -> ReleaseDocument:
    """Own the document until `now_s + ttl_s`; the epoch rises in the same write.

    Args:
        is_seized: take it from a living holder too (a rollback may not wait); that holder's epoch is stale from now on.
    Raises: LeaseHeld if another holder's lease has not expired. The same holder may take it again (a resumed task).
    """
    lease = document.lease
    if lease is not None and lease.holder != holder and lease.expires_s > now_s and not is_seized:
        wait_s = lease.expires_s - now_s
        raise LeaseHeld(
            f"release lease of {document.product!r} is held by {lease.holder!r} for another {wait_s:.0f} s; "
            "wait, or abort that release"
        )
    return dataclasses.replace(document, epoch=document.epoch + 1, lease=Lease(holder=holder, expires_s=now_s + ttl_s))


def renew_lease(document: ReleaseDocument, *, epoch: int, now_s: float, ttl_s: float) -> ReleaseDocument:
    """The holder works on: same epoch, later expiry. Raises: StaleWriter."""
    check_epoch(document, epoch)
    if document.lease is None:
        raise StaleWriter(f"lease of {document.product!r} at epoch {epoch} has ended; take it again before writing")
    return dataclasses.replace(document, lease=dataclasses.replace(document.lease, expires_s=now_s + ttl_s))


def drop_lease(document: ReleaseDocument, *, epoch: int) -> ReleaseDocument:
    """End the lease, whatever the phase; the stored intent stays for whoever resumes. Raises: StaleWriter."""
    check_epoch(document, epoch)
    return dataclasses.replace(document, lease=None)


def check_epoch(document: ReleaseDocument, epoch: int) -> None:
    """Raises: StaleWriter unless `epoch` is the document's."""
    if epoch != document.epoch:
        raise StaleWriter(
            f"epoch {epoch} of {document.product!r} is stale, the document is at {document.epoch}; "
            "another release took over, stop here"
        )


def begin_deploy(
    document: ReleaseDocument, candidate: Version, *, epoch: int, rollout: Rollout = ALL_AT_ONCE
) -> ReleaseDocument:
    """Store the intent to deploy before anything moves, so that whoever resumes knows what to finish.

    A product's first version has no control to be compared with, and neither has the champion itself deployed again:
    both take all traffic at once.
    Raises: StaleWriter if another operation is unfinished; ConfigError for a plan that does not end with all traffic.
    """
    check_epoch(document, epoch)
    _require(document, Phase.IDLE, "begin a deploy")
    rollouts.check_plan(rollout.plan)
    has_control = document.champion is not None and document.champion.digest != candidate.digest
    return dataclasses.replace(
        document,
        candidate=candidate,
        weight_pct=0.0,
        phase=Phase.DEPLOYING,
        rollout=rollout if has_control else ALL_AT_ONCE,
        release_id=candidate.release_id,
    )


def set_rollout(document: ReleaseDocument, rollout: Rollout, *, epoch: int) -> ReleaseDocument:
    """Store progress of the rollout under way. Raises: StaleWriter."""
    check_epoch(document, epoch)
    _require(document, Phase.DEPLOYING, "go on with a rollout")
    return dataclasses.replace(document, rollout=rollout)


def is_gathering(document: ReleaseDocument) -> bool:
    """Whether a rollout is under way that lives on evidence or waits for a person, so that it needs a driver that
    stays."""
    rollout = document.rollout
    is_held = rollout is not None and (rollout.step.asks_evidence or rollout.is_paused)
    return document.phase is Phase.DEPLOYING and is_held


def give_order(document: ReleaseDocument, order: Order, *, release_id: str | None = None) -> ReleaseDocument:
    """A person's order to the rollout under way; needs no lease, since only the driver follows it.

    Args:
        release_id: the rollout the person saw; an order never reaches another one.
    Raises: StaleWriter if no rollout is under way, or another one than the person saw.
    """
    if document.phase is Phase.IDLE:
        raise StaleWriter(f"no rollout of {document.product!r} is under way, so there is nothing to {order.kind.value}")
    _require(document, Phase.DEPLOYING, f"order {order.kind.value!r}")
    if release_id not in {None, document.release_id}:
        raise StaleWriter(f"rollout of {release_id!r} is over, {document.release_id!r} is under way; look again")
    return dataclasses.replace(document, rollout=rollouts.give(document.rollout or ALL_AT_ONCE, order))


def set_candidate_weight(document: ReleaseDocument, *, epoch: int, weight_pct: float) -> ReleaseDocument:
    """Store the share the candidate is about to take, 0 to 100, before the endpoint is told. Raises: StaleWriter."""
    check_epoch(document, epoch)
    if not 0.0 <= weight_pct <= ALL_TRAFFIC_PCT:  # also refuses NaN
        raise ValueError(f"candidate weight {weight_pct} is no share; allowed: 0 to 100 percent")
    return dataclasses.replace(document, weight_pct=weight_pct)


def promote(document: ReleaseDocument, *, epoch: int, now_s: float, reason: str) -> ReleaseDocument:
    """The candidate becomes champion, the champion becomes the way back, the lease ends."""
    check_epoch(document, epoch)
    _require(document, Phase.DEPLOYING, "promote")
    before, candidate = document.champion, _candidate(document)
    is_same = before is not None and before.digest == candidate.digest
    promoted = dataclasses.replace(document, champion=candidate, previous=document.previous if is_same else before)
    return _finish(promoted, outcome=Outcome.PROMOTED, before=before, now_s=now_s, reason=reason)


def begin_abort(
    document: ReleaseDocument, *, epoch: int, reason: str, ending: Outcome = Outcome.ABORTED
) -> ReleaseDocument:
    """Store the intent to give the traffic back to the champion. `ending`: ABORTED or SUPERSEDED."""
    check_epoch(document, epoch)
    _require(document, Phase.DEPLOYING, "begin an abort")
    return dataclasses.replace(document, weight_pct=0.0, phase=Phase.ABORTING, reason=reason, ending=ending)


def join_order(document: ReleaseDocument, *, epoch: int, order_id: str) -> ReleaseDocument:
    """A rollback order meets traffic already on its way back: it ends, recorded as rolled back, in the same write."""
    check_epoch(document, epoch)
    if document.phase not in {Phase.ABORTING, Phase.ROLLING_BACK}:
        raise StaleWriter(
            f"order {order_id!r} has nothing to join: phase is {document.phase.value!r}; begin a rollback"
        )
    return dataclasses.replace(document, order_id=order_id)


def finish_abort(document: ReleaseDocument, *, epoch: int, now_s: float, keeps_lease: bool = False) -> ReleaseDocument:
    """Drop the candidate; the champion has the traffic. `keeps_lease`: the holder goes on with its own release."""
    check_epoch(document, epoch)
    _require(document, Phase.ABORTING, "finish an abort")
    done = _finish(
        document,
        outcome=document.ending or Outcome.ABORTED,
        before=document.champion,
        now_s=now_s,
        reason=document.reason,
    )
    return dataclasses.replace(done, lease=document.lease) if keeps_lease else done


def begin_rollback(document: ReleaseDocument, *, epoch: int, release_id: str, reason: str) -> ReleaseDocument:
    """Store the order `release_id` to return to the previous version. Raises: StaleWriter if there is none."""
    check_epoch(document, epoch)
    _require(document, Phase.IDLE, "begin a rollback")
    if document.previous is None:
        raise StaleWriter(f"no previous version of {document.product!r} to roll back to; release a model twice first")
    return dataclasses.replace(
        document,
        candidate=document.previous,
        weight_pct=0.0,
        phase=Phase.ROLLING_BACK,
        release_id=release_id,
        reason=reason,
    )


def finish_rollback(
    document: ReleaseDocument, *, epoch: int, now_s: float, keeps_lease: bool = False
) -> ReleaseDocument:
    """The previous version is champion again; a rollback has no way back of its own (no ping-pong)."""
    check_epoch(document, epoch)
    _require(document, Phase.ROLLING_BACK, "finish a rollback")
    before, target = document.champion, _candidate(document)
    done = _finish(
        dataclasses.replace(document, champion=target, previous=None),
        outcome=Outcome.ROLLED_BACK,
        before=before,
        now_s=now_s,
        reason=document.reason,
    )
    return dataclasses.replace(done, lease=document.lease) if keeps_lease else done


def outcome_of(document: ReleaseDocument, release_id: str) -> HistoryEntry | None:
    """The newest finished entry of a release or rollback order, or None while it has none."""
    return next((entry for entry in reversed(document.history) if entry.release_id == release_id), None)


def _require(document: ReleaseDocument, phase: Phase, wish: str) -> None:
    if document.phase is not phase:
        raise StaleWriter(
            f"cannot {wish} for {document.product!r}: phase is {document.phase.value!r} of {document.release_id!r}, "
            f"needed {phase.value!r}; finish or abort what is under way first"
        )


def _candidate(document: ReleaseDocument) -> Version:
    if document.candidate is None:
        raise StaleWriter(f"{document.product!r} is {document.phase.value!r} without a candidate; start again")
    return document.candidate


def _finish(
    document: ReleaseDocument, *, outcome: Outcome, before: Version | None, now_s: float, reason: str
) -> ReleaseDocument:
    after, candidate = document.champion, document.candidate
    entry = HistoryEntry(
        release_id=document.release_id or "none",
        outcome=outcome,
        before=before.digest if before else None,
        after=after.digest if after else None,
        at_s=now_s,
        reason=reason,
        candidate=candidate.digest if candidate else None,
    )
    entries = [entry]
    if document.order_id not in {None, document.release_id}:
        joined = dataclasses.replace(entry, release_id=str(document.order_id), outcome=Outcome.ROLLED_BACK)
        entries.append(joined)
    return dataclasses.replace(
        document,
        candidate=None,
        weight_pct=0.0,
        phase=Phase.IDLE,
        rollout=None,
        release_id=None,
        reason="",
        ending=None,
        order_id=None,
        lease=None,
        history=(*document.history, *entries)[-MAX_HISTORY:],
    )
