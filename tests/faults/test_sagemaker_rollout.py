"""Rollouts by the real deploy stage on a SageMaker endpoint: they promote, go back, survive kills and troubled calls.

The endpoint is tests/sagemaker_server.py over HTTP, its containers hold real packages, time is a clock that both share.
"""

import pytest

from aws_kit import Trouble, at_endpoint, at_random, make_bucket
from clearway.contracts.errors import ClearwayError, Unavailable
from clearway.contracts.release_document import Outcome
from clearway.contracts.verdict import Verdict
from clearway.deploy.rollback import roll_back
from clearway.deploy.spec import RollbackInputs
from clearway.infra.environment import Storage
from rollout_kit import Killed
from sagemaker_account import Fate
from sagemaker_kit import PLAN, hurry
from sagemaker_story_kit import more, tell_taken_back, told
from serving_kit import PRODUCT

pytestmark = pytest.mark.slow
BLUE_GREEN = PLAN.model_copy(update={"strategy": "blue_green"})
CANARY_AND_WATCH = PLAN.model_copy(update={"strategy": ("canary", "watch")})


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    hurry(monkeypatch)


@pytest.fixture
def story(env, tmp_path):
    with told(env, tmp_path / "containers") as story:
        yield story


@pytest.mark.parametrize("plan", [BLUE_GREEN, PLAN, CANARY_AND_WATCH], ids=["blue-green", "canary", "canary, watch"])
def test_a_good_model_is_promoted(story, plan):
    outputs = story.release(0.2, "r2", plan)
    assert outputs.verdict is Verdict.PASS, outputs.reason
    story.check_rest(Outcome.PROMOTED, "r2")
    assert story.account.misfits == []
    assert story.street.answered[-1] == outputs.status.digest
    if plan is not BLUE_GREEN:
        shares = {
            tuple(sorted(w["DesiredWeight"] for w in asked["DesiredWeightsAndCapacities"]))
            for name, asked in story.account.asked
            if name == "UpdateEndpointWeightsAndCapacities"
        }
        assert {(20.0, 80.0), (50.0, 50.0), (0.0, 100.0)} <= shares


def test_a_failing_model_goes_back(story):
    outputs = story.release(0.2, "r2", PLAN, fails_for_callers=0.6)
    assert outputs.verdict is Verdict.FAIL
    assert "harm shown" in outputs.reason
    story.check_rest(Outcome.ABORTED, "r2")


@pytest.mark.parametrize("withheld", ["Invocations", more("Invocation5XXErrors"), more("ModelLatency")])
def test_figures_that_do_not_come_never_promote(story, withheld):
    story.account.withheld.add(withheld)
    outputs = story.release(0.2, "r2", PLAN)
    assert outputs.verdict is Verdict.FAIL
    assert "nobody decided" in outputs.reason
    story.check_rest(Outcome.ABORTED, "r2")


@pytest.mark.long
def test_no_callers_are_no_evidence(story):
    story.street.per_s = 0.0
    outputs = story.release(0.2, "r2", PLAN)
    assert outputs.verdict is Verdict.FAIL
    assert "nobody decided" in outputs.reason


@pytest.mark.long
def test_scores_are_judged_by_captured_answers(env, tmp_path, moto, monkeypatch):
    for _ in at_endpoint(moto, monkeypatch):
        env = env.model_copy(update={"storage": Storage(kind="s3", root=f"s3://{make_bucket()}/store")})
        plan = PLAN.model_copy(update={"dry_run": (), "score_margin": 0.2})
        with told(env, tmp_path / "containers", upstream=moto, capture_pct=100) as story:
            assert story.release(0.11, "r2", plan).verdict is Verdict.PASS
            outputs = story.release(3.0, "r3", plan)
            assert outputs.verdict is Verdict.FAIL
            assert "score" in outputs.reason
            assert story.account.misfits == []


@pytest.mark.parametrize(
    "seed", [0, 32, *map(more, range(1, 8))]
)  # 50: tests/benchmarks/sweep_sagemaker_faults.py --taken-back 50
def test_an_update_that_is_taken_back_is_red_with_the_reason(env, tmp_path, seed):
    tell_taken_back(env, tmp_path / "containers", seed=seed)


def test_weights_that_do_not_stay_are_an_error_and_a_retry_goes_on(story):
    fates = [Fate("told"), Fate()]  # of the weights, after the update
    story.account.next_fate = lambda: fates.pop() if fates else Fate()
    with pytest.raises(Unavailable, match="planted"):
        story.release(0.2, "r2", BLUE_GREEN)
    assert story.endpoint.state().weights_pct == {story.champion.digest: 100.0}
    assert story.release(0.2, "r2", BLUE_GREEN).verdict is Verdict.PASS
    story.check_rest(Outcome.PROMOTED, "r2")


def test_a_rollback_needs_no_update(story):
    assert story.release(0.2, "r2", BLUE_GREEN).verdict is Verdict.PASS
    story.account.asked.clear()
    order = RollbackInputs(product=PRODUCT, release_id="back", reason="a test")
    assert roll_back(order, controls=story.controls).verdict is Verdict.PASS
    assert story.endpoint.state().weights_pct == {story.champion.digest: 100.0}
    changes = [name for name, _ in story.account.asked if name.startswith(("Update", "Create"))]
    assert changes[0] == "UpdateEndpointWeightsAndCapacities"


@pytest.mark.long
def test_a_kill_around_any_call_ends_like_the_undisturbed_run(env, tmp_path, monkeypatch):
    plan = BLUE_GREEN  # a canary comes by the same points
    with told(env, tmp_path / "containers") as story:
        visited = dict.fromkeys(story.visits("r2", plan, monkeypatch))
        points = [point for point in visited if point.startswith("sagemaker.")]  # the rest: test_rollout_kill.py
        assert len(points) >= 5
        for number, point in enumerate(points):
            release = f"victim-{number}"
            before = story.document().champion
            with pytest.raises(Killed):
                story.visits(release, plan, monkeypatch, victim=point)
            outputs = story.again(release, plan)
            assert outputs.verdict is Verdict.PASS, (point, outputs.reason)
            story.check_rest(Outcome.PROMOTED, release)
            assert story.document().previous == before


def test_a_driver_that_is_gone_loses_the_share_and_the_reconciler_ends_it(story, monkeypatch):
    with pytest.raises(Killed):
        story.visits("r2", PLAN, monkeypatch, victim="deploy.before_observe")
    story.street.sleep(100.0)
    assert story.endpoint.state().weights_pct == {story.champion.digest: 100.0}
    story.street.sleep(2000.0)
    story.reconcile()
    story.check_rest(Outcome.ABORTED, "r2")


@pytest.mark.parametrize(("share", "seed"), [(0.1, 1), more(0.1, 2), (0.3, 3), more(0.3, 4)])
def test_troubled_calls_lead_to_the_same_end(env, tmp_path, share, seed):
    with told(env, tmp_path / "containers", trouble=(trouble := Trouble())) as story:
        trouble.plan = at_random(share, seed=seed)
        outputs = story.insistent("r2", BLUE_GREEN if seed % 2 else PLAN)
        trouble.plan = lambda _: ""
        assert outputs.verdict is Verdict.PASS, outputs.reason
        story.reconcile()
        story.check_rest(Outcome.PROMOTED, "r2")
        story.check_no_duplicates()


def test_nearly_no_call_that_works_is_a_clean_failure(env, tmp_path):
    with told(env, tmp_path / "containers", trouble=(trouble := Trouble())) as story:
        trouble.plan, began_s = at_random(0.9, seed=9), story.street.now_s()
        with pytest.raises(ClearwayError):
            story.release(0.2, "r2", BLUE_GREEN)
        assert story.street.now_s() - began_s < 1000
        trouble.plan = lambda _: ""
        assert story.endpoint.state().weights_pct == {story.champion.digest: 100.0}
        assert story.insistent("r2", BLUE_GREEN).verdict is Verdict.PASS
