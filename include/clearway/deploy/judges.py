"""Who judges which kind of step: from what the endpoint was seen to count to a judgement and a state that is kept.

One function pair per kind; all pure. A state or rules that this program cannot read (another version of it wrote them)
are told as UnreadableEvidence, so that the rollout is given up instead of judged by guesses.
"""

import dataclasses
from dataclasses import dataclass
from typing import Any, TypeVar

from clearway.contracts.codec import from_jsonable, to_jsonable
from clearway.contracts.release_document import ReleaseDocument
from clearway.contracts.rollout import Rollout, StepKind
from clearway.contracts.verdict import Check, Judgement, Verdict, judge
from clearway.deploy.rollout import Action, Observe, ReadMirrored, Seen
from clearway.evidence import engine, shadow, slo

T = TypeVar("T")


class UnreadableEvidence(Exception):
    """What was stored about a rollout has a shape that this program does not know."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """One look's judgement, the state to keep as JSON, and how many requests (MIRROR: rows) this step has seen."""

    judgement: Judgement
    state: dict[str, Any]
    num_requests: int


def begin(rollout: Rollout) -> dict[str, Any]:
    """The state with which the current step begins, or goes on after a break. Raises: UnreadableEvidence."""
    if rollout.step.kind is StepKind.SPLIT:
        return dict(to_jsonable(engine.begin_step(_state(engine.State, rollout), step=rollout.index)))
    if rollout.step.kind is StepKind.WATCH:
        return dict(to_jsonable(slo.begin(_state(slo.State, rollout))))
    return dict(to_jsonable(_state(shadow.State, rollout)))


def question(rollout: Rollout) -> Action | None:
    """What to ask the endpoint before a look."""
    if rollout.step.kind is StepKind.MIRROR:
        return ReadMirrored(next_row=_state(shadow.State, rollout).next_row)
    return Observe()


def mirrored_columns(rollout: Rollout) -> tuple[str, ...]:
    """Columns whose values name the slices of mirrored rows."""
    names = [group.name for group in _rules(shadow.Rules, rollout).groups if group.name != shadow.ALL]
    return tuple(dict.fromkeys(name.partition("=")[0] for name in names))


def look(document: ReleaseDocument, rollout: Rollout, seen: Seen, now_s: float) -> Said | None:
    """Judge what was seen; None if nothing was. Raises: UnreadableEvidence."""
    if rollout.step.kind is StepKind.MIRROR:
        return _mirror(document, rollout, seen, now_s)
    if seen.observed is None:
        return None
    return (_watch if rollout.step.kind is StepKind.WATCH else _split)(document, rollout, seen, now_s)


def _split(document: ReleaseDocument, rollout: Rollout, seen: Seen, now_s: float) -> Said:
    assert seen.observed and document.candidate and document.champion, "a split has two versions"
    looked = engine.look(
        _rules(engine.Rules, rollout),
        _state(engine.State, rollout),
        seen.observed,
        candidate=document.candidate.digest,
        control=document.champion.digest,
        epoch=document.epoch,
        now_s=now_s,
        weight_pct=rollout.step.weight_pct,
        min_requests=rollout.step.min_requests,
    )
    return Said(judgement=looked.judgement, state=to_jsonable(looked.state), num_requests=looked.state.num_candidate)


def _watch(document: ReleaseDocument, rollout: Rollout, seen: Seen, now_s: float) -> Said:
    assert seen.observed and document.candidate, "a watch has a version to look at"
    looked = slo.look(
        _rules(slo.Rules, rollout),
        _state(slo.State, rollout),
        seen.observed,
        version=document.candidate.digest,
        epoch=document.epoch,
        now_s=now_s,
        min_requests=rollout.step.min_requests,
    )
    return Said(judgement=looked.judgement, state=to_jsonable(looked.state), num_requests=looked.state.num_requests)


def _mirror(document: ReleaseDocument, rollout: Rollout, seen: Seen, now_s: float) -> Said | None:
    rows = seen.mirrored
    if rows is None:
        return None
    assert document.candidate and document.champion, "a mirror has two versions"
    state, extra = _state(shadow.State, rollout), list[Check]()
    known = state.next_row.get(rows.log_id, 0)
    if not rows.log_id:  # the server has copied nothing for anybody yet
        rows = dataclasses.replace(rows, candidate=document.candidate.digest, control=document.champion.digest)
    if rows.first > known:  # asked for, and no longer there: the driver was away for longer than rows are kept
        text = f"rows {known} to {rows.first - 1} of {rows.log_id} were overwritten before they were read"
        extra.append(Check(name="lost", verdict=Verdict.INCONCLUSIVE, reason=text))
        state = dataclasses.replace(state, next_row={**state.next_row, rows.log_id: rows.first})
    looked = shadow.look(
        _rules(shadow.Rules, rollout),
        state,
        rows,
        candidate=document.candidate.digest,
        control=document.champion.digest,
        epoch=document.epoch,
        now_s=now_s,
        min_rows=rollout.step.min_requests,
    )
    num = looked.state.tallies[0].band.num
    if rows.num_dropped > num:
        text = f"the candidate cannot keep up: {rows.num_dropped} requests were not mirrored, {num} rows were"
        extra.append(Check(name="dropped", verdict=Verdict.INCONCLUSIVE, reason=text))
    judgement = judge((*looked.judgement.checks, *extra))
    return Said(judgement=judgement, state=to_jsonable(looked.state), num_requests=num)


def _state(kind: type[T], rollout: Rollout) -> T:
    stored = rollout.evidence.get(rollout.step.kind.value)
    return kind() if stored is None else _read(kind, stored)


def _rules(kind: type[T], rollout: Rollout) -> T:
    return _read(kind, rollout.rules.get(rollout.step.kind.value))


def _read(kind: type[T], stored: Any) -> T:
    try:
        return from_jsonable(kind, stored)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UnreadableEvidence(f"{kind.__module__}.{kind.__name__} cannot be read: {error}") from error
