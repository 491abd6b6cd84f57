"""The one document per product that says what should serve, who may change it, and why.

Changed by compare-and-swap only. Taking the lease raises the fencing epoch in the same write; every later write names
its epoch, and a writer with an older epoch is refused. All functions here are pure: (document, intent, now) → document.
"""

import dataclasses
from dataclasses import dataclass
from enum import StrEnum

from clearway.contracts.errors import LeaseHeld, StaleWriter


class Phase(StrEnum):
    """Where a release stands. IDLE is the only phase without an intent."""

    IDLE = "idle"
    DEPLOYING = "deploying"
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
    """One finished release: its outcome, the versions before and after, when (Unix seconds) and why."""

    release_id: str
    outcome: Outcome
    before: str | None
    after: str | None
    at_s: float
    reason: str


# History kept in the document itself; older entries live in the audit trail.
MAX_HISTORY = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseDocument:
    """State of one product's releases.

    Args:
        champion: the version that should take all traffic outside a rollout; None before the first release.
        previous: the version a rollback returns to.
        candidate: the version being rolled out, or None.
        weight_pct: share of traffic the candidate should take, 0 to 100.
        phase: where the current release stands.
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
    epoch: int = 0
    lease: Lease | None = None
    history: tuple[HistoryEntry, ...] = ()


def take_lease(document: ReleaseDocument, *, holder: str, now_s: float, ttl_s: float) -> ReleaseDocument:
    """Own the document until `now_s + ttl_s`; the epoch rises in the same write.

    Raises: LeaseHeld if another holder's lease has not expired. The same holder may take it again (a resumed task).
    """
    lease = document.lease
    if lease is not None and lease.holder != holder and lease.expires_s > now_s:
        wait_s = lease.expires_s - now_s
        raise LeaseHeld(
            f"release lease of {document.product!r} is held by {lease.holder!r} for another {wait_s:.0f} s; wait, or abort that release"
        )
    return dataclasses.replace(document, epoch=document.epoch + 1, lease=Lease(holder=holder, expires_s=now_s + ttl_s))


def check_epoch(document: ReleaseDocument, epoch: int) -> None:
    """Raises: StaleWriter unless `epoch` is the document's."""
    if epoch != document.epoch:
        raise StaleWriter(
            f"epoch {epoch} of {document.product!r} is stale, the document is at {document.epoch}; another release took over, stop here"
        )


def begin_deploy(document: ReleaseDocument, candidate: Version, *, epoch: int) -> ReleaseDocument:
    """Store the intent to deploy before anything moves, so that whoever resumes knows what to finish."""
    check_epoch(document, epoch)
    return dataclasses.replace(document, candidate=candidate, weight_pct=0.0, phase=Phase.DEPLOYING)


def promote(document: ReleaseDocument, *, epoch: int, now_s: float, reason: str) -> ReleaseDocument:
    """The candidate becomes champion, the champion becomes the way back, the lease ends."""
    check_epoch(document, epoch)
    candidate = document.candidate
    if candidate is None:
        raise StaleWriter(
            f"nothing to promote for {document.product!r}: the document has no candidate; start the deploy again"
        )
    before = document.champion
    is_same = before is not None and before.digest == candidate.digest
    return _finish(
        dataclasses.replace(document, champion=candidate, previous=document.previous if is_same else before),
        release_id=candidate.release_id,
        outcome=Outcome.PROMOTED,
        before=before,
        now_s=now_s,
        reason=reason,
    )


def abort(document: ReleaseDocument, *, epoch: int, now_s: float, reason: str) -> ReleaseDocument:
    """Drop the candidate; the champion keeps the traffic."""
    check_epoch(document, epoch)
    release_id = document.candidate.release_id if document.candidate else "none"
    return _finish(
        document, release_id=release_id, outcome=Outcome.ABORTED, before=document.champion, now_s=now_s, reason=reason
    )


def begin_rollback(document: ReleaseDocument, *, epoch: int) -> ReleaseDocument:
    """Store the intent to return to the previous version."""
    check_epoch(document, epoch)
    if document.previous is None:
        raise StaleWriter(f"no previous version of {document.product!r} to roll back to; release a model twice first")
    return dataclasses.replace(document, candidate=document.previous, weight_pct=0.0, phase=Phase.ROLLING_BACK)


def finish_rollback(document: ReleaseDocument, *, epoch: int, now_s: float, reason: str) -> ReleaseDocument:
    """The previous version is champion again; a rollback has no way back of its own (no ping-pong)."""
    check_epoch(document, epoch)
    before, target = document.champion, document.candidate
    return _finish(
        dataclasses.replace(document, champion=target, previous=None),
        release_id=before.release_id if before else "none",
        outcome=Outcome.ROLLED_BACK,
        before=before,
        now_s=now_s,
        reason=reason,
    )


def _finish(
    document: ReleaseDocument, *, release_id: str, outcome: Outcome, before: Version | None, now_s: float, reason: str
) -> ReleaseDocument:
    after = document.champion
    entry = HistoryEntry(
        release_id=release_id,
        outcome=outcome,
        before=before.digest if before else None,
        after=after.digest if after else None,
        at_s=now_s,
        reason=reason,
    )
    history = (*document.history, entry)[-MAX_HISTORY:]
    return dataclasses.replace(document, candidate=None, weight_pct=0.0, phase=Phase.IDLE, lease=None, history=history)
