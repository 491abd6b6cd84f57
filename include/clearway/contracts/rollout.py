"""How a new version takes traffic: the plan, where it stands, and what people ordered meanwhile.

Part of the release document. All functions here are pure: (rollout, what happened, now) → rollout.
"""

import dataclasses
import itertools
import math
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from clearway.contracts.errors import ConfigError
from clearway.contracts.verdict import Verdict

ALL_TRAFFIC_PCT = 100.0
# Newest looks kept in the document for the page; the whole curve is written beside the release.
MAX_TRAIL = 64


class OrderKind(StrEnum):
    """What a person may order. PROMOTE skips the evidence that is still missing; ABORT gives the traffic back."""

    PROMOTE = "promote"
    ABORT = "abort"
    PAUSE = "pause"
    RESUME = "resume"


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """One order of a person; kept in the trail once it was followed."""

    kind: OrderKind
    by: str
    reason: str
    at_s: float


class StepKind(StrEnum):
    """What the candidate is given, and what it is compared with.

    MIRROR: copies of the champion's requests, answers unheard; row by row with the champion's.
    SPLIT: a share of the callers; with the champion in the same seconds.
    WATCH: all callers; with an objective, since there is no control beside it.
    """

    MIRROR = "mirror"
    SPLIT = "split"
    WATCH = "watch"


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanStep:
    """One share of traffic and the evidence it asks for before the next.

    Args:
        kind: how the candidate is tried.
        weight_pct: share of the candidate, 0 to 100; 0 for MIRROR, 100 for WATCH.
        min_requests: answered by the candidate during this step (rows, for MIRROR); 0 together with `min_s` 0: go on at
            once.
        min_s: seconds the step lasts at least.
        max_s: seconds after which missing evidence is called missing, and a person is asked.
        hold_s: seconds a person then has to decide, before the traffic goes back.
    """

    weight_pct: float
    kind: StepKind = StepKind.SPLIT
    min_requests: int = 0
    min_s: float = 0.0
    max_s: float = 0.0
    hold_s: float = 0.0

    @property
    def label(self) -> str:
        """What people call it: `mirror`, `5 %`, `watch`."""
        return f"{self.weight_pct:g} %" if self.kind is StepKind.SPLIT else self.kind.value

    @property
    def asks_evidence(self) -> bool:
        """Whether the step ends by a verdict instead of at once."""
        return self.min_requests > 0 or self.min_s > 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What one look said, or what a person ordered."""

    at_s: float
    weight_pct: float
    verdict: Verdict | None
    reason: str
    num_requests: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollout:
    """Progress through a plan, frozen when the release began: a changed product.yaml moves no running rollout.

    Args:
        strategy: its name, for people.
        plan: shares in order; the last one is all traffic.
        rules: kind of step → what its evidence is judged by, JSON; empty where none is asked for.
        index: the current step.
        entered_s: when the endpoint first confirmed the step's share; None before.
        evidence: kind of step → state of its judge, JSON; carried from step to step, so one error rate covers them all.
        is_paused: a person asked to stay where it is.
        is_probed: the candidate was asked synthetic requests in this step, since real ones stayed missing.
        waits_for: why it does not go on, in words; empty while it does.
        order: a person's order that the driver has not followed yet.
        trail: what looks and people said, newest last, at most MAX_TRAIL.
    """

    strategy: str
    plan: tuple[PlanStep, ...]
    rules: dict[str, Any] = dataclasses.field(default_factory=dict)
    index: int = 0
    entered_s: float | None = None
    evidence: dict[str, Any] = dataclasses.field(default_factory=dict)
    is_paused: bool = False
    is_probed: bool = False
    waits_for: str = ""
    order: Order | None = None
    trail: tuple[Record, ...] = ()

    @property
    def step(self) -> PlanStep:
        """The current step."""
        return self.plan[self.index]

    @property
    def is_last(self) -> bool:
        """Whether the current step is the one that takes all traffic."""
        return self.index == len(self.plan) - 1


ALL_AT_ONCE = Rollout(strategy="blue_green", plan=(PlanStep(weight_pct=ALL_TRAFFIC_PCT),))


def check_plan(plan: tuple[PlanStep, ...]) -> None:
    """Raises: ConfigError unless shares rise strictly, end with all traffic, and fit the kinds of their steps."""
    shares = [step.weight_pct for step in plan]
    rises = all(low < high for low, high in itertools.pairwise(shares))
    if not shares or not rises or shares[0] < 0 or shares[-1] != ALL_TRAFFIC_PCT:
        raise ConfigError(f"rollout shares {shares} percent; allowed: rising, at least 0, the last exactly 100")
    for step in plan:
        if (step.weight_pct == 0) != (step.kind is StepKind.MIRROR) or (
            step.kind is StepKind.WATCH and step.weight_pct != ALL_TRAFFIC_PCT
        ):
            text = "allowed: 0 for mirror, 100 for watch, in between or 100 for split"
            raise ConfigError(f"rollout step {step.kind.value!r} has {step.weight_pct:g} % of the traffic; {text}")
        if not all(math.isfinite(x) and x >= 0 for x in (step.min_requests, step.min_s, step.max_s, step.hold_s)):
            raise ConfigError(f"rollout step {step} holds a number that is not finite and >= 0; mend it")


def enter(rollout: Rollout, *, now_s: float) -> Rollout:
    """The endpoint confirmed this step's share."""
    return dataclasses.replace(rollout, entered_s=now_s, is_probed=False)


def leave(rollout: Rollout) -> Rollout:
    """The endpoint has another share than this step's: its time begins anew once the share is back."""
    return dataclasses.replace(rollout, entered_s=None)


def advance(rollout: Rollout) -> Rollout:
    """On to the next share; what the evidence says so far goes along."""
    if rollout.is_last:
        raise ConfigError(f"rollout {rollout.strategy!r} is at its last step; promote instead")
    return dataclasses.replace(rollout, index=rollout.index + 1, entered_s=None, waits_for="")


def looked(
    rollout: Rollout,
    *,
    now_s: float,
    verdict: Verdict,
    reason: str,
    num_requests: int,
    evidence: dict[str, Any],
    waits_for: str = "",
) -> Rollout:
    """One look at the evidence. A look that says what the one before said takes its place in the trail.

    Args:
        evidence: of the current step's kind.
    """
    record = Record(
        at_s=now_s, weight_pct=rollout.step.weight_pct, verdict=verdict, reason=reason, num_requests=num_requests
    )
    known = {**rollout.evidence, rollout.step.kind.value: evidence}
    return dataclasses.replace(rollout, evidence=known, waits_for=waits_for, trail=_with(rollout.trail, record))


def give(rollout: Rollout, order: Order) -> Rollout:
    """A person orders; the driver follows at its next look. A newer order replaces one not yet followed."""
    return dataclasses.replace(rollout, order=order)


def follow(rollout: Rollout) -> Rollout:
    """The driver takes the order over: PAUSE takes effect here, RESUME begins the step's time anew, PROMOTE goes to the
    last step, and ends that one's watch if there already."""
    order = rollout.order
    if order is None:
        return rollout
    text = f"{order.kind.value} ordered by {order.by}: {order.reason}"
    record = Record(at_s=order.at_s, weight_pct=rollout.step.weight_pct, verdict=None, reason=text)
    followed = dataclasses.replace(rollout, order=None, trail=_with(rollout.trail, record))
    if order.kind is OrderKind.PAUSE:
        return dataclasses.replace(followed, is_paused=True, waits_for=f"paused by {order.by}: {order.reason}")
    if order.kind is OrderKind.RESUME:
        return dataclasses.replace(followed, is_paused=False, waits_for="", entered_s=None)
    if order.kind is OrderKind.PROMOTE and not rollout.is_last:
        last = len(rollout.plan) - 1
        return dataclasses.replace(followed, index=last, entered_s=None, is_paused=False, waits_for="")
    if order.kind is OrderKind.PROMOTE:
        unwatched = (*rollout.plan[:-1], PlanStep(weight_pct=rollout.step.weight_pct))
        return dataclasses.replace(followed, plan=unwatched, is_paused=False, waits_for="")
    return dataclasses.replace(followed, is_paused=False)


def is_same_claim(earlier: Record, later: Record) -> bool:
    """Whether a look says what an earlier one said at the same share; every order stands for itself."""
    if earlier.verdict is None or later.verdict is None:
        return earlier == later
    return (earlier.verdict, earlier.weight_pct) == (later.verdict, later.weight_pct)


def _with(trail: tuple[Record, ...], record: Record) -> tuple[Record, ...]:
    kept = trail[:-1] if trail and is_same_claim(trail[-1], record) else trail
    return (*kept, record)[-MAX_TRAIL:]
