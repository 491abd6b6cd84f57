"""Looks over streams: what is counted, what is refused, what is concluded, and that the state is all that matters."""

import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clearway.contracts.codec import from_jsonable, to_jsonable
from clearway.contracts.errors import ConfigError
from clearway.contracts.observed import ArmCounts, Observed
from clearway.contracts.verdict import Judgement, Verdict
from clearway.evidence.curve import MAX_CURVE
from clearway.evidence.engine import Kind, Metric, Rules, State, begin_step, look

C, S = "candidate", "stable"
ERRORS = Metric(kind=Kind.ERRORS, margin=0.02)
RULES = Rules(alpha=0.01, beta=0.05, num_steps=4, metrics=(ERRORS,))


def arm(num: int, errors: int = 0, slow: int = 0, score: float = 0.3) -> ArmCounts:
    return ArmCounts(
        num_requests=num,
        num_errors=errors,
        latencies=(num - slow, 0, slow),
        num_scores=num,
        score_sum=num * score,
        score_square_sum=num * (score**2 + 0.01),
    )


def seen(at_s: float, candidate: ArmCounts, stable: ArmCounts, **changes) -> Observed:
    found = Observed(server_id="one", at_s=at_s, epoch=3, latency_bounds_s=(0.01, 0.1), arms={C: candidate, S: stable})
    return dataclasses.replace(found, **changes)


def looked(state: State, observed: Observed, rules: Rules = RULES, *, min_requests: int = 10, now_s: float = 0.0):
    found = look(
        rules, state, observed, candidate=C, control=S, epoch=3, now_s=now_s or observed.at_s, weight_pct=10,
        min_requests=min_requests,
    )  # fmt: skip
    return found.state, found.judgement


def started(rules: Rules = RULES) -> State:
    return looked(State(), seen(1.0, arm(0), arm(0)), rules)[0]


def reasons(judgement: Judgement) -> str:
    return " ".join(check.reason for check in judgement.checks)


def test_calm_passes_only_with_evidence_and_traffic() -> None:
    state, judgement = looked(started(), seen(2.0, arm(50), arm(500)))
    assert judgement.verdict is Verdict.INCONCLUSIVE
    state, judgement = looked(state, seen(3.0, arm(600), arm(6_000)))
    assert judgement.verdict is Verdict.PASS
    assert looked(state, seen(4.0, arm(601), arm(6_010)), min_requests=700)[1].verdict is Verdict.INCONCLUSIVE


def test_harm_fails_and_says_what_was_seen() -> None:
    _, judgement = looked(started(), seen(2.0, arm(100, 40), arm(900, 9)))
    assert judgement.verdict is Verdict.FAIL
    assert "candidate 40.00% of 100, control 1.00% of 900" in reasons(judgement)


def test_what_hits_both_versions_is_nobodys_fault() -> None:
    assert looked(started(), seen(2.0, arm(100, 60), arm(900, 540)))[1].verdict is Verdict.INCONCLUSIVE


def test_slow_answers_count_above_the_bound() -> None:
    rules = dataclasses.replace(RULES, metrics=(Metric(kind=Kind.SLOW, margin=0.05, above_s=0.1),))
    assert looked(started(rules), seen(2.0, arm(100, slow=50), arm(900)), rules)[1].verdict is Verdict.FAIL
    calm = seen(2.0, arm(500), arm(900))
    assert looked(started(rules), calm, rules)[1].verdict is Verdict.PASS


@pytest.mark.parametrize("bounds_s", [(0.01, 0.1), ()], ids=["bounds end too early", "no bounds"])
def test_a_histogram_that_cannot_tell_slow_answers_clears_nobody(bounds_s: tuple[float, ...]) -> None:
    rules = dataclasses.replace(RULES, metrics=(Metric(kind=Kind.SLOW, margin=0.05, above_s=9.0),))

    def counted(num: int, *, slow: int = 0) -> ArmCounts:
        return dataclasses.replace(arm(num), latencies=(num - slow, 0, slow)[-len(bounds_s) - 1 :])

    state, _ = looked(State(), seen(1.0, counted(0), counted(0), latency_bounds_s=bounds_s), rules)
    later = seen(2.0, counted(900, slow=900), counted(900, slow=900), latency_bounds_s=bounds_s)
    _, judgement = looked(state, later, rules)
    assert judgement.verdict is Verdict.INCONCLUSIVE
    assert "9 s" in reasons(judgement)


def test_a_server_whose_histogram_ends_early_takes_no_credit_from_the_one_before() -> None:
    rules = dataclasses.replace(RULES, metrics=(Metric(kind=Kind.SLOW, margin=0.05, above_s=0.1),))
    state, judgement = looked(started(rules), seen(2.0, arm(900), arm(900)), rules)
    assert judgement.verdict is Verdict.PASS
    blind = dataclasses.replace(arm(0), latencies=(0, 0))
    state, _ = looked(state, seen(3.0, blind, blind, server_id="two", latency_bounds_s=(0.01,)), rules)
    blind = dataclasses.replace(arm(900), latencies=(0, 900))
    late = seen(4.0, blind, blind, server_id="two", latency_bounds_s=(0.01,))
    assert looked(state, late, rules)[1].verdict is Verdict.INCONCLUSIVE


@pytest.mark.parametrize(("score", "verdict"), [(0.3, Verdict.PASS), (0.36, Verdict.INCONCLUSIVE), (0.5, Verdict.FAIL)])
def test_shifted_scores(score: float, verdict: Verdict) -> None:
    rules = dataclasses.replace(RULES, metrics=(Metric(kind=Kind.SCORE, margin=0.05),))
    num = 1_000 if score != 0.36 else 200
    assert looked(started(rules), seen(2.0, arm(num, score=score), arm(num)), rules)[1].verdict is verdict


@pytest.mark.parametrize(
    ("margin", "good", "verdict"),
    [(0.0, 900, Verdict.PASS), (0.0, 610, Verdict.INCONCLUSIVE), (0.1, 610, Verdict.PASS), (0.1, 300, Verdict.FAIL)],
)
def test_outcomes_decide_by_how_much_good_came_of_the_answers(margin: float, good: int, verdict: Verdict) -> None:
    """600 of 2,000 answers of the control were for the good; of the candidate `good` of 2,000."""
    rules = dataclasses.replace(RULES, metrics=(Metric(kind=Kind.OUTCOME, margin=margin),))
    candidate, control = (
        dataclasses.replace(arm(2_000), num_outcomes=2_000, outcome_sum=float(num), outcome_square_sum=float(num))
        for num in (good, 600)
    )
    assert looked(started(rules), seen(2.0, candidate, control), rules)[1].verdict is verdict


def test_outcomes_that_nobody_reported_decide_nothing() -> None:
    rules = dataclasses.replace(RULES, metrics=(Metric(kind=Kind.OUTCOME, margin=0.1),))
    _, judgement = looked(started(rules), seen(2.0, arm(2_000), arm(2_000)), rules)
    assert judgement.verdict is Verdict.INCONCLUSIVE
    assert "too few outcomes" in reasons(judgement)


def test_scores_of_the_hour_are_nobodys_fault_when_the_share_rises() -> None:
    """Scores rise from 0.2 to 0.4 for everybody while the share rises from 10 % to 50 %; pooled over both shares the
    candidate's mean would be 0.37, the control's 0.27."""
    rules = dataclasses.replace(RULES, metrics=(Metric(kind=Kind.SCORE, margin=0.05),), num_steps=2)
    state, _ = looked(started(rules), seen(2.0, arm(1_000, score=0.2), arm(9_000, score=0.2)), rules)
    state, _ = looked(begin_step(state, step=1), seen(3.0, arm(1_000, score=0.2), arm(9_000, score=0.2)), rules)
    total = {
        num: dataclasses.replace(
            arm(num + 5_000),
            score_sum=num * 0.2 + 5_000 * 0.4,
            score_square_sum=num * (0.2**2 + 0.01) + 5_000 * (0.4**2 + 0.01),
        )
        for num in (1_000, 9_000)
    }
    state, judgement = looked(state, seen(4.0, total[1_000], total[9_000]), rules)
    assert judgement.verdict is Verdict.PASS
    assert state.curve[-1].estimate == pytest.approx(0.0)


@pytest.mark.parametrize(
    ("metric", "worse"),
    [(ERRORS, {"errors": 5}), (Metric(kind=Kind.SCORE, margin=0.05), {"score": 0.36})],
    ids=["errors", "score"],
)
def test_what_was_harmless_at_the_first_share_must_be_so_at_the_next(metric: Metric, worse: dict[str, float]) -> None:
    """2.5 % errors (margin 2 %), or scores 0.06 higher (margin 0.05), from the second share on."""
    rules = dataclasses.replace(RULES, metrics=(metric,))
    state, judgement = looked(started(rules), seen(2.0, arm(2_000), arm(6_000)), rules)
    assert judgement.verdict is Verdict.PASS
    state, _ = looked(begin_step(state, step=1), seen(3.0, arm(2_000), arm(6_000)), rules)
    late = arm(200, **worse)
    spoiled = ArmCounts(
        num_requests=2_200,
        num_errors=late.num_errors,
        latencies=(2_200, 0, 0),
        num_scores=2_200,
        score_sum=600.0 + late.score_sum,
        score_square_sum=arm(2_000).score_square_sum + late.score_square_sum,
    )
    _, judgement = looked(state, seen(4.0, spoiled, arm(6_200)), rules)
    assert judgement.verdict is Verdict.INCONCLUSIVE


def test_a_candidate_that_turns_bad_within_a_share_is_not_cleared_by_its_calm_beginning() -> None:
    state, judgement = looked(started(), seen(2.0, arm(600), arm(6_000)), min_requests=700)
    assert state.tallies[0].is_safe and judgement.verdict is Verdict.INCONCLUSIVE
    _, judgement = looked(state, seen(3.0, arm(780, 12), arm(6_180, 3)), min_requests=700)
    assert judgement.verdict is Verdict.INCONCLUSIVE


def test_squares_that_fall_clear_nobody_any_more() -> None:
    rules = dataclasses.replace(RULES, metrics=(Metric(kind=Kind.SCORE, margin=0.05),))
    state, _ = looked(started(rules), seen(2.0, arm(500), arm(500)), rules)
    fell = dataclasses.replace(arm(620), score_square_sum=arm(500).score_square_sum - 1.0)
    state, judgement = looked(state, seen(3.0, fell, arm(620)), rules)
    assert judgement.verdict is Verdict.INCONCLUSIVE
    assert "not trusted any more" in reasons(looked(state, seen(4.0, arm(9_000), arm(9_000)), rules)[1])


def test_healthy_scores_are_never_taken_for_nonsense() -> None:
    """Equal scores leave squares at their smallest, where rounding in long sums could look like a contradiction."""
    rules = dataclasses.replace(RULES, metrics=(Metric(kind=Kind.SCORE, margin=0.05),))
    score = 0.1 + 1 / 3
    num, total, squares = 3_000_000, 0.0, 0.0
    for _ in range(200_000):
        total, squares = total + score, squares + score * score
    total, squares = total * 15, squares * 15
    state = State()
    for i in range(50):
        for _ in range(7):
            num, total, squares = num + 1, total + score, squares + score * score
        same = dataclasses.replace(arm(num), score_sum=total, score_square_sum=squares)
        state, judgement = looked(state, seen(1.0 + i, same, same), rules)
        assert state.distrust == ""
        assert "reading" not in {check.name for check in judgement.checks}


def test_a_dry_run_is_reported_and_never_decides() -> None:
    dry = Metric(kind=Kind.SLOW, margin=0.01, above_s=0.1, is_decisive=False)
    rules = dataclasses.replace(RULES, metrics=(ERRORS, dry))
    _, judgement = looked(started(rules), seen(2.0, arm(900, slow=800), arm(900)), rules)
    assert judgement.verdict is Verdict.PASS
    assert [(c.name, c.verdict) for c in judgement.checks if not c.is_decisive] == [("slow", Verdict.FAIL)]


BROKEN = {
    "another epoch": {"epoch": 2},
    "too old": {"at_s": -100.0},
    "no time": {"at_s": float("nan")},
    "another server": {"server_id": "two"},
    "twice": {"at_s": 1.0},
    "out of order": {"at_s": 0.5},
    "NaN": {"arms": {C: dataclasses.replace(arm(900), score_sum=float("nan")), S: arm(900)}},
    "below zero": {"arms": {C: dataclasses.replace(arm(900), num_errors=-1), S: arm(900)}},
    "more errors than requests": {"arms": {C: arm(900, 901), S: arm(900)}},
    "more requests than answers": {"arms": {C: dataclasses.replace(arm(900), num_requests=901), S: arm(900)}},
    "bounds that are no numbers": {"latency_bounds_s": (float("nan"), 0.1)},
    "bounds that fall": {"latency_bounds_s": (0.1, 0.01)},
    "other bounds than before": {"latency_bounds_s": (0.01, 0.2)},
    "more bounds than before": {
        "latency_bounds_s": (0.01, 0.1, 1.0),
        "arms": {
            C: dataclasses.replace(arm(900), latencies=(900, 0, 0, 0)),
            S: dataclasses.replace(arm(900), latencies=(900, 0, 0, 0)),
        },
    },
    "fractions": {"arms": {C: dataclasses.replace(arm(900), num_requests=899.5), S: arm(900)}},
    "infinite": {"arms": {C: dataclasses.replace(arm(900), num_requests=float("inf")), S: arm(900)}},
    "squares too small": {"arms": {C: dataclasses.replace(arm(900), score_square_sum=0.0), S: arm(900)}},
    "squares below zero": {"arms": {C: dataclasses.replace(arm(900), score_square_sum=-1.0), S: arm(900)}},
    "scores of no rows": {"arms": {C: dataclasses.replace(arm(900), num_scores=0), S: arm(900)}},
    "other buckets": {"arms": {C: dataclasses.replace(arm(900), latencies=(900,)), S: arm(900)}},
    "no such version": {"arms": {"somebody": arm(900), S: arm(900)}},
    "no control": {"arms": {C: arm(900)}},
    "nothing at all": {"arms": {}},
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_reading_is_never_a_pass_and_never_counted(name: str) -> None:
    before = started()
    broken = dataclasses.replace(seen(2.0, arm(900), arm(900)), **BROKEN[name])
    after, judgement = looked(before, broken, now_s=2.0)
    assert judgement.verdict is Verdict.INCONCLUSIVE
    assert after.num_candidate == 0 or after.num_control == 0
    if name not in {"no such version", "no control", "nothing at all"}:
        assert after.tallies == before.tallies
        assert any(check.name == "reading" for check in judgement.checks)


def test_counters_that_fall_clear_nobody_any_more_but_can_still_convict() -> None:
    """Whoever counts backwards once may have counted anything; real errors are still errors."""
    state, _ = looked(started(), seen(2.0, arm(100), arm(100)))
    state, judgement = looked(state, seen(3.0, arm(50), arm(120)))
    assert "fell" in reasons(judgement)
    state, judgement = looked(state, seen(4.0, arm(6_000), arm(6_000)))
    assert judgement.verdict is Verdict.INCONCLUSIVE
    assert "not trusted any more" in reasons(judgement)
    assert looked(state, seen(5.0, arm(6_200, 100), arm(6_800)))[1].verdict is Verdict.FAIL


def test_callers_who_hang_up_clear_nobody_and_their_waiting_is_counted() -> None:
    rules = dataclasses.replace(RULES, metrics=(ERRORS, Metric(kind=Kind.SLOW, margin=0.05, above_s=0.1)))
    hung = dataclasses.replace(arm(400), latencies=(400, 0, 600))
    _, judgement = looked(started(rules), seen(2.0, hung, arm(9_000)), rules)
    assert judgement.verdict is Verdict.FAIL
    assert "most callers hung up" in reasons(judgement)
    calm = dataclasses.replace(arm(400), latencies=(1_000, 0, 0))
    state, judgement = looked(started(rules), seen(2.0, calm, arm(9_000)), rules)
    assert judgement.verdict is Verdict.INCONCLUSIVE
    more = dataclasses.replace(arm(2_400), latencies=(3_000, 0, 0))
    assert looked(state, seen(3.0, more, arm(19_000)), rules)[1].verdict is Verdict.INCONCLUSIVE


def test_a_restarted_server_counts_anew_and_is_trusted() -> None:
    state, _ = looked(started(), seen(2.0, arm(100), arm(100)))
    again = dataclasses.replace(seen(3.0, arm(5), arm(5)), server_id="two")
    state, judgement = looked(state, again)
    assert "began anew" in reasons(judgement)
    state, judgement = looked(state, dataclasses.replace(seen(4.0, arm(1_005), arm(1_005)), server_id="two"))
    assert (state.num_candidate, judgement.verdict) == (1_100, Verdict.PASS)


def test_a_new_step_counts_anew_and_keeps_what_is_known() -> None:
    state, _ = looked(started(), seen(2.0, arm(600), arm(6_000)))
    state = begin_step(state, step=1)
    state, judgement = looked(state, seen(3.0, arm(700), arm(7_000)))
    assert (judgement.verdict, state.num_candidate) == (Verdict.INCONCLUSIVE, 0)
    state, judgement = looked(state, seen(4.0, arm(720), arm(7_200)))
    assert (judgement.verdict, state.num_candidate) == (Verdict.INCONCLUSIVE, 20)
    state, judgement = looked(state, seen(5.0, arm(1_300), arm(13_000)))
    assert (judgement.verdict, state.num_candidate) == (Verdict.PASS, 600)


def test_harm_that_begins_late_is_not_drowned_in_earlier_calm() -> None:
    state, _ = looked(started(), seen(2.0, arm(20_000, 100), arm(20_000, 100)))
    state = begin_step(state, step=1)
    state, _ = looked(state, seen(3.0, arm(20_000, 100), arm(20_000, 100)))
    assert looked(state, seen(4.0, arm(20_100, 130), arm(20_900, 105)))[1].verdict is Verdict.FAIL


def test_rules_without_a_decision_or_with_nonsense_are_refused() -> None:
    for wrong in (
        {"metrics": (dataclasses.replace(ERRORS, is_decisive=False),)},
        {"metrics": ()},
        {"alpha": 0.0},
        {"beta": 1.0},
        {"metrics": (dataclasses.replace(ERRORS, margin=0.0),)},
    ):
        with pytest.raises(ConfigError):
            looked(State(), seen(1.0, arm(0), arm(0)), dataclasses.replace(RULES, **wrong))


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 5), st.integers(0, 40), st.integers(0, 5)), max_size=8))
def test_any_process_can_go_on_from_the_stored_state(steps: list[tuple[int, int, int, int]]) -> None:
    kept = stored = started()
    n = a = m = b = 0
    for at_s, (dn, da, dm, db) in enumerate(steps, start=2):
        n, a, m, b = n + dn, a + min(da, dn), m + dm, b + min(db, dm)
        observed = seen(float(at_s), arm(n, a), arm(m, b))
        kept, judgement = looked(kept, observed)
        stored = from_jsonable(State, json.loads(json.dumps(to_jsonable(stored), allow_nan=False)))
        stored, again = looked(stored, observed)
        assert (stored, again) == (kept, judgement)
        assert looked(kept, observed)[0].tallies == kept.tallies  # the same reading twice changes nothing


def test_the_curve_reaches_from_begin_to_end_and_stays_small() -> None:
    state = started()
    for i in range(3 * MAX_CURVE):
        state, _ = looked(state, seen(2.0 + i, arm(10 * i), arm(10 * i)))
    assert len(state.curve) <= MAX_CURVE + 1
    assert state.curve[0].at_s == 2.0
    assert state.curve[-1].at_s == 1.0 + 3 * MAX_CURVE


def streams(num_runs: int, *, rates: tuple[float, float], looks: int, seed: int, rules: Rules = RULES) -> list[Verdict]:
    """First FAIL or PASS of each run; candidate gets 200 requests a look, the control 1,800."""
    rng, found = np.random.default_rng(seed), []
    for _ in range(num_runs):
        errors = rng.binomial((200, 1_800), rates, (looks, 2)).cumsum(0).tolist()
        state, verdict = started(rules), Verdict.INCONCLUSIVE
        for i, (a, b) in enumerate(errors, start=1):
            state, judgement = looked(state, seen(1.0 + i, arm(200 * i, a), arm(1_800 * i, b)), rules)
            if judgement.verdict is not Verdict.INCONCLUSIVE:
                verdict = judgement.verdict
            if verdict is Verdict.FAIL:
                break
        found.append(verdict)
    return found


def test_harmless_candidates_are_hardly_ever_taken_back() -> None:
    """400 runs of 20 looks at alpha 1 %: at most 9 (99th percentile); the full count is in the benchmark."""
    rules = dataclasses.replace(RULES, num_steps=1)
    assert streams(400, rates=(0.01, 0.01), looks=20, seed=7, rules=rules).count(Verdict.FAIL) <= 9


def test_harmful_candidates_are_found() -> None:
    assert streams(40, rates=(0.03, 0.01), looks=20, seed=8) == [Verdict.FAIL] * 40


def test_a_candidate_at_the_margin_hardly_ever_passes() -> None:
    """200 runs at beta 5 %: at most 18 pass (99th percentile), if none of them is taken back before."""
    rules = dataclasses.replace(RULES, alpha=1e-9)
    assert streams(200, rates=(0.03, 0.01), looks=10, seed=9, rules=rules).count(Verdict.PASS) <= 18
