"""A canary over the real store, the real server core and real requests: it promotes, it goes back, it obeys people."""

import dataclasses
import json

import pytest

from clearway.contracts.errors import StaleWriter, Unavailable
from clearway.contracts.release_document import Outcome, Phase
from clearway.contracts.rollout import Order, OrderKind, StepKind
from clearway.contracts.verdict import Verdict
from clearway.deploy.orders import give_order
from clearway.deploy.reconcile import repair
from clearway.deploy.rollback import roll_back
from clearway.deploy.run import deploy
from clearway.deploy.spec import RollbackInputs
from clearway.deploy.strategies import begin
from rollout_kit import PLAN, SHADOWED, TESTED, WATCHED, Killed, Street, spoil
from serving_kit import PRODUCT, approved, controls_of, make_package


@pytest.fixture
def street(endpoint):
    return Street(endpoint)


@pytest.fixture
def controls(env, endpoint, street):
    return controls_of(env, endpoint, clock=street, lease_ttl_s=6.0)


@pytest.fixture
def document(controls):
    return lambda: controls.store.read(PRODUCT)[0]


@pytest.fixture
def release(env, controls):
    """Deploy a model as a canary."""

    def run(ref, release_id, **changes):
        settings = PLAN.model_copy(update=changes)
        inputs = approved(env, ref, release_id)
        return deploy(inputs, controls=controls, project=lambda _: None, rollout=begin(settings))

    return run


@pytest.fixture
def champion(env, release):
    """The first model, in service."""
    ref = make_package(env, 0.1)
    assert release(ref, "r1").verdict is Verdict.PASS
    return ref


@pytest.fixture
def candidate(env):
    return make_package(env, 0.2)


def ordered(kind):
    return Order(kind=kind, by="ada", reason="because", at_s=1.0)


def test_the_first_model_has_nobody_to_be_compared_with(release, champion, street, document):
    assert street.slept == 0
    assert document().champion.digest == champion.digest


def test_a_good_candidate_goes_up_step_by_step_and_takes_all(release, champion, candidate, street, document, endpoint):
    outputs = release(candidate, "r2")
    assert outputs.verdict is Verdict.PASS
    assert (document().champion.digest, document().previous.digest) == (candidate.digest, champion.digest)
    assert endpoint.state().weights_pct == {candidate.digest: 100.0}
    assert "no harm" in outputs.reason
    assert set(street.answered) == {champion.digest, candidate.digest}
    assert 0.1 < street.answered.count(candidate.digest) / len(street.answered) < 0.5


@pytest.mark.parametrize(
    "fault",
    [{"share_failing": 0.5}, {"share_failing": 0.5, "error": RuntimeError}, {"seconds": 0.06}],
    ids=["failing", "crashing", "slow"],
)
def test_a_bad_candidate_goes_back_by_itself(
    release, champion, candidate, street, document, controls, endpoint, monkeypatch, fault
):
    street.happenings[1] = lambda: spoil(street, monkeypatch, candidate.digest, **fault)
    outputs = release(candidate, "r2")
    assert outputs.verdict is Verdict.FAIL
    assert "harm shown" in outputs.reason
    assert endpoint.state().weights_pct == {champion.digest: 100.0}
    assert (document().champion.digest, document().phase) == (champion.digest, Phase.IDLE)
    assert document().history[-1].outcome is Outcome.ABORTED
    assert street.answered.count(candidate.digest) < 60
    record = json.loads(controls.storage.read(controls.layout.rollout_record("r2")))
    assert record["rollout"]["evidence"]["split"]["num_candidate"] > 0
    assert record["rollout"]["trail"][-1]["verdict"] == "fail"
    later = len(street.answered)
    street.sleep(1.0)
    assert set(street.answered[later:]) == {champion.digest}


def test_a_clock_that_is_set_back_costs_a_canary_one_step_of_waiting(release, champion, candidate, street, endpoint):
    endpoint.live_by(lambda: 1e9 + street.slept)  # the server's own clock is steady

    def set_back():
        street.at_s -= 3600.0

    street.happenings[2] = set_back
    assert release(candidate, "r2").verdict is Verdict.PASS
    assert street.slept < 30


def test_a_candidate_with_other_scores_is_found_once_scores_decide(release, champion, env, endpoint, street):
    shifted = make_package(env, 1.5)
    outputs = release(shifted, "r2", dry_run=("errors", "slow"), score_margin=0.1, min_requests=100)
    assert outputs.verdict is Verdict.FAIL
    assert "mean score" in outputs.reason
    assert endpoint.state().weights_pct == {champion.digest: 100.0}


def test_without_traffic_it_waits_then_asks_then_goes_back(release, champion, candidate, street, document, endpoint):
    seen = []
    street.per_s = 0
    for number in (30, 70):
        street.happenings[number] = lambda: seen.append(document().rollout.waits_for)
    outputs = release(candidate, "r2")
    assert outputs.verdict is Verdict.FAIL
    assert "nobody decided" in outputs.reason
    assert ["too little traffic" in text for text in seen] == [True, True]
    assert [text.startswith("a person") for text in seen] == [False, True]
    assert "synthetic requests were answered rightly" in seen[1]
    assert endpoint.state().weights_pct == {champion.digest: 100.0}


def test_without_traffic_a_candidate_that_lost_its_answers_meanwhile_never_waits_for_a_person(
    release, champion, candidate, street, document, endpoint, monkeypatch
):
    street.per_s = 0
    street.happenings[30] = lambda: spoil(street, monkeypatch, candidate.digest, share_failing=1.0)
    outputs = release(candidate, "r2")
    assert outputs.verdict is Verdict.FAIL
    assert outputs.reason.startswith("aborted: golden")
    assert street.slept < 65


def test_a_person_can_promote_without_evidence_and_it_is_on_record(
    release, champion, candidate, street, document, controls
):
    street.per_s = 0
    street.happenings[5] = lambda: give_order(controls.store, PRODUCT, ordered(OrderKind.PROMOTE), release_id="r2")
    outputs = release(candidate, "r2")
    assert outputs.verdict is Verdict.PASS
    assert "promote ordered by ada: because" in document().history[-1].reason
    assert street.slept == 5


def test_a_person_can_abort(release, champion, candidate, street, document, controls, endpoint):
    street.happenings[2] = lambda: give_order(controls.store, PRODUCT, ordered(OrderKind.ABORT))
    outputs = release(candidate, "r2")
    assert (outputs.verdict, document().champion.digest) == (Verdict.FAIL, champion.digest)
    assert "abort ordered by ada" in outputs.reason
    assert endpoint.state().weights_pct == {champion.digest: 100.0}


def test_an_abort_during_the_last_probe_is_obeyed(
    release, champion, candidate, document, controls, endpoint, monkeypatch
):
    def probed(name):
        if name == "deploy.after_probe" and document().phase is Phase.DEPLOYING and not given:
            given.append(give_order(controls.store, PRODUCT, ordered(OrderKind.ABORT)))

    given = []
    monkeypatch.setattr("clearway.deploy.drive.fault", probed)
    assert release(candidate, "r2").verdict is Verdict.FAIL
    assert given
    assert endpoint.state().weights_pct == {champion.digest: 100.0}


def test_pause_holds_the_share_until_resume(release, champion, candidate, street, document, controls, endpoint):
    shares, rate_per_s = [], street.per_s
    longer_than_anybody_is_waited_for = int(PLAN.max_step_s + PLAN.hold_s) + 5

    def pause():
        give_order(controls.store, PRODUCT, ordered(OrderKind.PAUSE))
        street.per_s = 1  # some traffic goes on; the rest of it would only take time

    def resume():
        shares.append(endpoint.state().weights_pct[candidate.digest])
        street.per_s = rate_per_s
        give_order(controls.store, PRODUCT, ordered(OrderKind.RESUME))

    street.happenings[2] = pause
    street.happenings[longer_than_anybody_is_waited_for] = resume
    assert release(candidate, "r2").verdict is Verdict.PASS
    assert shares == [10.0]


def test_an_order_for_another_release_or_for_none_is_refused(release, champion, candidate, street, controls):
    with pytest.raises(StaleWriter, match=r"no rollout of .* is under way, so there is nothing to promote"):
        give_order(controls.store, PRODUCT, ordered(OrderKind.PROMOTE))
    refused = []

    def order_another():
        with pytest.raises(StaleWriter) as error:
            give_order(controls.store, PRODUCT, ordered(OrderKind.ABORT), release_id="r9")
        refused.append(error)

    street.happenings[1] = order_another
    assert release(candidate, "r2").verdict is Verdict.PASS
    assert len(refused) == 1


def test_a_rollback_order_ends_a_canary_at_once(release, champion, candidate, street, controls, document, endpoint):
    inputs = RollbackInputs(product=PRODUCT, release_id="back-1", reason="looks bad")
    street.happenings[3] = lambda: roll_back(inputs, controls=controls)
    outputs = release(candidate, "r2")
    assert outputs.verdict is Verdict.FAIL
    assert document().champion.digest == champion.digest
    assert endpoint.state().weights_pct == {champion.digest: 100.0}


def test_an_abandoned_canary_is_taken_back_by_the_reconciler(
    release, champion, candidate, street, document, controls, endpoint, monkeypatch
):
    def kill(name):
        if name == "deploy.before_wait":
            raise Killed

    monkeypatch.setattr("clearway.deploy.drive.fault", kill)
    with pytest.raises(Killed):
        release(candidate, "r2")
    monkeypatch.undo()
    assert endpoint.state().weights_pct[candidate.digest] == 10.0
    repair(PRODUCT, controls=controls, read_alias=lambda: champion.digest, project=lambda _: None)
    assert document().phase is Phase.DEPLOYING  # its driver may still come back
    street.at_s += 10.0
    repair(PRODUCT, controls=controls, read_alias=lambda: champion.digest, project=lambda _: None)
    assert (document().phase, document().champion.digest) == (Phase.IDLE, champion.digest)
    assert endpoint.state().weights_pct == {champion.digest: 100.0}
    assert "abandoned at 10 %" in document().history[-1].reason


def test_a_changed_plan_moves_no_rollout_that_is_under_way(release, champion, candidate, street, document, monkeypatch):
    def kill(name):
        if name == "deploy.before_wait":
            raise Killed

    monkeypatch.setattr("clearway.deploy.drive.fault", kill)
    with pytest.raises(Killed):
        release(candidate, "r2")
    monkeypatch.undo()
    plan = document().rollout.plan
    street.happenings[street.slept + 2] = lambda: plans.append(document().rollout.plan)
    plans = []
    assert release(candidate, "r2", steps_pct=(1.0, 100.0)).verdict is Verdict.PASS
    assert plans == [plan]


def test_an_endpoint_that_does_not_answer_leaves_the_canary_for_a_retry(
    release, champion, candidate, street, document, controls, endpoint, monkeypatch
):
    def gone(**_):
        raise Unavailable("planted")

    street.happenings[2] = lambda: monkeypatch.setattr(endpoint, "observe", gone)
    with pytest.raises(Unavailable):
        release(candidate, "r2")
    assert document().phase is Phase.DEPLOYING
    monkeypatch.undo()
    repair(PRODUCT, controls=controls, read_alias=lambda: champion.digest, project=lambda _: None)
    assert document().phase is Phase.DEPLOYING  # nobody gives it up before its retry could come
    assert release(candidate, "r2").verdict is Verdict.PASS


def test_a_share_that_the_dead_man_took_begins_anew(release, champion, candidate, street, document, endpoint):
    """Between the loss and its return all callers were the champion's: no look may span that."""
    seen = []

    def take_it():
        seen.append(document().rollout)
        endpoint.set_weights({champion.digest: 100.0}, epoch=document().epoch)

    street.happenings[1] = take_it
    street.happenings[2] = lambda: seen.append(document().rollout)
    assert release(candidate, "r2").verdict is Verdict.PASS
    before, after = seen
    assert after.index == before.index == 0
    assert after.entered_s > before.entered_s
    assert after.evidence["split"]["baseline"]["at_s"] >= after.entered_s


def test_a_rollout_whose_evidence_cannot_be_read_is_given_up(release, champion, candidate, street, document, controls):
    def garble():
        found, version = controls.store.read(PRODUCT)
        garbled = dataclasses.replace(found.rollout, evidence={"split": {"step": "first"}})
        controls.store.swap(dataclasses.replace(found, rollout=garbled, lease=None), expected_version=version)
        raise Killed

    street.happenings[2] = garble
    with pytest.raises(Killed):
        release(candidate, "r2")
    outputs = release(candidate, "r2")
    assert outputs.verdict is Verdict.FAIL
    assert "another version of Clearway began this rollout" in outputs.reason
    assert document().champion.digest == champion.digest


def test_a_watched_candidate_has_all_callers_before_it_is_promoted(
    release, champion, candidate, street, document, endpoint
):
    seen = []

    def look():
        if endpoint.state().weights_pct == {candidate.digest: 100.0}:
            seen.append(document())

    street.happenings.update(dict.fromkeys(range(1, 60), look))
    outputs = release(candidate, "r2", **WATCHED)
    assert outputs.verdict is Verdict.PASS
    assert len(seen) >= 5
    assert {found.champion.digest for found in seen} == {champion.digest}
    assert document().champion.digest == candidate.digest
    assert "within its limit" in outputs.reason
    assert endpoint.server.versions.serving.dead_man is None, "it would take the traffic from the new champion"


def test_a_candidate_that_fails_under_full_load_goes_back_by_itself(
    release, champion, candidate, street, document, endpoint, monkeypatch
):
    def spoil_at_full_load():
        if endpoint.state().weights_pct == {candidate.digest: 100.0} and not spoiled:
            spoiled.append(street.slept)
            spoil(street, monkeypatch, candidate.digest, share_failing=0.2)

    spoiled = []
    street.happenings.update(dict.fromkeys(range(1, 60), spoil_at_full_load))
    outputs = release(candidate, "r2", **WATCHED)
    assert spoiled
    assert outputs.verdict is Verdict.FAIL
    assert "limit exceeded" in outputs.reason
    assert street.slept - spoiled[0] <= 3
    assert set(street.answered) == {champion.digest, candidate.digest}, "the champion answers where the candidate fails"
    counts = endpoint.observe(epoch=document().epoch).arms
    assert counts[candidate.digest].num_errors > 0
    assert counts[champion.digest].num_errors == 0
    assert endpoint.state().weights_pct == {champion.digest: 100.0}
    assert document().champion.digest == champion.digest


def test_a_watch_without_its_driver_gives_the_traffic_back(release, champion, candidate, street, endpoint, monkeypatch):
    def vanish():
        if endpoint.state().weights_pct == {candidate.digest: 100.0}:
            raise Killed

    street.happenings.update(dict.fromkeys(range(1, 60), vanish))
    with pytest.raises(Killed):
        release(candidate, "r2", **WATCHED)
    armed = endpoint.server.versions.serving.dead_man
    assert armed is not None and armed.stable == champion.digest


def test_a_shadowed_candidate_meets_callers_only_after_its_scores_agree(
    release, champion, candidate, street, document, endpoint
):
    unheard = []

    def look():
        if document().rollout and document().rollout.step.kind is StepKind.MIRROR:
            unheard.append((endpoint.state().mirror, set(street.answered)))

    street.happenings.update(dict.fromkeys(range(1, 60), look))
    outputs = release(candidate, "r2", **SHADOWED)
    assert outputs.verdict is Verdict.PASS, outputs.reason
    assert len(unheard) >= 2
    assert {digest for digest, _ in unheard} == {candidate.digest}
    assert set.union(*(answered for _, answered in unheard)) == {champion.digest}
    assert endpoint.state().mirror is None


@pytest.mark.parametrize(
    ("bias", "fault", "says"),
    [(1.5, {}, "all rows: harm shown"), (0.2, {"share_failing": 0.5}, "all rows: harm shown")],
    ids=["other scores", "failing"],
)
def test_a_bad_candidate_is_found_before_any_caller_meets_it(
    release, champion, env, street, document, endpoint, monkeypatch, bias, fault, says
):
    bad = make_package(env, bias)
    if fault:
        street.happenings[1] = lambda: spoil(street, monkeypatch, bad.digest, **fault)
    outputs = release(bad, "r2", **SHADOWED)
    assert outputs.verdict is Verdict.FAIL
    assert says in outputs.reason
    assert set(street.answered) == {champion.digest}
    assert (endpoint.state().mirror, endpoint.state().weights_pct) == (None, {champion.digest: 100.0})


def test_a_mirror_without_traffic_waits_and_asks_like_every_step(release, champion, candidate, street, document):
    seen = []
    street.per_s = 0
    street.happenings[30] = lambda: seen.append(document().rollout.waits_for)
    outputs = release(candidate, "r2", **SHADOWED)
    assert outputs.verdict is Verdict.FAIL
    assert "nobody decided" in outputs.reason
    assert "too few rows: 0" in seen[0]


def test_an_a_b_test_is_decided_by_outcomes_at_its_horizon(release, champion, candidate, street, document, endpoint):
    street.outcomes = {champion.digest: 0.3, candidate.digest: 0.6}
    outputs = release(candidate, "r2", **TESTED)
    assert outputs.verdict is Verdict.PASS
    assert "mean outcome differs" in outputs.reason
    assert street.slept >= 20
    outputs = release(champion, "r3", **TESTED)
    assert outputs.verdict is Verdict.FAIL
    assert "harm shown: mean outcome differs" in outputs.reason
    assert document().champion.digest == candidate.digest
