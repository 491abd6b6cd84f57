"""What a request by hand meets: the product's triggers, its bounds, and what it may set aside."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clearway.monitor.decide import Answer, Decision, ManualRequest, PastDecision, Window, decide
from clearway.product_monitor import Monitor, Override, Signal

FIRST = datetime(2013, 4, 1, tzinfo=UTC)
MODEL = "a" * 64
REQUEST = ManualRequest(digest="c" * 64, reason="new fares")
POLICY = Monitor(cooldown_batches=4, max_retrains=3, max_retrains_monthly=2)


def batch_id(week: int) -> str:
    return (FIRST + timedelta(weeks=week)).strftime("%Y-%m-%d")


def as_of(week: int) -> str:
    return (FIRST + timedelta(weeks=week + 1)).isoformat()


def weeks(number: int, **newest: object) -> list[Window]:
    found = [
        Window(batch_id=batch_id(i), model_digest=MODEL, drift_share=0.2, num_batches=i + 1) for i in range(number)
    ]
    return [*found[:-1], replace(found[-1], **newest)]  # type: ignore[arg-type]


def past(*decided: int) -> list[PastDecision]:
    return [PastDecision(evidence_digest=f"{w:064x}", batch_id=batch_id(w), as_of=as_of(w)) for w in decided]


def answer(
    history: list[Window],
    decided: list[PastDecision] | None = None,
    policy: Monitor = POLICY,
    request: ManualRequest | None = REQUEST,
) -> Decision:
    return decide(history, decided or [], policy, product="flights", as_of=as_of(len(history) - 1), request=request)


def asking(*override: Override) -> ManualRequest:
    return replace(REQUEST, override=override)


def test_a_request_in_calm_weeks_is_granted_and_is_its_own_evidence() -> None:
    found = answer(weeks(8))
    assert (found.answer, found.evidence_digest, found.overridden) == (Answer.RETRAIN, "c" * 64, ())
    assert found.reasons == ("asked for by hand: new fares",)
    assert answer(weeks(8), request=None).answer is Answer.HOLD


def test_nothing_measured_yet_stands_against_no_request() -> None:
    assert answer([Window(batch_id=batch_id(0))]).answer is Answer.RETRAIN
    assert answer([Window(batch_id=batch_id(0))], request=None).answer is Answer.UNKNOWN


@pytest.mark.parametrize(
    ("history", "decided", "what", "expected", "words"),
    [
        (weeks(8), past(6), Override.COOLDOWN, Answer.HOLD, "decided with batch 2013-05-13"),
        (weeks(8), past(7), Override.COOLDOWN, Answer.HOLD, "decided with batch 2013-05-20"),
        (weeks(2), [], Override.COOLDOWN, Answer.HOLD, "watched for 2 batches"),
        (weeks(20), past(1, 6, 11), Override.BUDGET, Answer.ALERT, "3 retrainings within 365 days"),
        (weeks(8, faults=("a feed is silent",)), [], Override.INPUT, Answer.ALERT, "a feed is silent"),
        (weeks(8, sudden=("pressure",)), [], Override.INPUT, Answer.ALERT, "pressure"),
    ],
    ids=["cool-down", "of the same batch", "young champion", "budget", "outage", "jump"],
)
def test_a_request_meets_every_bound_and_sets_aside_only_what_it_names(
    history: list[Window], decided: list[PastDecision], what: Override, expected: Answer, words: str
) -> None:
    refused = answer(history, decided)
    assert refused.answer is expected
    assert words in refused.reasons[0]
    assert f'"override": "{what.value}"' in refused.reasons[0]
    others = asking(*(o for o in Override if o is not what))
    assert answer(history, decided, request=others).answer is expected
    granted = answer(history, decided, request=asking(what))
    assert (granted.answer, granted.overridden) == (Answer.RETRAIN, (what,))
    assert any(words in reason and f"overridden by the request ({what.value})" in reason for reason in granted.reasons)


def test_a_product_says_what_may_be_set_aside() -> None:
    policy = POLICY.model_copy(update={"may_override": (Override.INPUT,)})
    refused = answer(weeks(8), past(7), policy, asking(*Override))
    assert refused.answer is Answer.HOLD
    assert "lets no request set aside cooldown" in refused.reasons[0]


@pytest.mark.parametrize(
    ("triggers", "rows", "expected"),
    [
        ((), 0, Answer.HOLD),
        (((Signal.TIME,),), 0, Answer.HOLD),
        (((Signal.MANUAL, Signal.VOLUME),), 99, Answer.HOLD),
        (((Signal.MANUAL, Signal.VOLUME),), 100, Answer.RETRAIN),
        (((Signal.DRIFT,), (Signal.MANUAL,)), 0, Answer.RETRAIN),
    ],
    ids=["no trigger", "a calendar", "too few rows", "enough rows", "any of two"],
)
def test_manual_is_a_trigger_like_the_others(
    triggers: tuple[tuple[Signal, ...], ...], rows: int, expected: Answer
) -> None:
    policy = POLICY.model_copy(update={"triggers": triggers, "new_rows": 100})
    assert answer(weeks(8, num_new_rows=rows), policy=policy).answer is expected


def test_without_a_request_no_group_with_manual_is_complete() -> None:
    policy = POLICY.model_copy(
        update={"triggers": ((Signal.MANUAL,), (Signal.TIME, Signal.MANUAL)), "every_batches": 1}
    )
    loud = [replace(w, drift_share=0.9, calibration_gap=0.9, loss_excess=9.0) for w in weeks(8)]
    found = answer(loud, policy=policy, request=None)
    assert (found.answer, found.signals) == (Answer.HOLD, (Signal.TIME,))
    assert "a retraining needs manual or time+manual" in found.reasons[0]


@given(st.lists(st.integers(0, 29), max_size=6), st.integers(1, 30), st.sets(st.sampled_from(list(Override))))
def test_a_request_never_passes_a_bound_it_does_not_name(decided: list[int], number: int, named: set[Override]) -> None:
    history = weeks(number)
    found = answer(history, past(*decided), request=asking(*named))
    assert set(found.overridden) <= named
    known = [w for w in decided if w < number]
    is_cooling = number < 4 or any(w >= number - 4 for w in known)
    now = datetime.fromisoformat(as_of(number - 1))
    in_month = sum(datetime.fromisoformat(as_of(w)) > now - timedelta(days=30) for w in known)
    needed = {Override.COOLDOWN} if is_cooling else set()
    needed |= {Override.BUDGET} if len(known) >= 3 or in_month >= 2 else set()
    assert (found.answer is Answer.RETRAIN) == (needed <= named)
