"""One look at the evidence of a rollout step: go on, give up, or wait for more."""

import dataclasses
from dataclasses import dataclass

from clearway.contracts import rollout as rollouts
from clearway.contracts.release_document import ReleaseDocument
from clearway.contracts.rollout import Rollout
from clearway.contracts.verdict import Judgement, Verdict
from clearway.deploy import judges
from clearway.deploy.rollout import Action, CheckGolden, Seen, Wait

# Seconds between two looks. A verdict may be looked at as often as one likes; this bounds how late a fault is seen.
POLL_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Gathered:
    """The rollout to store, what to do next, and the step's verdict so far."""

    rollout: Rollout
    verdict: Verdict = Verdict.INCONCLUSIVE
    action: Action | None = None
    reason: str = ""


def gather(document: ReleaseDocument, rollout: Rollout, seen: Seen, now_s: float) -> Gathered:
    """Pure: what this look says. Raises: UnreadableEvidence."""
    if not rollout.step.asks_evidence:  # paused at the last step, where there is no control any more
        return Gathered(rollout=rollout, action=Wait(POLL_S))
    if rollout.entered_s is None:
        known = {**rollout.evidence, rollout.step.kind.value: judges.begin(rollout)}
        return Gathered(rollout=dataclasses.replace(rollouts.enter(rollout, now_s=now_s), evidence=known))
    # Where the clock was set back the time of the step begins anew; what was seen in it stays.
    entered_s = min(rollout.entered_s, now_s)
    rollout = dataclasses.replace(rollout, entered_s=entered_s)
    said = judges.look(document, rollout, seen, now_s)
    if said is None:
        return Gathered(rollout=rollout, action=judges.question(rollout))
    verdict, reason = said.judgement.verdict, _words(said.judgement)
    stays_s = now_s - entered_s
    is_due = stays_s >= rollout.step.min_s and not rollout.is_paused
    if verdict is Verdict.PASS and not is_due:
        verdict = Verdict.INCONCLUSIVE
    waits_for = "" if verdict in {Verdict.PASS, Verdict.FAIL} else _waits_for(rollout, reason, stays_s)
    after = rollouts.looked(
        rollout,
        now_s=now_s,
        verdict=verdict,
        reason=reason,
        num_requests=said.num_requests,
        evidence=said.state,
        waits_for=waits_for,
    )
    is_waiting = verdict is Verdict.INCONCLUSIVE and not rollout.is_paused
    if is_waiting and stays_s >= rollout.step.max_s + rollout.step.hold_s:
        text = f"nobody decided within {rollout.step.hold_s:.0f} s after the evidence stayed missing: {reason}"
        return Gathered(rollout=after, verdict=Verdict.FAIL, reason=text)
    assert document.candidate, "a step that asks for evidence has a candidate"
    is_askable = document.candidate.digest not in seen.unaskable
    if is_waiting and stays_s >= rollout.step.max_s and not rollout.is_probed and is_askable:
        return Gathered(rollout=dataclasses.replace(after, is_probed=True), action=CheckGolden(document.candidate))
    action = Wait(POLL_S) if verdict is Verdict.INCONCLUSIVE else None
    return Gathered(rollout=after, verdict=verdict, action=action, reason=reason)


def _words(judgement: Judgement) -> str:
    """What failed, else what is missing, else what every decisive metric found."""
    checks = [c for c in judgement.checks if c.is_decisive]
    telling = [c for c in checks if c.verdict is judgement.verdict] or checks
    return "; ".join(f"{c.name}: {c.reason}" for c in telling)


def _waits_for(rollout: Rollout, reason: str, stays_s: float) -> str:
    if rollout.is_paused:
        return rollout.waits_for
    if stays_s < rollout.step.min_s:
        return f"{rollout.step.min_s - stays_s:.0f} s more at this share"
    if stays_s < rollout.step.max_s:
        return f"evidence: {reason}"
    asked = " (synthetic requests were answered rightly)" if rollout.is_probed else ""
    return f"a person, to promote or abort{asked}: {reason}"
