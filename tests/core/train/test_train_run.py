"""The whole stage on a small product: real workers, a real package, a real MLflow file."""

import json
import socket

import pytest
import torch

from clearway.contracts.errors import ConfigError, DataError, IntegrityError, Unavailable
from clearway.contracts.verdict import Verdict
from clearway.infra.environment import Tracking
from clearway.infra.storage import to_path
from clearway.measures.binary import auc
from clearway.packaging.package import open_package
from clearway.packaging.runtime import OnnxScorer
from clearway.tabular.fit import Rows, fit
from clearway.tabular.fit import World as Peers
from clearway.tabular.model import shape_of
from clearway.tabular.training_set import ARRAYS, make_training_set, write_arrays
from clearway.train.launch import launch
from clearway.train.run import run
from clearway.train.worker import Job
from training_kit import STORAGE, World, make_rows, make_world

# MLflow 3.17 on SQLAlchemy 2.1; nothing of ours.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")


@pytest.mark.slow
def test_a_release_is_trained_packaged_and_recorded_once(world: World):
    outputs = run(world.inputs(), product=world.product, env=world.env)
    assert outputs.verdict is Verdict.PASS
    package = open_package(STORAGE, outputs.model.uri, outputs.model.digest, key_folder=world.env.home / "keys")
    scorer = OnnxScorer(package)
    rows = world.training_rows()
    assert auc(rows["label"].to_numpy(), scorer.score_table(rows)) > 0.7
    assert scorer.score_rows(package.golden["rows"]).tolist() == pytest.approx(package.golden["scores"], abs=1e-6)
    assert package.facts["dataset"]["digest"] == world.dataset.digest
    assert package.facts["train"]["num_rows"] == len(rows)
    assert package.facts["holdout_start"] == "2013-01-13"
    assert package.facts["num_threads"] == 1  # whatever jobs may use: a second would only cost
    assert set(package.reference["features"]) == {"a", "b", "c", "carrier", "origin"}
    assert package.reference["score"]["counts"]
    assert set(package.reference["effects"]) == set(package.reference["features"])
    assert max(package.reference["effects"].values()) > 0
    assert package.schema["order"] == ["a", "b", "c", "carrier", "origin"]
    _check_record(world, outputs.mlflow_run_id, outputs.model.digest)
    assert run(world.inputs(), product=world.product, env=world.env) == outputs
    again = run(world.inputs("r2"), product=world.product, env=world.env)
    assert again.model == outputs.model
    assert again.mlflow_run_id != outputs.mlflow_run_id


def _check_record(world: World, run_id: str, digest: str) -> None:
    from mlflow import MlflowClient  # a second, which those who only collect need not wait for

    client = MlflowClient(world.env.tracking_uri)
    data = client.get_run(run_id).data
    for name in (
        "num_members",
        "seed",
        "git.commit",
        "git.head",
        "dataset.digest",
        "environment.torch",
        "device",
        "lock_digest",
    ):
        assert data.params[name]
    assert data.tags["clearway.digest"] == digest
    assert data.tags["clearway.release_id"] == "r1"
    assert data.metrics["duration_s"] > 0
    curve = client.get_metric_history(run_id, "train_log_loss")
    assert [point.step for point in curve] == sorted({point.step for point in curve})
    assert curve[-1].value < curve[0].value


@pytest.mark.slow
@pytest.mark.parametrize(
    "plan",
    [
        "engine.step=kill@20",
        pytest.param("engine.inside_file=kill@5", marks=pytest.mark.long),
        "engine.before_rename=kill@9",
        pytest.param("engine.after_rename=kill@2", marks=pytest.mark.long),
    ],
)
def test_a_worker_killed_in_training_ends_at_the_same_digest(world: World, calm: str, plan: str):
    inputs = world.inputs("stormy", checkpoint_s=1e-9)
    done = world.run_in_child(inputs, CLEARWAY_FAULT=plan)
    assert "exitcode: -9" in done.stderr, done.stderr[-2000:]
    if done.returncode:  # every restart met the fault again: the task fails, and its retry goes on from where it was
        done = world.run_in_child(inputs)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "resumed at step" in done.stderr or plan.startswith("engine.inside")
    assert json.loads(done.stdout)["model"]["digest"] == calm


@pytest.mark.slow
@pytest.mark.parametrize("point", ["train.before_package", "package.before_manifest", "train.before_record"])
def test_a_task_killed_after_training_ends_at_the_same_digest(world: World, calm: str, point: str):
    killed = world.run_in_child(world.inputs("stormy"), CLEARWAY_FAULT=f"{point}=kill")
    assert killed.returncode == -9, killed.stderr[-2000:]
    done = world.run_in_child(world.inputs("stormy"))
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(done.stdout)["model"]["digest"] == calm


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (None, "no validation receipt"),
        ({"dataset_digest": "0" * 64, "verdict": "pass"}, "not"),
        ({"verdict": "pass"}, "None"),
        ({"dataset_digest": "own", "verdict": "fail"}, "only 'pass'"),
        ({"dataset_digest": "own"}, "only 'pass'"),
    ],
    ids=["absent", "other dataset", "no dataset", "failed", "no verdict"],
)
def test_no_training_without_the_receipt_of_this_dataset(world: World, content, word):
    if content is None:
        to_path(world.inputs().receipt_uri).unlink()
    else:
        own = {"own": world.dataset.digest}
        world.write_receipt(**{key: own.get(value, value) for key, value in content.items()})
    with pytest.raises(IntegrityError, match=word):
        run(world.inputs(), product=world.product, env=world.env)
    assert not STORAGE.list(world.layout.release("r1"))


def test_a_receipt_that_is_no_json_is_refused(world: World):
    STORAGE.write(world.inputs().receipt_uri, b"yes")
    with pytest.raises(IntegrityError, match="not JSON"):
        run(world.inputs(), product=world.product, env=world.env)


def test_unknown_and_impossible_parameters_are_refused(world: World):
    with pytest.raises(ConfigError, match="num_layers"):
        run(world.inputs(num_layers=3), product=world.product, env=world.env)
    with pytest.raises(ConfigError, match="dropout"):
        run(world.inputs(dropout=1.5), product=world.product, env=world.env)


def test_labels_of_one_class_are_refused(env, flights):
    rows = make_rows(200)
    rows = rows.set_column(rows.column_names.index("late15"), "late15", [[1] * 200])
    world = make_world(env, flights, rows)
    with pytest.raises(DataError, match="both 0 and 1"):
        run(world.inputs(), product=world.product, env=world.env)


@pytest.mark.slow
def test_a_tracker_that_is_down_loses_only_the_record(world: World):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        uri = f"http://127.0.0.1:{unused.getsockname()[1]}"
        down = world.env.model_copy(update={"tracking": Tracking(uri=uri)})
        with pytest.raises(Unavailable, match="MLflow"):
            run(world.inputs(), product=world.product, env=down)
    models = STORAGE.list(world.layout.model(""))
    done = run(world.inputs(), product=world.product, env=world.env)
    assert any(done.model.digest in uri for uri in models)
    assert STORAGE.list(world.layout.model("")) == models


@pytest.mark.slow
def test_two_processes_reach_the_loss_of_one(world: World, tmp_path):
    settings = world.product.spec.model.model_copy(update={"dropout": 0.0})
    training_set = make_training_set(world.training_rows(), features=world.product.spec.features, model=settings)
    histories = []
    for num_processes in (1, 2):
        folder = tmp_path / str(num_processes)
        folder.mkdir()
        write_arrays(training_set, folder / ARRAYS)
        job = Job(
            folder=str(folder),
            identity="j",
            kind="tabular",
            sizes={"num_numeric": 3, "cardinalities": list(training_set.encoder.cardinalities)},
            settings=settings.model_dump(mode="json"),
            num_threads=1,
            is_bfloat16=False,
        )
        outcome = launch(job, num_processes=num_processes, can_fork=False)
        assert outcome.world_size == num_processes
        histories.append(torch.tensor(outcome.history))
    torch.testing.assert_close(histories[0], histories[1], rtol=1e-4, atol=1e-5)
    rows = Rows(**{name: torch.from_numpy(value) for name, value in training_set.arrays.items()})
    shape = shape_of(settings, num_numeric=3, cardinalities=training_set.encoder.cardinalities)
    alone = fit(rows, shape, settings, world=Peers(), keeping=None, should_stop=lambda: False)
    torch.testing.assert_close(torch.tensor(alone.history), histories[0])
