"""Rollouts that begin with copies of requests on a SageMaker endpoint, by the real deploy stage.

As test_sagemaker_rollout.py. The shadow's container really gets the copies. Captured answers lie in a folder, as the
rest of the store; once in moto's S3.
"""

import json

import pytest

from aws_kit import Trouble, at_endpoint, at_random, make_bucket
from clearway.contracts.release_document import Outcome
from clearway.contracts.rollout import Order, OrderKind
from clearway.contracts.verdict import Verdict
from clearway.deploy.orders import give_order
from clearway.deploy.rollback import roll_back
from clearway.deploy.spec import RollbackInputs
from clearway.infra.environment import Storage
from clearway.infra.storage import join, open_storage
from clearway.product_rollout import Shadow
from rollout_kit import Killed
from sagemaker_kit import NAME, PLAN, SHADOW, hurry
from sagemaker_story_kit import fate_at, more, told
from serving_kit import PRODUCT

pytestmark = pytest.mark.slow
SHADOW_AND_CANARY = SHADOW.model_copy(update={"strategy": ("shadow", "canary")})


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    hurry(monkeypatch)


@pytest.fixture
def story(env, tmp_path):
    with told(env, tmp_path / "containers", capture_pct=100) as story:
        story.street.per_s = 1.0
        yield story


def config_now(story):
    return story.account.configs[story.account.endpoints[NAME].config]


def test_a_good_model_is_promoted_after_its_copies(story):
    outputs = story.release(0.15, "r2", SHADOW_AND_CANARY)
    assert outputs.verdict is Verdict.PASS, outputs.reason
    story.check_rest(Outcome.PROMOTED, "r2")


@pytest.mark.long
def test_a_good_model_is_promoted_by_answers_in_s3(env, moto, tmp_path, monkeypatch):
    for _ in at_endpoint(moto, monkeypatch):
        cloud = env.model_copy(update={"storage": Storage(kind="s3", root=f"s3://{make_bucket()}/store")})
        with told(cloud, tmp_path / "containers", upstream=moto, capture_pct=100) as story:
            story.street.per_s = 1.0
            outputs = story.release(0.15, "r2", SHADOW)
            assert outputs.verdict is Verdict.PASS, outputs.reason
            story.check_rest(Outcome.PROMOTED, "r2")
            assert story.account.misfits == []


def test_a_model_that_scores_otherwise_goes_back_and_no_caller_met_it(story):
    outputs = story.release(3.0, "r2", SHADOW_AND_CANARY)
    assert outputs.verdict is Verdict.FAIL
    assert "harm shown: mean difference" in outputs.reason
    story.check_rest(Outcome.ABORTED, "r2")
    assert set(story.street.answered) == {story.champion.digest}


def test_a_model_that_gives_no_answer_goes_back(story):
    outputs = story.release(0.15, "r2", SHADOW, fails_for_callers=0.6)
    assert outputs.verdict is Verdict.FAIL
    assert "harm shown: mean difference" in outputs.reason
    story.check_rest(Outcome.ABORTED, "r2")
    assert "" not in story.street.answered


@pytest.mark.parametrize("missing", ["captured answers", more("Invocation5XXErrors"), more("Invocations")])
def test_evidence_that_does_not_come_never_promotes(story, missing):
    if missing == "captured answers":
        story.account.is_shadow_captured = False
    else:
        story.account.withheld.add(missing)
    outputs = story.release(0.15, "r2", SHADOW.model_copy(update={"max_step_s": 600.0, "hold_s": 200.0}))
    assert outputs.verdict is Verdict.FAIL
    assert "nobody decided" in outputs.reason
    story.check_rest(Outcome.ABORTED, "r2")


@pytest.mark.parametrize("kind", ["silent", "told", "stranger", "late"])
def test_copies_that_sagemaker_takes_back_are_red_with_the_reason(story, kind):
    fates = fate_at(story, kind, has_shadow=True, after_s=100.0)
    outputs = story.release(0.15, "r2", SHADOW)
    assert fates == []
    assert outputs.verdict is Verdict.FAIL, outputs.reason
    assert ("went back by itself" if kind == "late" else "taken back") in outputs.reason
    assert "configuration clearway-" in outputs.reason
    assert ("Alarm went off" in outputs.reason) is (kind == "told")
    story.check_rest(Outcome.ABORTED, "r2")
    assert set(story.street.answered) == {story.champion.digest}


def test_copies_that_do_not_end_are_an_error_and_a_retry_goes_on(story):
    fates = fate_at(story, "told", has_shadow=False)
    assert story.insistent("r2", SHADOW).verdict is Verdict.PASS
    assert fates == []
    story.check_rest(Outcome.PROMOTED, "r2")


def test_an_end_of_copies_that_is_taken_back_later_is_red(story):
    fate_at(story, "late", has_shadow=False, after_s=60.0)
    outputs = story.insistent("r2", SHADOW_AND_CANARY)
    assert outputs.verdict is Verdict.FAIL
    assert "went back by itself" in outputs.reason
    story.check_rest(Outcome.ABORTED, "r2")


def begin_copies(story, release_id, monkeypatch, *, plan=SHADOW, looks=2):
    """The driver is gone after some looks at rows of the shadow."""
    with pytest.raises(Killed):
        story.visits(release_id, plan, monkeypatch, victim="deploy.before_mirrored", number=looks)
    assert "ShadowProductionVariants" in config_now(story)


def test_another_driver_goes_on_with_the_rows_that_are_there(story, monkeypatch):
    plan = SHADOW.model_copy(update={"shadow": Shadow(min_rows=300, margin=0.2)})
    begin_copies(story, "r2", monkeypatch, plan=plan, looks=20)
    first = num_rows(story.document().rollout)
    assert 0 < first < 300
    outputs = story.again("r2", plan)
    assert outputs.verdict is Verdict.PASS, outputs.reason
    story.check_rest(Outcome.PROMOTED, "r2")
    kept = json.loads(story.controls.storage.read(story.controls.layout.rollout_record("r2")))
    assert kept["rollout"]["evidence"]["mirror"]["tallies"][0]["band"]["num"] == rows_in_store(story) >= 300


def num_rows(rollout):
    return rollout.evidence["mirror"]["tallies"][0]["band"]["num"]


def rows_in_store(story):
    storage, home = open_storage(story.env.store_root), join(story.env.store_root, "endpoints", NAME, "copies")
    chunks = [json.loads(storage.read(uri)) for uri in storage.list(home)]
    return sum(len(rows) for chunk in chunks for _, rows in chunk["pairs"]) + sum(c["unanswered"] for c in chunks)


def test_another_driver_asks_for_golden_answers_before_callers_meet_the_model(story, monkeypatch):
    with pytest.raises(Killed):
        story.visits("r2", SHADOW_AND_CANARY, monkeypatch, victim="deploy.before_weights", number=2)
    assert "ShadowProductionVariants" in config_now(story)
    points = story.visits("r2", SHADOW_AND_CANARY, monkeypatch)
    assert points.index("deploy.before_golden") < points.index("sagemaker.before_weights")
    assert points.index("sagemaker.after_back") < points.index("deploy.before_golden")
    story.check_rest(Outcome.PROMOTED, "r2")


def test_a_driver_that_is_gone_ends_the_copies_and_the_reconciler_the_release(story, monkeypatch):
    assert story.release(0.12, "r1b", PLAN.model_copy(update={"strategy": "blue_green"})).verdict is Verdict.PASS
    begin_copies(story, "r2", monkeypatch)
    assert len(config_now(story)["ProductionVariants"]) == 1  # the way back waits outside
    story.street.sleep(100.0)
    state = story.endpoint.state()
    assert (state.mirror, state.unaskable, len(state.loaded)) == (None, (), 3)
    story.street.sleep(2000.0)
    story.reconcile()
    story.check_rest(Outcome.ABORTED, "r2")


def test_a_rollback_during_copies_keeps_the_champion_and_the_next_one_is_a_matter_of_weights(story, monkeypatch):
    before = story.champion
    assert story.release(0.12, "r1b", PLAN.model_copy(update={"strategy": "blue_green"})).verdict is Verdict.PASS
    champion = story.document().champion
    begin_copies(story, "r2", monkeypatch)
    story.reopen()
    order = RollbackInputs(product=PRODUCT, release_id="back", reason="a test")
    roll_back(order, controls=story.controls)
    story.check_rest(Outcome.ABORTED, "r2")
    assert story.document().champion == champion
    story.account.asked.clear()
    again = RollbackInputs(product=PRODUCT, release_id="back again", reason="a test")
    assert roll_back(again, controls=story.controls).verdict is Verdict.PASS
    assert story.endpoint.state().weights_pct == {before.digest: 100.0}
    changes = [name for name, _ in story.account.asked if name.startswith(("Update", "Create"))]
    assert changes[0] == "UpdateEndpointWeightsAndCapacities"


def test_a_person_who_aborts_ends_the_copies(story, monkeypatch):
    begin_copies(story, "r2", monkeypatch)
    give_order(story.controls.store, PRODUCT, Order(kind=OrderKind.ABORT, by="me", reason="enough", at_s=0.0))
    outputs = story.again("r2", SHADOW)
    assert outputs.verdict is Verdict.FAIL
    story.check_rest(Outcome.ABORTED, "r2")


@pytest.mark.parametrize(
    "point",
    [
        "sagemaker.after_copies",
        "sagemaker.before_copies",
        "sagemaker.before_back",
        "sagemaker.after_back",
        "deploy.after_weights",
    ],
)
def test_a_kill_around_the_copies_ends_like_the_undisturbed_run(story, monkeypatch, point):
    with pytest.raises(Killed):
        story.visits("r2", SHADOW, monkeypatch, victim=point)
    outputs = story.again("r2", SHADOW)
    assert outputs.verdict is Verdict.PASS, (point, outputs.reason)
    story.check_rest(Outcome.PROMOTED, "r2")
    story.check_no_duplicates()


@pytest.mark.parametrize(("share", "seed"), [(0.1, 1), (0.3, 2), more(0.3, 3)])
def test_troubled_calls_lead_to_the_same_end(env, tmp_path, share, seed):
    with told(env, tmp_path / "containers", trouble=(trouble := Trouble()), capture_pct=100) as story:
        story.street.per_s = 1.0
        trouble.plan = at_random(share, seed=seed)
        outputs = story.insistent("r2", SHADOW)
        trouble.plan = lambda _: ""
        assert outputs.verdict is Verdict.PASS, outputs.reason
        story.reconcile()
        story.check_rest(Outcome.PROMOTED, "r2")
        story.check_no_duplicates()
