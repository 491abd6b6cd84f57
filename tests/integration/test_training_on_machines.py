"""The stage train on several machines of AWS, as tests/moto_server.py models it: processes that share no folder."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from aws_kit import account
from clearway.contracts.codec import to_jsonable
from clearway.contracts.refs import DatasetRef
from clearway.infra.aws.client import client
from clearway.infra.aws.jobs import AwsJobs
from clearway.infra.aws.secrets import binary_secret
from clearway.infra.cost.prices import lines_of, rate_of, read_prices
from clearway.infra.environment import Environment
from clearway.infra.jobs import JobSpec, JobState
from clearway.infra.storage import LocalStorage, open_storage
from clearway.packaging.signing import install
from clearway.product import LoadedProduct
from clearway.train import produce
from clearway.train.run import run
from jobs_kit import wait_until
from serving_kit import free_port
from training_kit import World, make_world

pytestmark = [
    pytest.mark.slow,
    # MLflow 3.17 on SQLAlchemy 2.1; nothing of ours.
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning"),
]
# The command line as it is, with the small product of the tests; leaves beside it what its folders hold in the end.
COMMAND = """
import json, os, pathlib, sys
import clearway.launch.commands.stage as stage
from clearway.__main__ import main
from clearway.product import LoadedProduct
here = pathlib.Path(__file__).parent
stage.find_product = lambda *_: LoadedProduct.model_validate_json((here / "product.json").read_text())
code = main(sys.argv[1:])
home = pathlib.Path(os.environ["CLEARWAY__HOME"])
scratch = pathlib.Path(os.environ.get("CLEARWAY__JOBS__SCRATCH", home / "scratch"))
found = {
    str(folder): [str(path.relative_to(folder)) for path in sorted(folder.rglob("*")) if path.is_file()]
    for folder in (scratch, home)
}
(here / f"files-{os.getpid()}.json").write_text(json.dumps({"code": code, "scratch": found[str(scratch)]}))
sys.exit(code)
"""


@pytest.fixture
def world(env: Environment, flights: LoadedProduct) -> World:
    return make_world(env, flights)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory, flights: LoadedProduct) -> str:
    """Digest of the package of two processes on one machine, signed with a key that signs nothing else."""
    home = tmp_path_factory.mktemp("alone")
    world = make_world(Environment.load({"CLEARWAY__HOME": str(home)}), flights)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(produce, "num_local_processes", lambda: 2)
        return run(world.inputs(), product=world.product, env=world.env).model.digest


@pytest.fixture
def cloud(world: World, aws: str, tmp_path: Path) -> Iterator[Environment]:
    """An account with the dataset of `world`, where two machines train."""
    (tmp_path / "command.py").write_text(COMMAND)
    (tmp_path / "product.json").write_text(world.product.model_dump_json(by_alias=True))
    cloud = account(world.env, stage=tmp_path / "command.py", services={"train": "sagemaker"})
    install(binary_secret(cloud.aws.signing_secret), key_folder=world.env.home / "keys")
    storage = open_storage(cloud.store_root)
    for uri in LocalStorage().list(world.env.store_root):
        storage.write(uri.replace(world.env.store_root, cloud.store_root), LocalStorage().read(uri))
    training = cloud.training.model_copy(update={"port": free_port(), "join_timeout_s": 120.0})
    two = cloud.aws.model_copy(update={"training_count": 2})
    yield cloud.model_copy(update={"aws": two, "training": training})


def train(cloud: Environment, world: World, tmp_path: Path) -> tuple[AwsJobs, str]:
    """The stage as a job; the runner and its id, once it has ended."""
    inputs = world.inputs()
    dataset = DatasetRef(
        uri=inputs.dataset.uri.replace(world.env.store_root, cloud.store_root), digest=inputs.dataset.digest
    )
    asked = to_jsonable(inputs) | {
        "dataset": to_jsonable(dataset),
        "receipt_uri": inputs.receipt_uri.replace(world.env.store_root, cloud.store_root),
    }
    jobs = AwsJobs(cloud, command=("python", "-u", str(tmp_path / "command.py")))
    job = jobs.submit(JobSpec(stage="train", inputs_json=json.dumps(asked), key="train-1", max_seconds=600))
    wait_until(lambda: jobs.state(job) is not JobState.RUNNING)
    return jobs, job


def left(tmp_path: Path) -> list[dict[str, Any]]:
    """What each machine left, the first one first."""
    found = [json.loads(path.read_text()) for path in tmp_path.glob("files-*.json")]
    return sorted(found, key=lambda one: not one["scratch"])


def test_two_machines_of_sagemaker_make_the_package_of_two_processes_on_one(cloud, world, tmp_path, alone):
    jobs, job = train(cloud, world, tmp_path)
    assert jobs.state(job) is JobState.SUCCEEDED, jobs.read_log(job, 0)[0]
    assert json.loads(jobs.result(job))["model"]["digest"] == alone
    wait_until(lambda: len(left(tmp_path)) == 2 and jobs.usage(job))
    first, other = left(tmp_path)
    assert (first["code"], other["code"], other["scratch"]) == (0, 0, [])  # one machine keeps checkpoints, for all
    assert any(name.endswith(".ckpt") for name in first["scratch"])
    assert [name for name in first["scratch"] if "keys" in name] == []  # SageMaker copies this folder into the store
    (used,) = jobs.usage(job).used
    newest = max(client("sagemaker").list_training_jobs()["TrainingJobSummaries"], key=lambda job: job["CreationTime"])
    described = client("sagemaker").describe_training_job(TrainingJobName=newest["TrainingJobName"])
    assert used.full_hours == pytest.approx(2 * described["TrainingTimeInSeconds"] / 3600)
    prices = read_prices(cloud)
    (line,) = lines_of((used,), prices=prices, env=cloud)
    assert line.price == prices.machines[cloud.aws.training_instance].price
    assert rate_of(cloud, prices, "train") == 2 * line.price
    assert rate_of(cloud, prices, "evaluate") != rate_of(cloud, prices, "train")


@pytest.mark.long
def test_two_nodes_of_batch_make_the_package_of_two_processes_on_one(cloud, world, tmp_path, alone):
    nodes = cloud.aws.model_copy(update={"services": cloud.aws.services.model_copy(update={"train": "batch"})})
    cloud = cloud.model_copy(update={"aws": nodes})
    jobs, job = train(cloud, world, tmp_path)
    assert jobs.state(job) is JobState.SUCCEEDED, jobs.read_log(job, 0)[0]
    assert json.loads(jobs.result(job))["model"]["digest"] == alone
    wait_until(lambda: jobs.usage(job))
    usage = jobs.usage(job)
    (used,) = usage.used
    assert (used.what, used.hours) == ("m5.2xlarge", pytest.approx(2 * max(60, usage.end_s - usage.begin_s) / 3600))
    assert rate_of(cloud, read_prices(cloud), "train") == 2 * read_prices(cloud).machines["m5.2xlarge"].price
    assert "epoch 3 of 3 done" in jobs.read_log(job, 0)[0]  # lines of the node that runs the stage


@pytest.mark.long
def test_a_machine_that_fails_ends_the_job_with_its_reason(cloud, world, tmp_path):
    broken = (tmp_path / "command.py").read_text()
    plant = 'import os\nif "127.0.0.2" in os.environ["CLEARWAY__TRAINING__HOSTS"]:\n    os.environ["CLEARWAY_FAULT"] = '
    (tmp_path / "command.py").write_text(f'{plant}"engine.step=raise@2"\n{broken}')
    training = cloud.training.model_copy(update={"max_restarts": 0})
    jobs, job = train(cloud.model_copy(update={"training": training}), world, tmp_path)
    assert jobs.state(job) is JobState.FAILED
    with pytest.raises(Exception, match=r"machine 127\.0\.0\.2 failed first: exit code 1: InjectedFault"):
        jobs.result(job)
    wait_until(lambda: len(left(tmp_path)) == 2)
    assert [one["code"] for one in left(tmp_path)] == [3, 3]
