"""The state machine of every release: `step(document, seen, now_s) → Step`, pure.

DEPLOYING     load candidate (and champion, the way back) ▸ golden rows ▸ share by share of the plan ▸ live probe ▸
              promote; a failed proof, harm shown by the evidence, or a person's abort ▸ ABORTING
ABORTING      champion 100 % (nothing at all, if there was none) ▸ live probe ▸ aborted
ROLLING_BACK  previous 100 % ▸ live probe ▸ rolled back

A strategy is a plan (`strategies/`): blue-green is the plan of one step that asks for no evidence.
"""

from clearway.contracts import release_document as documents
from clearway.contracts import rollout as rollouts
from clearway.contracts.errors import Unavailable
from clearway.contracts.release_document import ReleaseDocument, Version
from clearway.contracts.rollout import ALL_AT_ONCE, ALL_TRAFFIC_PCT, OrderKind, Rollout, StepKind
from clearway.contracts.verdict import Verdict
from clearway.deploy.gathering import POLL_S, gather
from clearway.deploy.judges import UnreadableEvidence, mirrored_columns
from clearway.deploy.rollout import CheckGolden, Load, ProbeLive, Seen, SetWeights, Step, Wait
from clearway.infra.endpoint import Mirror

ALL = ALL_TRAFFIC_PCT


def step(document: ReleaseDocument, seen: Seen, *, now_s: float) -> Step:
    """What comes next. An idle document needs nothing.

    Raises: Unavailable if traffic was set back and others still answer; the intent stays stored, so retrying goes on.
    """
    if document.phase is documents.Phase.DEPLOYING:
        try:
            return _deploy(document, seen, now_s)
        except UnreadableEvidence as error:
            text = f"another version of Clearway began this rollout, and {error}; release the model again"
            return _give_up(document, text)
    if document.phase is documents.Phase.ABORTING:
        return _abort(document, seen, now_s)
    if document.phase is documents.Phase.ROLLING_BACK:
        return _roll_back(document, seen, now_s)
    return Step(document)


def _deploy(document: ReleaseDocument, seen: Seen, now_s: float) -> Step:
    candidate, rollout = _candidate(document), document.rollout or ALL_AT_ONCE
    if rollout.order:
        return _obey(document, rollout)
    failed = next((check for check in (seen.golden, seen.live) if check and check.verdict is not Verdict.PASS), None)
    if failed:
        return _give_up(document, f"{failed.name}: {failed.reason}")
    has_begun = bool(seen.golden or document.weight_pct or rollout.entered_s is not None)
    if has_begun and candidate.digest in seen.broken:  # what broke in an earlier release is loaded afresh
        return _give_up(document, f"the endpoint took it out of service: {seen.broken[candidate.digest]}")
    if unready := _unready(document, seen, candidate) or _unready(document, seen, document.champion):
        return Step(document, unready)
    if unproven := _unproven(document, rollout, seen, candidate):
        return unproven
    if step_to_share := _to_share(document, rollout, seen, candidate):
        return step_to_share
    if rollout.step.asks_evidence or rollout.is_paused:
        return _by_evidence(document, rollout, seen, now_s)
    return _go_on(document, rollout, seen, now_s)


def _unproven(document: ReleaseDocument, rollout: Rollout, seen: Seen, candidate: Version) -> Step | None:
    """What leads to the candidate's golden answers. Who cannot be asked for them beside its copies was before these."""
    if seen.golden is not None:
        return None
    if candidate.digest not in seen.unaskable:
        return Step(document, CheckGolden(candidate))
    if rollout.step.kind is StepKind.MIRROR or document.champion is None:
        return None
    return Step(document, SetWeights({document.champion.digest: ALL}, has_dead_man=True))  # its copies end


def _to_share(document: ReleaseDocument, rollout: Rollout, seen: Seen, candidate: Version) -> Step | None:
    """What brings the step's share about, or None when callers have it; a paused rollout moves to no other share."""
    share = rollout.step.weight_pct
    if document.weight_pct != share:
        if rollout.is_paused:
            return Step(document, Wait(POLL_S))
        return Step(documents.set_candidate_weight(document, epoch=document.epoch, weight_pct=share))
    mirror = _mirror(rollout, candidate)
    table = _table(document, candidate)
    if (seen.weights_pct, seen.mirror) == (table, mirror.digest if mirror else None):
        return None
    if rollout.entered_s is not None:  # it had the share and lost it: what happened since belongs to no step
        return Step(_with(document, rollouts.leave(rollout)))
    has_dead_man = share != ALL or rollout.step.asks_evidence
    return Step(document, SetWeights(table, has_dead_man=has_dead_man, mirror=mirror))


def _by_evidence(document: ReleaseDocument, rollout: Rollout, seen: Seen, now_s: float) -> Step:
    gathered = gather(document, rollout, seen, now_s)
    if gathered.verdict is Verdict.PASS:
        return _go_on(_with(document, gathered.rollout), gathered.rollout, seen, now_s)
    if gathered.verdict is Verdict.FAIL:
        return _give_up(_with(document, gathered.rollout), gathered.reason)
    return Step(_with(document, gathered.rollout), gathered.action)


def _go_on(document: ReleaseDocument, rollout: Rollout, seen: Seen, now_s: float) -> Step:
    if not rollout.is_last:
        return Step(_with(document, rollouts.advance(rollout)))
    if seen.dead_man:  # armed for as long as the candidate may go back; a champion must not lose its traffic to it
        return Step(document, SetWeights(_table(document, _candidate(document))))
    if seen.live is None:
        return Step(document, ProbeLive(_candidate(document).digest))
    golden = seen.golden.reason if seen.golden else ""
    reason = "; ".join(text for text in (*_said(rollout), golden, seen.live.reason) if text)
    return Step(documents.promote(document, epoch=document.epoch, now_s=now_s, reason=reason))


def _obey(document: ReleaseDocument, rollout: Rollout) -> Step:
    followed = rollouts.follow(rollout)
    if rollout.order and rollout.order.kind is OrderKind.ABORT:
        return _give_up(document, followed.trail[-1].reason)
    return Step(_with(document, followed))


def _give_up(document: ReleaseDocument, reason: str) -> Step:
    return Step(documents.begin_abort(document, epoch=document.epoch, reason=reason))


def _said(rollout: Rollout) -> tuple[str, ...]:
    """What people ordered and the evidence said last: it belongs into the history."""
    orders = [record.reason for record in rollout.trail if record.verdict is None]
    looks = [record.reason for record in rollout.trail if record.verdict is Verdict.PASS]
    return (*orders, *looks[-1:])


def _abort(document: ReleaseDocument, seen: Seen, now_s: float) -> Step:
    moved = _all_to(document, seen, document.champion)
    return moved or Step(documents.finish_abort(document, epoch=document.epoch, now_s=now_s))


def _roll_back(document: ReleaseDocument, seen: Seen, now_s: float) -> Step:
    moved = _all_to(document, seen, _candidate(document))
    return moved or Step(documents.finish_rollback(document, epoch=document.epoch, now_s=now_s))


def _all_to(document: ReleaseDocument, seen: Seen, version: Version | None) -> Step | None:
    """The next step that brings all traffic to a version proven before, or None when it has it."""
    wanted = {version.digest: ALL} if version else {}
    if unready := _unready(document, seen, version):
        return Step(document, unready)
    is_set = seen.weights_pct == wanted and not seen.mirror and not seen.dead_man
    if not is_set or seen.endpoint_epoch < document.epoch:
        return Step(document, SetWeights(wanted))
    if version is None:
        return None
    if seen.live is None:
        return Step(document, ProbeLive(version.digest))
    if seen.live.verdict is not Verdict.PASS:
        raise Unavailable(f"traffic was set to {version.digest}, but {seen.live.reason}; retry, the intent is stored")
    return None


def _table(document: ReleaseDocument, candidate: Version) -> dict[str, float]:
    """Candidate first: a version listed first keeps its sticky callers while its share rises."""
    champion = document.champion
    rest = ALL - document.weight_pct
    table = {candidate.digest: document.weight_pct} if document.weight_pct else {}
    return table | {champion.digest: rest} if champion and rest else table


def _mirror(rollout: Rollout, candidate: Version) -> Mirror | None:
    if rollout.step.kind is not StepKind.MIRROR:
        return None
    return Mirror(digest=candidate.digest, columns=mirrored_columns(rollout))


def _unready(document: ReleaseDocument, seen: Seen, version: Version | None) -> Load | None:
    if version is None or (version.digest in seen.loaded and seen.endpoint_epoch >= document.epoch):
        return None
    return Load(version)


def _with(document: ReleaseDocument, rollout: Rollout) -> ReleaseDocument:
    return documents.set_rollout(document, rollout, epoch=document.epoch)


def _candidate(document: ReleaseDocument) -> Version:
    assert document.candidate is not None, f"phase {document.phase} of {document.product} has no candidate"
    return document.candidate
