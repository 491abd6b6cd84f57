"""A real training makes room for a more urgent job, and ends at the same bytes as one that was left alone."""

import json
import sys
from pathlib import Path

import pytest

from clearway.contracts.codec import to_jsonable
from clearway.contracts.errors import JobFailed
from clearway.devices.board import Board, folder_of
from clearway.devices.desk import Desk
from clearway.devices.want import Want
from clearway.infra.clock import SystemClock
from clearway.infra.environment import Environment
from clearway.infra.jobs import JobSpec, JobState
from clearway.infra.jobs.local import LocalJobs
from clearway.infra.storage import open_storage
from clearway.product import LoadedProduct
from jobs_kit import end_all, finish, wait_until
from training_kit import TINY, World, make_world

pytestmark = pytest.mark.slow

# The stage's own verb, on a product that lies in no folder.
STAGE = """
import json, logging, os, pathlib, sys
from clearway.contracts.codec import from_jsonable, to_jsonable
from clearway.infra.environment import Environment
from clearway.product import LoadedProduct
from clearway.train.run import run
from clearway.train.spec import Inputs
_, product_file, stage, _, inputs_file, _, outputs_file = sys.argv
logging.basicConfig(level=logging.INFO)
product = LoadedProduct.model_validate_json(pathlib.Path(product_file).read_text())
inputs = from_jsonable(Inputs, json.loads(pathlib.Path(inputs_file).read_text()))
outputs = to_jsonable(run(inputs, product=product, env=Environment.load()))
pathlib.Path(outputs_file + ".new").write_text(json.dumps(outputs))
os.rename(outputs_file + ".new", outputs_file)
"""
EPOCHS = 100


@pytest.fixture
def shared(env: Environment) -> Environment:
    """One slot; who just began may be asked to make room."""
    devices = env.devices.model_copy(update={"min_run_s": 0.0})
    return env.model_copy(update={"devices": devices})


@pytest.fixture
def jobs(shared: Environment, world: World, tmp_path: Path):
    script, product = tmp_path / "stage.py", tmp_path / "product.json"
    script.write_text(STAGE)
    product.write_text(world.product.model_dump_json(by_alias=True))
    yield LocalJobs(shared, command=(sys.executable, str(script), str(product)))
    end_all(shared.home)


@pytest.fixture
def world(shared: Environment, flights: LoadedProduct) -> World:
    return make_world(shared, flights, model=TINY.model_copy(update={"num_epochs": EPOCHS, "checkpoint_s": 3600.0}))


def spec_of(world: World, release_id: str) -> JobSpec:
    return JobSpec(stage="train", inputs_json=json.dumps(to_jsonable(world.inputs(release_id))), key=release_id)


def log_of(shared: Environment, job_id: str) -> str:
    return (shared.home / "jobs" / job_id.replace(".", "/") / "log").read_text()


def test_a_preempted_training_loses_no_step_and_changes_no_byte(
    shared: Environment, world: World, jobs: LocalJobs
) -> None:
    desk = Desk(shared, "cpu", clock=SystemClock(), is_running=lambda job_id: jobs.state(job_id) is JobState.RUNNING)
    low = Want(product="low", team="a", risk_tier="low", is_preemptible=True)
    mine = desk.ask("train-low", low, task=("low_release", "run", "train"))
    assert desk.refusal(mine) == ""
    job_id = jobs.submit(spec_of(world, "low"))
    desk.hold(mine, job_id)
    wait_until(lambda: "training on" in log_of(shared, job_id), seconds=120)
    wait_until(lambda: list(world_folders(shared, "arrays.safetensors")), seconds=120)
    wait_until(lambda: list(world_folders(shared, "lock")), seconds=120)
    high = Want(product="high", team="b", risk_tier="high")
    urgent = desk.ask("train-high", high, task=("high_release", "run", "train"))
    assert "0 free" in desk.refusal(urgent)
    assert desk.must_yield(job_id)
    jobs.cancel(job_id, grace_s=shared.devices.grace_s)
    assert jobs.state(job_id) is JobState.FAILED
    with pytest.raises(JobFailed, match=r"stopped|signal"):
        jobs.result(job_id)
    desk.leave(job_id, will_return=True)
    assert desk.refusal(urgent) == ""
    assert "would delay train-high" in desk.refusal(mine)
    urgent_id = jobs.submit(spec_of(world, "high"))
    desk.hold(urgent, urgent_id)
    calm = json.loads(finish_long(jobs, urgent_id))
    desk.leave(urgent_id)
    assert desk.refusal(mine) == ""
    again = jobs.submit(spec_of(world, "low"))
    assert again != job_id
    done = json.loads(finish_long(jobs, again))
    assert "resumed at step" in log_of(shared, again)
    assert done["model"]["digest"] == calm["model"]["digest"]
    (line,) = Board(open_storage(shared.store_root), folder_of(shared.store_root, "cpu")).yields()
    assert (line.job_id, line.for_ask) == (job_id, "train-high")


def world_folders(shared: Environment, name: str):
    return (shared.home / "store").rglob(name)


def finish_long(jobs: LocalJobs, job_id: str) -> str:
    wait_until(lambda: jobs.state(job_id) is not JobState.RUNNING, seconds=240)
    return finish(jobs, job_id)
