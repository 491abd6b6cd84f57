"""The whole stage with a real server: honest models pass, planted ones fail by the gate that is there for them."""

import dataclasses
import json

import numpy as np
import pytest

from clearway.contracts.errors import DataError, IntegrityError
from clearway.contracts.manifest import sha256_of
from clearway.contracts.refs import ModelRef
from clearway.contracts.release_document import Version, begin_deploy, promote, take_lease
from clearway.contracts.verdict import Verdict
from clearway.evaluate.run import run
from clearway.evaluate.spec import Outputs
from clearway.infra.environment import Environment
from clearway.infra.release_store import open_release_store
from clearway.infra.storage import open_storage, to_path
from clearway.product import LoadedProduct
from evaluate_kit import evaluate_inputs, yardsticks_of

pytestmark = pytest.mark.slow

RNG = np.random.default_rng(7)


def _judged(world, model: ModelRef, release_id: str = "r1", *, product: LoadedProduct, env: Environment) -> Outputs:
    inputs = evaluate_inputs(world.dataset, model, product=product, env=env, release_id=release_id)
    return run(inputs, product=product, env=env)


def _failed(env: Environment, out: Outputs) -> set[str]:
    """Names of the decisive checks that did not pass, slices' values cut off."""
    content = json.loads(open_storage(env.store_root).read(out.evaluation_uri))
    return {
        c["name"].partition("[")[0] if c["name"].startswith("slice") else c["name"]
        for c in content["checks"]
        if c["is_decisive"] and c["verdict"] != "pass"
    }


def _promote(env: Environment, model: ModelRef) -> None:
    store = open_release_store(env)
    document, version = store.read("flights")
    document = take_lease(document, holder="test", now_s=0.0, ttl_s=60.0)
    document = begin_deploy(
        document, Version(uri=model.uri, digest=model.digest, release_id="r0"), epoch=document.epoch
    )
    store.swap(promote(document, epoch=document.epoch, now_s=1.0, reason="test"), expected_version=version)


def test_an_honest_first_model_passes_and_a_rerun_finds_the_same_bytes(
    env: Environment, product: LoadedProduct, make_world
) -> None:
    world = make_world()
    inputs = evaluate_inputs(world.dataset, world.package(), product=product, env=env)
    out = run(inputs, product=product, env=env)
    storage = open_storage(env.store_root)
    data, page = storage.read(out.evaluation_uri), storage.read(out.report_uri)
    assert (out.verdict, _failed(env, out)) == (Verdict.PASS, set()), out.reason
    assert out.evaluation_digest == sha256_of(data)
    content = json.loads(data)
    names = {c["name"] for c in content["checks"]}
    assert {"auc_floor", "auc_ceiling", "ece", "not_worse_logloss[trees]", "golden_in_server", "latency"} <= names
    first = next(c for c in content["checks"] if c["name"] == "first_model")
    assert not first["is_decisive"]
    assert "do not apply" in first["reason"]
    assert len(page) < 1_000_000
    assert b"<script" not in page
    assert b"http://" not in page.replace(b"http://www.w3.org", b"")
    # Found again, not made again.
    assert run(inputs, product=product, env=env) == out
    # And made again from nothing, the same bytes.
    to_path(out.evaluation_uri).unlink()
    again = run(inputs, product=product, env=env)
    assert again.evaluation_digest == out.evaluation_digest


@pytest.mark.parametrize(
    ("plant", "gates"),
    [
        pytest.param({"weights": np.array([0.0, 0.0, 0.0, 1.0, 1.0, 0.3])}, {"auc_floor"}, id="learned nothing"),
        pytest.param({"scale": 3.0}, {"ece", "not_worse_logloss[trees]"}, id="over-confident"),
        pytest.param({"weights": np.array([1.0, -0.8, 0.5, 1.0, 0.9, 0.0])}, {"not_worse_auc[trees]"}, id="noisy"),
        pytest.param({"order": ("x0", "outcome")}, {"columns_denied", "columns_declared"}, id="denied column"),
        pytest.param({"holdout_start": "2013-03-08"}, {"holdout_unseen"}, id="trained on the holdout"),
        pytest.param({"golden_shift": 1e-3}, {"golden_in_server"}, id="serves other scores than it was trained with"),
    ],
)
def test_a_planted_fault_fails_by_its_own_gate(
    env: Environment, product: LoadedProduct, make_world, plant: dict, gates: set[str]
) -> None:
    world = make_world()
    out = _judged(world, world.package(**plant), product=product, env=env)
    assert out.verdict is Verdict.FAIL
    assert gates <= _failed(env, out), out.reason


def test_a_leak_fails_by_being_too_good(env: Environment, product: LoadedProduct, make_world) -> None:
    world = make_world(leak=True)
    out = _judged(world, world.package(np.array([1.0, -0.8, 0.5, 0.0, 0.0, 6.0])), product=product, env=env)
    assert out.verdict is Verdict.FAIL
    assert "auc_ceiling" in _failed(env, out)


def test_shuffled_labels_are_a_no_to_the_model_and_no_failure_of_the_measurement(
    env: Environment, product: LoadedProduct, make_world
) -> None:
    """The yardstick learns nothing from them either, so it gives no margin; the floor stands without one."""
    world = make_world(is_shuffled=True)
    out = _judged(world, world.package(weights=np.array([0.0, 0.0, 0.0, 1.0, 1.0, 0.3])), product=product, env=env)
    assert out.verdict is Verdict.FAIL
    assert {"auc_floor", "logloss_skill"} <= _failed(env, out)
    assert b"not_worse_auc" in open_storage(env.store_root).read(out.report_uri)


def test_a_good_model_is_left_to_a_person_where_the_yardstick_learned_nothing(
    env: Environment, product: LoadedProduct, make_world
) -> None:
    world = make_world(is_shuffled=True)
    out = _judged(world, world.package(), product=product, env=env)
    assert (out.verdict, _failed(env, out)) == (Verdict.INCONCLUSIVE, {"yardstick_learned"})
    assert "learned nothing" in out.reason


def test_a_worse_model_than_the_champion_fails_and_an_equal_one_passes(
    env: Environment, product: LoadedProduct, make_world
) -> None:
    world = make_world()
    _promote(env, world.package())
    equal = _judged(world, world.package(TRUTH_LIKE), "r1", product=product, env=env)
    worse = _judged(world, world.package(np.array([1.0, 0.2, 0.5, 0.3, 0.0, 0.0])), "r2", product=product, env=env)
    assert equal.verdict is Verdict.PASS, equal.reason
    assert worse.verdict is Verdict.FAIL
    assert {"not_worse_auc[champion]", "not_worse_logloss[champion]"} <= _failed(env, worse)


TRUTH_LIKE = np.array([1.02, -0.79, 0.52, 0.01, 0.0, 0.0])


def test_a_champion_that_was_trained_on_these_days_leaves_the_question_open(
    env: Environment, product: LoadedProduct, make_world
) -> None:
    world = make_world()
    _promote(env, world.package(holdout_start="2013-03-11"))
    out = _judged(world, world.package(TRUTH_LIKE), product=product, env=env)
    assert (out.verdict, _failed(env, out)) == (Verdict.INCONCLUSIVE, {"champion_comparable"})


def test_a_first_model_can_be_left_to_a_person(env: Environment, product: LoadedProduct, make_world) -> None:
    gates = product.spec.gates.model_copy(update={"first_model": "person"})
    product = product.model_copy(update={"spec": product.spec.model_copy(update={"gates": gates})})
    world = make_world()
    out = _judged(world, world.package(), product=product, env=env)
    assert (out.verdict, _failed(env, out)) == (Verdict.INCONCLUSIVE, {"first_model"})


def test_a_new_champion_makes_the_old_evaluation_stale(env: Environment, product: LoadedProduct, make_world) -> None:
    world = make_world()
    inputs = evaluate_inputs(world.dataset, world.package(TRUTH_LIKE), product=product, env=env)
    first = run(inputs, product=product, env=env)
    _promote(env, world.package())
    second = run(inputs, product=product, env=env)
    assert first.evaluation_digest != second.evaluation_digest
    content = json.loads(open_storage(env.store_root).read(second.evaluation_uri))
    assert "champion" in content["evidence"]["comparisons"]


def test_a_broken_champion_is_an_error_and_no_first_release(
    env: Environment, product: LoadedProduct, make_world
) -> None:
    world = make_world()
    champion = world.package()
    _promote(env, champion)
    to_path(f"{champion.uri}/encoder.json").write_bytes(b"{}")
    with pytest.raises(IntegrityError):
        _judged(world, world.package(TRUTH_LIKE), product=product, env=env)


def test_rows_without_labels_cannot_be_judged(env: Environment, product: LoadedProduct, make_world) -> None:
    world = make_world(num_labelled_weeks=0)
    with pytest.raises(DataError, match="label"):
        _judged(world, world.package(), product=product, env=env)


def test_too_short_a_training_period_is_an_error_verdict_with_its_reason(
    env: Environment, product: LoadedProduct, make_world
) -> None:
    world = make_world(num_labelled_weeks=3)
    model = world.package(holdout_start="2013-01-07")
    out = _judged(world, model, product=product, env=env)
    assert out.verdict is Verdict.ERROR
    assert "training days" in out.reason
    assert b"No figures" in open_storage(env.store_root).read(out.report_uri)


def test_yardsticks_are_found_again_and_shared_by_candidates(
    env: Environment, product: LoadedProduct, make_world
) -> None:
    world = make_world()
    first = yardsticks_of(world.dataset, product=product, env=env)
    written = to_path(first.uri).stat().st_mtime_ns
    assert yardsticks_of(world.dataset, product=product, env=env) == first
    assert to_path(first.uri).stat().st_mtime_ns == written
    assert yardsticks_of(world.dataset, product=product, env=env, release_id="r2").digest == first.digest
    # Made anew for another dataset, and for a product that asks for something else.
    other = make_world(seed=1)
    assert yardsticks_of(other.dataset, product=product, env=env).digest != first.digest


def test_yardsticks_of_something_else_judge_nothing(env: Environment, product: LoadedProduct, make_world) -> None:
    world = make_world()
    inputs = evaluate_inputs(world.dataset, world.package(), product=product, env=env)
    wrong = yardsticks_of(make_world(seed=1).dataset, product=product, env=env, release_id="r2")
    with pytest.raises(IntegrityError, match="run the yardsticks step on this dataset"):
        run(dataclasses.replace(inputs, yardsticks=wrong), product=product, env=env)
    path = to_path(inputs.yardsticks.uri)
    path.write_bytes(path.read_bytes().replace(b"0.", b"1.", 1))
    with pytest.raises(IntegrityError, match="changed or made again"):
        run(inputs, product=product, env=env)
