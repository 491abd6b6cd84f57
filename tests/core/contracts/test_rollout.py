"""Progress through a rollout plan: what may follow what, and that orders and evidence survive."""

import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clearway.contracts import rollout as rollouts
from clearway.contracts.codec import from_jsonable, to_jsonable
from clearway.contracts.errors import ConfigError
from clearway.contracts.rollout import ALL_AT_ONCE, MAX_TRAIL, Order, OrderKind, PlanStep, Rollout, StepKind
from clearway.contracts.verdict import Verdict

STEPS = (PlanStep(weight_pct=5, min_requests=10), PlanStep(weight_pct=50, min_s=3), PlanStep(weight_pct=100))
MIRROR = PlanStep(kind=StepKind.MIRROR, weight_pct=0, min_requests=10)
WATCH = PlanStep(kind=StepKind.WATCH, weight_pct=100, min_requests=10)
CANARY = Rollout(strategy="canary", plan=STEPS)


def order(kind: OrderKind) -> Order:
    return Order(kind=kind, by="ada", reason="seen it", at_s=7.0)


def look(rollout: Rollout, verdict: Verdict, at_s: float, reason: str = "looked") -> Rollout:
    return rollouts.looked(
        rollout, now_s=at_s, verdict=verdict, reason=reason, num_requests=3, evidence={"e": at_s}, waits_for="more"
    )


@pytest.mark.parametrize("shares", [(), (50,), (-1, 100), (50, 50, 100), (60, 40, 100), (100, 50), (5, 101)])
def test_shares_that_do_not_rise_to_all_traffic_are_refused(shares: tuple[float, ...]) -> None:
    with pytest.raises(ConfigError, match="rising"):
        rollouts.check_plan(tuple(PlanStep(weight_pct=share) for share in shares))


@pytest.mark.parametrize("wrong", [{"min_s": float("nan")}, {"max_s": -1.0}, {"min_requests": -1}])
def test_a_step_with_a_nonsense_number_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="not finite"):
        rollouts.check_plan((PlanStep(weight_pct=100, **wrong),))  # type: ignore[arg-type]


def test_the_usual_plans_are_accepted() -> None:
    rollouts.check_plan(ALL_AT_ONCE.plan)
    rollouts.check_plan(STEPS)
    rollouts.check_plan((MIRROR, *STEPS[:-1], WATCH))


@pytest.mark.parametrize(
    "plan",
    [
        (PlanStep(weight_pct=0), STEPS[-1]),
        (PlanStep(weight_pct=5, kind=StepKind.MIRROR), STEPS[-1]),
        (PlanStep(weight_pct=50, kind=StepKind.WATCH), STEPS[-1]),
    ],
    ids=["a split of nothing", "a mirror that answers callers", "a watch beside others"],
)
def test_a_share_that_does_not_fit_its_kind_is_refused(plan: tuple[PlanStep, ...]) -> None:
    with pytest.raises(ConfigError, match="of the traffic; allowed: 0 for mirror, 100 for watch"):
        rollouts.check_plan(plan)


def test_promote_goes_to_the_watch_first_and_ends_it_when_ordered_again() -> None:
    watched = Rollout(strategy="canary → watch", plan=(STEPS[0], WATCH))
    at_watch = rollouts.follow(rollouts.give(watched, order(OrderKind.PROMOTE)))
    assert at_watch.step == WATCH and at_watch.step.asks_evidence
    over = rollouts.follow(rollouts.give(at_watch, order(OrderKind.PROMOTE)))
    assert over.is_last and over.step.weight_pct == 100 and not over.step.asks_evidence


def test_each_kind_of_step_keeps_its_own_evidence() -> None:
    mirrored = look(Rollout(strategy="shadow → canary", plan=(MIRROR, *STEPS)), Verdict.PASS, 1.0)
    split = look(rollouts.advance(mirrored), Verdict.PASS, 2.0)
    assert split.evidence == {"mirror": {"e": 1.0}, "split": {"e": 2.0}}


def test_evidence_goes_along_and_the_clock_of_a_step_starts_anew() -> None:
    at_first = look(rollouts.enter(CANARY, now_s=1.0), Verdict.INCONCLUSIVE, 2.0)
    second = rollouts.advance(at_first)
    assert (second.index, second.entered_s, second.evidence, second.waits_for) == (1, None, {"split": {"e": 2.0}}, "")
    with pytest.raises(ConfigError, match="promote instead"):
        rollouts.advance(rollouts.advance(second))


def test_looks_that_say_the_same_share_one_line() -> None:
    rollout = CANARY
    for at_s in range(5):
        rollout = look(rollout, Verdict.INCONCLUSIVE, float(at_s))
    assert [(r.at_s, r.verdict) for r in rollout.trail] == [(4.0, Verdict.INCONCLUSIVE)]
    assert len(look(rollout, Verdict.PASS, 9.0).trail) == 2


def test_an_order_waits_for_the_driver_and_is_kept_once_followed() -> None:
    given_ = rollouts.give(CANARY, order(OrderKind.PAUSE))
    assert given_.order is not None and not given_.is_paused
    paused = rollouts.follow(given_)
    assert paused.is_paused and paused.order is None and "paused by ada" in paused.waits_for
    resumed = rollouts.follow(rollouts.give(paused, order(OrderKind.RESUME)))
    assert not resumed.is_paused and resumed.waits_for == ""
    assert [r.reason.split()[0] for r in resumed.trail] == ["pause", "resume"]


def test_promote_goes_to_all_traffic_and_abort_moves_nothing_by_itself() -> None:
    promoted = rollouts.follow(rollouts.give(CANARY, order(OrderKind.PROMOTE)))
    assert promoted.is_last and promoted.entered_s is None
    assert rollouts.follow(promoted) == promoted
    assert rollouts.follow(rollouts.give(CANARY, order(OrderKind.ABORT))).index == 0


def test_the_trail_is_bounded() -> None:
    rollout, verdicts = CANARY, itertools.cycle([Verdict.INCONCLUSIVE, Verdict.ERROR])
    for at_s in range(3 * MAX_TRAIL):
        rollout = look(rollout, next(verdicts), float(at_s))
    assert len(rollout.trail) == MAX_TRAIL


@given(st.lists(st.sampled_from([*OrderKind, *Verdict]), max_size=12))
def test_every_state_survives_json(happenings: list[OrderKind | Verdict]) -> None:
    rollout = CANARY
    for at_s, what in enumerate(happenings):
        if isinstance(what, OrderKind):
            rollout = rollouts.follow(rollouts.give(rollout, order(what)))
        else:
            rollout = look(rollout, what, float(at_s))
    assert from_jsonable(Rollout, json.loads(json.dumps(to_jsonable(rollout)))) == rollout


def test_a_full_trail_still_tells_news_from_what_was_said_before() -> None:
    verdicts = [Verdict.INCONCLUSIVE, Verdict.PASS]
    rollout = CANARY
    for number in range(MAX_TRAIL):
        rollout = look(rollout, verdicts[number % 2], at_s=number)
    again, other = look(rollout, Verdict.PASS, at_s=100.0), look(rollout, Verdict.FAIL, at_s=100.0)
    assert len(rollout.trail) == len(again.trail) == len(other.trail) == MAX_TRAIL
    assert rollouts.is_same_claim(rollout.trail[-1], again.trail[-1])
    assert not rollouts.is_same_claim(rollout.trail[-1], other.trail[-1])
    paused = rollouts.follow(rollouts.give(other, order(OrderKind.PAUSE)))
    assert not rollouts.is_same_claim(other.trail[-1], paused.trail[-1])
