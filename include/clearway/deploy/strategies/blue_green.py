"""Blue-green: green loads beside blue, proves itself without traffic, takes all of it at once, proves itself again.

DEPLOYING     load green (and blue, the way back) ▸ golden rows ▸ 100 % ▸ live probe ▸ promote
              a failed proof ▸ ABORTING
ABORTING      blue 100 % (nothing at all, if there was no blue) ▸ live probe ▸ aborted
ROLLING_BACK  previous 100 % ▸ live probe ▸ rolled back
"""

from clearway.contracts import release_document as documents
from clearway.contracts.errors import Unavailable
from clearway.contracts.release_document import ReleaseDocument, Version
from clearway.contracts.verdict import Verdict
from clearway.deploy.rollout import CheckGolden, Load, ProbeLive, Seen, SetWeights, Step

ALL = documents.ALL_TRAFFIC_PCT


def step(document: ReleaseDocument, seen: Seen, *, now_s: float) -> Step:
    """What comes next. An idle document needs nothing.

    Raises: Unavailable if traffic was set back and others still answer; the intent stays stored, so retrying goes on.
    """
    if document.phase is documents.Phase.DEPLOYING:
        return _deploy(document, seen, now_s)
    if document.phase is documents.Phase.ABORTING:
        return _abort(document, seen, now_s)
    if document.phase is documents.Phase.ROLLING_BACK:
        return _roll_back(document, seen, now_s)
    return Step(document)


def _deploy(document: ReleaseDocument, seen: Seen, now_s: float) -> Step:
    green = _candidate(document)
    failed = next((check for check in (seen.golden, seen.live) if check and check.verdict is not Verdict.PASS), None)
    if failed:
        return Step(documents.begin_abort(document, epoch=document.epoch, reason=f"{failed.name}: {failed.reason}"))
    unready = _unready(document, seen, green) or (
        _unready(document, seen, document.champion) if document.champion else None
    )
    if unready:
        return Step(document, unready)
    if seen.golden is None:
        return Step(document, CheckGolden(green))
    if document.weight_pct != ALL:
        return Step(documents.set_candidate_weight(document, epoch=document.epoch, weight_pct=ALL))
    if seen.weights_pct != {green.digest: ALL}:
        return Step(document, SetWeights({green.digest: ALL}))
    if seen.live is None:
        return Step(document, ProbeLive(green.digest))
    reason = f"{seen.golden.reason}; {seen.live.reason}"
    return Step(documents.promote(document, epoch=document.epoch, now_s=now_s, reason=reason))


def _abort(document: ReleaseDocument, seen: Seen, now_s: float) -> Step:
    blue = document.champion
    moved = _all_to(document, seen, blue)
    return moved or Step(documents.finish_abort(document, epoch=document.epoch, now_s=now_s))


def _roll_back(document: ReleaseDocument, seen: Seen, now_s: float) -> Step:
    moved = _all_to(document, seen, _candidate(document))
    return moved or Step(documents.finish_rollback(document, epoch=document.epoch, now_s=now_s))


def _all_to(document: ReleaseDocument, seen: Seen, version: Version | None) -> Step | None:
    """The next step that brings all traffic to a version proven before, or None when it has it."""
    wanted = {version.digest: ALL} if version else {}
    if version and (unready := _unready(document, seen, version)):
        return Step(document, unready)
    if seen.weights_pct != wanted or seen.endpoint_epoch < document.epoch:
        return Step(document, SetWeights(wanted))
    if version is None:
        return None
    if seen.live is None:
        return Step(document, ProbeLive(version.digest))
    if seen.live.verdict is not Verdict.PASS:
        raise Unavailable(f"traffic was set to {version.digest}, but {seen.live.reason}; retry, the intent is stored")
    return None


def _unready(document: ReleaseDocument, seen: Seen, version: Version) -> Load | None:
    is_ready = version.digest in seen.loaded and seen.endpoint_epoch >= document.epoch
    return None if is_ready else Load(version)


def _candidate(document: ReleaseDocument) -> Version:
    assert document.candidate is not None, f"phase {document.phase} of {document.product} has no candidate"
    return document.candidate
