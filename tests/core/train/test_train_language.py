"""The whole stage on a small product with text: real workers, a real package, whatever happens in between."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from clearway.contracts.errors import ConfigError, DataError
from clearway.contracts.verdict import Verdict
from clearway.infra.datasets import DAY
from clearway.infra.environment import Environment
from clearway.kinds.kind import kind_named
from clearway.kinds.scorers import open_scorer
from clearway.language.stream import TokenStream
from clearway.language.tokens import text_of
from clearway.packaging.package import FILES_OF
from clearway.train.launch import launch
from clearway.train.run import run
from clearway.train.worker import Job
from kill_kit import run_child
from language_kit import HOLDOUT_DAYS, HOLDOUT_START, NUM_LEARNED, PER_DAY, STORAGE, World, make_rows, make_world

# MLflow 3.17 on SQLAlchemy 2.1; nothing of ours.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")


@pytest.fixture
def world(env) -> World:
    return make_world(env)


@pytest.fixture(scope="module")
def calm(tmp_path_factory):
    """(world, outputs) of a training that nothing disturbed."""
    home = tmp_path_factory.mktemp("calm")
    world = make_world(
        Environment.load({"CLEARWAY__HOME": str(home), "CLEARWAY__STORAGE__ROOT": (home / "s").as_uri()})
    )
    return world, run(world.inputs(), product=world.product, env=world.env)


@pytest.mark.slow
def test_a_text_product_is_trained_packaged_and_recorded_once(calm):
    world, outputs = calm
    assert outputs.verdict is Verdict.PASS
    package = world.open(outputs.model)
    assert (package.kind, package.schema["kind"], package.schema["order"]) == ("language", "language", ["text"])
    assert set(package.files) == set(FILES_OF["language"]) >= {"shape.json", "weights.safetensors"}
    assert package.facts["train"]["num_rows"] == NUM_LEARNED
    assert package.facts["holdout_start"] == str(HOLDOUT_START)
    assert set(package.reference["features"]) == {*world.product.spec.features.columns, "text"}
    assert package.reference["score"]["counts"]
    scorer, rows = open_scorer(package), make_rows()
    assert scorer.score_rows(package.golden["rows"]).tolist() == package.golden["scores"]
    held = rows.filter(pa.compute.greater_equal(rows[DAY], pa.scalar(HOLDOUT_START)))
    assert scorer.score_table(held).mean() < 2.5  # a guess among bytes needs 8 bits
    again = run(world.inputs("r2"), product=world.product, env=world.env)
    assert again.model == outputs.model
    assert again.mlflow_run_id != outputs.mlflow_run_id


@pytest.mark.slow
def test_a_training_whose_worker_is_killed_ends_at_the_same_digest(calm, world: World):
    _, undisturbed = calm
    inputs = world.inputs("stormy", checkpoint_s=0.05)
    done = run_child("train", inputs, product=world.product, env=world.env, fault="engine.step=kill@200")
    assert "exitcode: -9" in done.stderr, done.stderr[-2000:]
    if done.returncode:  # every restart met the fault again
        done = run_child("train", inputs, product=world.product, env=world.env)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "resumed at step" in done.stderr
    assert json.loads(done.stdout)["model"]["digest"] == undisturbed.model.digest


@pytest.mark.slow
def test_two_processes_share_the_network_and_leave_one_file(world: World, tmp_path):
    kind = kind_named("language")
    prepared = kind.prepare(world.dataset, {"num_epochs": 1}, product=world.product, env=world.env, storage=STORAGE)
    prepared.write(tmp_path)
    job = Job(
        folder=str(tmp_path),
        identity="j",
        kind="language",
        sizes={},
        settings=prepared.settings.model_dump(mode="json"),
        num_threads=1,
        is_bfloat16=False,
    )
    assert launch(job, num_processes=2, can_fork=False).world_size == 2
    together = prepared.contents(tmp_path, job="j", facts={}).golden
    alone = world.open(world.package(tmp_path / "alone", num_epochs=1)).golden
    assert together["rows"] == alone["rows"]
    np.testing.assert_allclose(together["scores"], alone["scores"], rtol=1e-2)


def test_what_is_learned_from_ends_before_the_holdout_in_the_middle_of_a_shard(world: World, tmp_path):
    kind = kind_named("language")
    prepared = kind.prepare(world.dataset, {}, product=world.product, env=world.env, storage=STORAGE)
    prepared.write(tmp_path)
    shards = json.loads((tmp_path / "shards.json").read_bytes())
    stream = TokenStream.open([Path(path) for path, _ in shards], [length for _, length in shards])
    learned = make_rows()["text"].to_pylist()[:NUM_LEARNED]
    assert len(shards) == 2
    assert text_of(stream.read(0, len(stream))) == "".join(learned)


def test_a_held_out_text_that_was_learned_is_left_out(env):
    rows = make_rows()
    texts = rows["text"].to_pylist()
    texts[-1], texts[-2] = texts[0], texts[-3]  # from the training part, and twice in the held-out one
    rows = rows.set_column(rows.column_names.index("text"), "text", [texts])
    world = make_world(env, rows)
    found = kind_named("language").prepare(world.dataset, {}, product=world.product, env=env, storage=STORAGE)
    assert found.documents.num_repeated == 2
    assert len(found.documents.holdout) == HOLDOUT_DAYS * PER_DAY - 2


def test_a_text_product_that_only_repeats_itself_cannot_be_judged(env):
    rows = make_rows()
    world = make_world(env, rows.set_column(rows.column_names.index("text"), "text", [["the same"] * len(rows)]))
    with pytest.raises(DataError, match="stand in the training part word for word"):
        run(world.inputs(), product=world.product, env=env)


def test_parameters_that_do_not_fit_are_refused(world: World):
    with pytest.raises(ConfigError, match="num_bins"):
        run(world.inputs(num_bins=3), product=world.product, env=world.env)
    with pytest.raises(ConfigError, match="heads of even width"):
        run(world.inputs(dim=34), product=world.product, env=world.env)
