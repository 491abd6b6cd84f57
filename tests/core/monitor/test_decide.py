"""The retraining rule: a table of cases, then properties over random histories."""

import dataclasses
import itertools
import math
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clearway.monitor.decide import Answer, Decision, PastDecision, Window, decide, look_back, speaks
from clearway.product_monitor import Monitor, Signal

FIRST = datetime(2013, 4, 1, tzinfo=UTC)
MODEL, OTHER = "a" * 64, "b" * 64
POLICY = Monitor(share_over_limit=0.5, calibration_gap=0.05, persistence=(2, 3), cooldown_batches=4, max_retrains=2)
QUIET, LOUD = 0.2, 0.8


def batch_id(week: int) -> str:
    return (FIRST + timedelta(weeks=week)).strftime("%Y-%m-%d")


def as_of(week: int) -> str:
    return (FIRST + timedelta(weeks=week + 1)).isoformat()


def windows(shares: list[float | None], *, model: str = MODEL, gaps: list[float | None] | None = None) -> list[Window]:
    gaps = gaps or [None] * len(shares)
    return [
        Window(batch_id=batch_id(i), model_digest=model, drift_share=s, calibration_gap=g)
        for i, (s, g) in enumerate(zip(shares, gaps, strict=True))
    ]


def past(*weeks: int) -> list[PastDecision]:
    return [PastDecision(evidence_digest=f"{w:064x}", batch_id=batch_id(w), as_of=as_of(w)) for w in weeks]


def answer(history: list[Window], decided: list[PastDecision] | None = None, policy: Monitor = POLICY) -> Decision:
    return decide(history, decided or [], policy, product="flights", as_of=as_of(len(history) - 1))


@pytest.mark.parametrize(
    ("shares", "gaps", "expected"),
    [
        ([QUIET] * 6, None, Answer.HOLD),
        ([QUIET] * 5 + [LOUD], None, Answer.HOLD),
        ([QUIET] * 4 + [LOUD, LOUD], None, Answer.RETRAIN),
        ([QUIET] * 3 + [LOUD, QUIET, LOUD], None, Answer.RETRAIN),
        ([QUIET] * 3 + [LOUD, LOUD, QUIET], None, Answer.HOLD),
        ([LOUD] + [QUIET] * 4 + [LOUD], None, Answer.HOLD),
        ([LOUD, LOUD], None, Answer.HOLD),
        ([QUIET] * 6, [None] * 4 + [0.06, 0.07], Answer.RETRAIN),
        ([QUIET] * 6, [None] * 4 + [0.06, 0.04], Answer.HOLD),
        ([QUIET] * 5 + [LOUD], [None] * 4 + [0.06, None], Answer.HOLD),
        ([0.5] * 6, [0.05] * 6, Answer.HOLD),
        ([None] * 6, None, Answer.UNKNOWN),
        ([LOUD] * 5 + [None], [None] * 5 + [0.01], Answer.HOLD),
        ([math.nan] * 6, [math.nan] * 6, Answer.HOLD),
        ([math.inf] * 6, None, Answer.HOLD),
    ],
    ids=[
        "quiet",
        "one loud window",
        "two in a row",
        "two of three",
        "newest is quiet again",
        "too far apart",
        "champion just came",
        "calibration alone",
        "calibration once",
        "two signals once each are not one twice",
        "exactly at the limit",
        "no evidence",
        "drift unknown now",
        "nan is no number",
        "infinity is no number",
    ],
)
def test_answer_for(shares: list[float | None], gaps: list[float | None] | None, expected: Answer) -> None:
    assert answer(windows(shares, gaps=gaps)).answer is expected


def texts(*values: float | None, share: float | None = QUIET) -> list[Window]:
    """Windows of a model that reads texts: no label, but what each batch cost it."""
    return [dataclasses.replace(w, surprise=v) for w, v in zip(windows([share] * len(values)), values, strict=True)]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.2] * 6, Answer.HOLD),
        ([0.2] * 4 + [1.2, 3.0], Answer.RETRAIN),
        ([0.2] * 3 + [1.2, 0.2, 1.2], Answer.RETRAIN),
        ([0.2] * 5 + [9.0], Answer.HOLD),
        ([0.2] * 4 + [1.2, 1.0], Answer.HOLD),
        ([-5.0] * 6, Answer.HOLD),
        ([0.2] * 3 + [1.2, 1.2, None], Answer.HOLD),
        ([1.2, 1.2], Answer.HOLD),
    ],
    ids=["quiet", "twice", "two of three", "once", "at its limit", "cheaper", "unknown now", "champion just came"],
)
def test_what_texts_cost_needs_no_label_to_ask_for_a_retraining(values: list[float | None], expected: Answer) -> None:
    found = answer(texts(*values))
    assert found.answer is expected
    assert (Signal.SURPRISE in found.signals) is (expected is Answer.RETRAIN or len(values) == 2)


def test_what_texts_cost_is_evidence_by_itself() -> None:
    assert answer(texts(*[0.2] * 6, share=None)).answer is Answer.HOLD
    assert answer(texts(*[None] * 6, share=None)).answer is Answer.UNKNOWN


def test_texts_that_went_missing_silence_what_the_rest_cost() -> None:
    history = texts(*[0.2] * 4, 5.0, 5.0)
    history[-1] = dataclasses.replace(history[-1], faults=("texts are empty",))
    assert answer(history).answer is Answer.ALERT
    later = texts(*[0.2] * 4, 5.0, 5.0)
    later[-2] = dataclasses.replace(later[-2], faults=("texts are empty",))
    assert answer(later).answer is Answer.HOLD


def test_hysteresis_and_reasons_hold_for_what_texts_cost_too() -> None:
    sticky = POLICY.model_copy(update={"clear_at": 0.8})
    found = answer(texts(*[0.2] * 4, 1.4, 0.9), policy=sticky)
    assert found.answer is Answer.RETRAIN
    assert all(part in found.reasons[0] for part in ("held-out", "1.400", "0.900", "2 of 3"))


def test_lost_input_is_an_alert_however_loud() -> None:
    history = windows([LOUD] * 6)
    history[-1] = dataclasses.replace(history[-1], faults=("weather feed is gone",))
    found = answer(history)
    assert found.answer is Answer.ALERT
    assert found.reasons[0] == "weather feed is gone"


def test_a_window_with_lost_input_does_not_count_later_either() -> None:
    history = windows([QUIET] * 4 + [LOUD, LOUD])
    history[-2] = dataclasses.replace(history[-2], faults=("outage",))
    assert answer(history).answer is Answer.HOLD


def test_no_champion_is_unknown() -> None:
    history = [Window(batch_id=batch_id(i), drift_share=LOUD) for i in range(6)]
    assert answer(history).answer is Answer.UNKNOWN


def test_windows_of_another_model_do_not_count() -> None:
    history = [*windows([LOUD] * 5, model=OTHER), Window(batch_id=batch_id(5), model_digest=MODEL, drift_share=LOUD)]
    assert answer(history, policy=POLICY.model_copy(update={"cooldown_batches": 0})).answer is Answer.HOLD


def test_a_champion_promoted_by_hand_gets_its_time() -> None:
    young = windows([LOUD] * 3, model=OTHER) + windows([LOUD] * 6)[3:]
    found = answer(young)
    assert found.answer is Answer.HOLD
    assert found.signals == (Signal.DRIFT,)
    assert "watched for 3 batches" in found.reasons[0]
    assert answer(windows([LOUD] * 2, model=OTHER) + windows([LOUD] * 6)[2:]).answer is Answer.RETRAIN


@pytest.mark.parametrize(("decided", "expected"), [(2, Answer.HOLD), (1, Answer.RETRAIN)], ids=["3 ago", "4 ago"])
def test_a_rejected_retraining_waits_the_whole_cool_down(decided: int, expected: Answer) -> None:
    # The champion did not change, so only the decision itself can hold the next one back.
    assert answer(windows([LOUD] * 6)[:6], past(decided)).answer is expected


def test_a_spent_budget_is_an_alert_and_comes_back_after_a_year() -> None:
    history = windows([LOUD] * 60)
    assert answer(history, past(10, 30)).answer is Answer.ALERT
    assert answer(history, past(3, 30)).answer is Answer.RETRAIN


def test_later_decisions_do_not_change_an_earlier_batch() -> None:
    history = windows([LOUD] * 6)
    assert answer(history, past(5, 6, 9)) == answer(history)


def test_an_unmeasured_batch_in_between_counts_as_time_not_as_evidence() -> None:
    history = windows([LOUD] * 6)
    history[-2] = Window(batch_id=batch_id(4))
    assert answer(history).answer is Answer.RETRAIN
    history[-3] = Window(batch_id=batch_id(3))
    assert answer(history).answer is Answer.HOLD


def test_reasons_name_signal_values_and_rule() -> None:
    (reason,) = answer(windows([QUIET] * 4 + [0.61, 0.72])).reasons
    assert all(part in reason for part in ("0.5", "0.610", "0.720", batch_id(5), "2 of 3"))


def test_the_digest_follows_model_windows_and_signals_only() -> None:
    base = answer(windows([QUIET] * 4 + [0.6, 0.7]))
    same = answer(windows([0.1] * 4 + [0.9, 0.8]))
    assert base.evidence_digest == same.evidence_digest
    others = [
        answer(windows([QUIET] * 4 + [0.6, 0.7], model=OTHER)),
        answer(windows([QUIET] * 3 + [0.6, 0.6, 0.7])),
        answer(windows([QUIET] * 4 + [0.6, 0.7], gaps=[None] * 4 + [0.06, 0.06])),
        answer(windows([QUIET] * 5 + [0.6, 0.7])),
    ]
    assert len({base.evidence_digest, *(o.evidence_digest for o in others)}) == 5


def newest(**changes: object) -> list[Window]:
    history = windows([QUIET] * 6)
    history[-1] = dataclasses.replace(history[-1], **changes)  # type: ignore[arg-type]
    return history


def test_quiet_inputs_without_labels_are_unknown_not_fine() -> None:
    assert answer(newest(num_unlabelled=2)).answer is Answer.HOLD
    found = answer(newest(num_unlabelled=3))
    assert found.answer is Answer.UNKNOWN
    assert "whether its scores are right cannot be said" in found.reasons[0]


def test_labels_that_stop_are_an_alert() -> None:
    found = answer(newest(num_unlabelled=3, had_labels=True))
    assert found.answer is Answer.ALERT
    assert "look at the source of the labels" in found.reasons[0]


def test_drift_retrains_with_or_without_labels() -> None:
    history = windows([QUIET] * 4 + [LOUD, LOUD])
    history[-1] = dataclasses.replace(history[-1], num_unlabelled=9, had_labels=True)
    assert answer(history).answer is Answer.RETRAIN


def test_a_jump_is_held_for_a_person_however_loud() -> None:
    history = windows([LOUD] * 6, gaps=[0.2] * 6)
    history[-1] = dataclasses.replace(history[-1], sudden=("distance",))
    found = answer(history)
    assert found.answer is Answer.ALERT
    assert found.reasons[0].startswith("held for a person")
    assert "distance" in found.reasons[0]


@pytest.mark.parametrize(
    ("shares", "clear_at", "expected"),
    [
        ([QUIET] * 4 + [0.52, 0.48], 1.0, Answer.HOLD),
        ([QUIET] * 4 + [0.52, 0.48], 0.8, Answer.RETRAIN),
        ([QUIET] * 4 + [0.48, 0.52], 0.8, Answer.HOLD),
        ([QUIET] * 4 + [0.52, 0.40], 0.8, Answer.HOLD),
        ([QUIET] * 3 + [0.52, None, 0.48], 0.8, Answer.RETRAIN),
    ],
    ids=["no hysteresis", "goes on", "does not begin", "cleared", "a gap neither clears nor counts"],
)
def test_hysteresis(shares: list[float | None], clear_at: float, expected: Answer) -> None:
    assert answer(windows(shares), policy=POLICY.model_copy(update={"clear_at": clear_at})).answer is expected


@pytest.mark.parametrize(
    ("triggers", "facts", "expected"),
    [
        ([["time"]], {"num_batches": 13}, Answer.RETRAIN),
        ([["time"]], {"num_batches": 12}, Answer.HOLD),
        ([["volume"]], {"num_new_rows": 100_000}, Answer.RETRAIN),
        ([["time", "volume"]], {"num_batches": 13, "num_new_rows": 99_999}, Answer.HOLD),
        ([["time", "volume"], ["drift"]], {"num_batches": 13, "num_new_rows": 100_000}, Answer.RETRAIN),
        ([["drift"]], {"num_batches": 99, "num_new_rows": 10**6}, Answer.HOLD),
        ([], {"num_batches": 99, "drift_share": LOUD}, Answer.HOLD),
        ([["time"]], {"num_batches": 13, "drift_share": None}, Answer.UNKNOWN),
        ([["time"]], {"num_batches": 13, "faults": ("lost",)}, Answer.ALERT),
    ],
    ids=["time", "too soon", "volume", "one of two", "both of two", "not asked", "by hand only", "no data", "fault"],
)
def test_triggers_are_chosen_and_combined(
    triggers: list[list[str]], facts: dict[str, object], expected: Answer
) -> None:
    policy = Monitor(triggers=triggers, every_batches=13, new_rows=100_000)  # type: ignore[arg-type]
    assert answer(newest(**facts), policy=policy).answer is expected


def test_a_month_has_a_budget_of_its_own() -> None:
    policy = POLICY.model_copy(update={"cooldown_batches": 0, "max_retrains": 12, "max_retrains_monthly": 2})
    history = windows([LOUD] * 10)
    spent = answer(history, past(6, 8), policy)
    assert spent.answer is Answer.ALERT
    assert "2 retrainings within 30 days, at most 2 allowed" in spent.reasons[0]
    assert answer(history, past(1, 8), policy).answer is Answer.RETRAIN


def test_no_windows_are_refused() -> None:
    with pytest.raises(ValueError, match="newest window"):
        decide([], [], POLICY, product="flights", as_of=as_of(0))


NUMBERS = st.one_of(st.none(), st.floats(0, 1), st.just(math.nan), st.just(math.inf))
STEPS = st.lists(
    st.tuples(NUMBERS, NUMBERS, st.sampled_from([MODEL, OTHER, None]), st.booleans()), min_size=1, max_size=40
)
POLICIES = st.builds(
    lambda k, extra, wait, budget, clear_at: Monitor(
        persistence=(k, k + extra),
        cooldown_batches=wait,
        max_retrains=budget,
        share_over_limit=0.5,
        clear_at=clear_at,
    ),
    st.integers(1, 4),
    st.integers(0, 3),
    st.integers(0, 6),
    st.integers(0, 5),
    st.sampled_from([1.0, 0.8]),
)
Steps = list[tuple[float | None, float | None, str | None, bool]]


def replay(steps: Steps, policy: Monitor) -> list[tuple[int, Decision]]:
    """Walk through a random history the way the stage does: decisions are remembered, windows are looked back at."""
    history: list[Window] = []
    decided: list[PastDecision] = []
    found = []
    span = look_back(policy)
    for i, (share, gap, model, is_lost) in enumerate(steps):
        history.append(
            Window(
                batch_id=batch_id(i),
                model_digest=model,
                drift_share=share,
                calibration_gap=gap,
                faults=("lost",) if is_lost else (),
            )
        )
        decision = decide(history[-span:], decided, policy, product="p", as_of=as_of(i))
        if decision.answer is Answer.RETRAIN:
            found.append((i, decision))
            decided.append(PastDecision(evidence_digest=decision.evidence_digest, batch_id=batch_id(i), as_of=as_of(i)))
    return found


@given(STEPS, POLICIES)
def test_never_two_decisions_within_the_cool_down(steps: Steps, policy: Monitor) -> None:
    at = [i for i, _ in replay(steps, policy)]
    assert all(later - earlier >= policy.cooldown_batches for earlier, later in itertools.pairwise(at))


@given(STEPS, POLICIES)
def test_never_more_decisions_than_the_budget(steps: Steps, policy: Monitor) -> None:
    assert len(replay(steps, policy)) <= policy.max_retrains


@given(STEPS, POLICIES, st.integers(0, 3))
def test_never_more_decisions_in_a_month_than_its_budget(steps: Steps, policy: Monitor, allowed: int) -> None:
    tight = policy.model_copy(update={"cooldown_batches": 0, "max_retrains": 99, "max_retrains_monthly": allowed})
    at = [i for i, _ in replay(steps, tight)]
    assert all(sum(i - 4 <= earlier <= i for earlier in at) <= allowed for i in at)


@given(STEPS, POLICIES)
def test_two_decisions_never_share_a_digest(steps: Steps, policy: Monitor) -> None:
    digests = [d.evidence_digest for _, d in replay(steps, policy)]
    assert len(set(digests)) == len(digests)


@given(STEPS, POLICIES)
def test_a_decision_needs_numbers_in_its_newest_window(steps: Steps, policy: Monitor) -> None:
    for i, decision in replay(steps, policy):
        share, gap, model, is_lost = steps[i]
        newest = Window(batch_id=batch_id(i), model_digest=model, drift_share=share, calibration_gap=gap)
        assert not is_lost
        assert model is not None
        assert decision.signals
        assert all(speaks(newest, s, policy, is_on=True) for s in decision.signals)


@given(st.lists(st.sampled_from([None, math.nan]), min_size=1, max_size=20), POLICIES)
def test_no_data_never_retrains(values: list[float | None], policy: Monitor) -> None:
    history = windows(values, gaps=values)
    assert answer(history, policy=policy).answer is not Answer.RETRAIN


@given(STEPS, POLICIES)
def test_asking_for_more_windows_never_retrains_sooner(steps: Steps, policy: Monitor) -> None:
    k, n = policy.persistence
    if k == n:
        return
    stricter = policy.model_copy(update={"persistence": (k + 1, n)})
    first, later = replay(steps, policy), replay(steps, stricter)
    assert not later or first[0][0] <= later[0][0]


@given(STEPS, POLICIES)
def test_one_window_decides_the_same_for_any_longer_look_back(steps: Steps, policy: Monitor) -> None:
    """The stage reads only as many summaries as the rule needs; more of them change nothing."""
    span = look_back(policy)
    history = [
        Window(batch_id=batch_id(i), model_digest=m, drift_share=s, calibration_gap=g, faults=("x",) if lost else ())
        for i, (s, g, m, lost) in enumerate(steps)
    ]
    short, whole = (decide(h, [], policy, product="p", as_of=as_of(len(steps))) for h in (history[-span:], history))
    assert (short.answer, short.signals, short.evidence_digest) == (whole.answer, whole.signals, whole.evidence_digest)
