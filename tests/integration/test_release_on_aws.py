"""A whole release with its jobs on AWS as tests/moto_server.py models it, beside the same release on this machine."""

import shutil
from pathlib import Path

import pytest
import yaml

from aws_kit import account, at_endpoint, moto_server
from clearway.contracts.release_document import Phase
from clearway.contracts.verdict import Verdict
from clearway.infra.aws.client import client
from clearway.infra.aws.secrets import binary_secret
from clearway.infra.clock import parse_instant
from clearway.infra.cost.ledger import Ledger
from clearway.infra.environment import Environment, project_root
from clearway.infra.jobs import open_jobs
from clearway.infra.layout import Layout
from clearway.infra.release_store import open_release_store
from clearway.infra.storage import open_storage
from clearway.launch.commands.warm_worker import LIBRARIES
from clearway.packaging.signing import install
from clearway.product_yaml import find_product
from clearway.release import release_request, run_release
from jobs_kit import end_all, wait_until, warm_worker
from serving_kit import environment_at, free_port, running_server

pytestmark = pytest.mark.slow
PRODUCTS = project_root() / "tests" / "products"
AS_OF = parse_instant("2015-01-01")


def machine(tmp_path, name: str, products: Path) -> Environment:
    """Two machines that share one signing key, as the machines of an account do."""
    home = tmp_path / name
    settings = {
        "CLEARWAY__HOME": str(home),
        "CLEARWAY__PRODUCTS": str(products),
        "CLEARWAY__TRACKING__URI": f"sqlite:///{home / 'mlflow.db'}",
        "CLEARWAY__ENDPOINT__ADMIN_TOKEN_FILE": str(home / "serving" / "admin.token"),
    }
    home.mkdir()
    return environment_at(Environment.load(settings), free_port())


def released(env: Environment):
    """Release the product; how the walk ended."""
    product = find_product(env.products, "seattle_rain")
    request = release_request(product.spec, "r1", as_of=AS_OF)
    with running_server(env, product="seattle_rain"):
        return run_release(env, product, request)


def facts(walk, env: Environment):
    """What both machines must agree on."""
    document, _ = open_release_store(env).read("seattle_rain")
    assert (document.phase, document.champion.digest) == (Phase.IDLE, walk.done["train"].model.digest)
    return (
        walk.verdict,
        {name: outputs.verdict for name, outputs in walk.done.items()},
        walk.done["preprocess"].dataset.digest,
        walk.done["train"].model.digest,
        walk.done["evaluate"].evaluation_digest,
    )


def test_a_release_on_aws_decides_and_makes_what_one_machine_does(aws, tmp_path):
    compare(tmp_path, PRODUCTS)


@pytest.mark.long
def test_a_study_on_aws_finds_what_one_machine_finds(tmp_path, monkeypatch):
    file = tmp_path / "products" / "seattle_rain" / "product.yaml"
    shutil.copytree(PRODUCTS / "seattle_rain", file.parent)
    written = yaml.safe_load(file.read_text(encoding="utf-8"))
    written["tune"] = {"num_trials": 5, "space": {"lr": {"low": 0.0005, "high": 0.005, "log": True}}}
    file.write_text(yaml.safe_dump(written, sort_keys=False), encoding="utf-8")
    with moto_server(file.parents[1]) as endpoint:
        for _ in at_endpoint(endpoint, monkeypatch):
            on_aws, local = compare(tmp_path, file.parents[1])
    assert (on_aws.num_trials, on_aws.params) == (5, local.params)


def compare(tmp_path, products: Path):
    """One release on both; what tuning said."""
    here = machine(tmp_path, "here", products)
    there = account(
        machine(tmp_path, "there", products),
        stage=project_root() / "include" / "aws" / "clearway_job.py",
        services={"preprocess": "emr_serverless", "train": "sagemaker", "tune": "sagemaker"},
    )
    install(binary_secret(there.aws.signing_secret), key_folder=here.home / "keys")
    on_aws = released(there)
    with warm_worker(here, *LIBRARIES):
        local = released(here)
    end_all(here.home)
    assert on_aws.verdict is Verdict.PASS, on_aws.reason
    assert facts(on_aws, there) == facts(local, here)
    jobs = client("sagemaker").list_training_jobs()["TrainingJobSummaries"]
    assert {job["TrainingJobName"].split("-")[1] for job in jobs} >= {"train", "tune"}
    runs = client("emr-serverless").list_job_runs(applicationId=there.aws.emr_application)["jobRuns"]
    assert [run["state"] for run in runs] == ["SUCCESS"]
    storage, layout = open_storage(there.store_root), Layout(there.store_root, "seattle_rain")
    assert storage.exists(layout.release("r1", "evaluate", "report.html"))
    check_bills(there, here)
    return on_aws.done["tune"], local.done["tune"]


def check_bills(there: Environment, here: Environment) -> None:
    """Every job was billed once, where it ran, and measured itself."""
    ledger, runner = Ledger(there, "seattle_rain"), open_jobs(there)
    wait_until(lambda: ledger.settle("r1", runner) and not ledger.unbilled("r1"))
    bills = {bill.stage: bill for bill in ledger.bills("r1")}
    on_batch = dict.fromkeys(("ingest", "validate", "yardsticks", "evaluate", "deploy"), "batch")
    assert {stage: bill.service for stage, bill in bills.items()} == {
        "preprocess": "emr_serverless", "tune": "sagemaker", "train": "sagemaker", **on_batch
    }  # fmt: skip
    assert all(bill.cost and bill.cost > 0 and bill.measured and bill.has_succeeded for bill in bills.values())
    assert 1 - bills["train"].cost / bills["train"].full_cost == pytest.approx(0.7, abs=0.1)
    local = Ledger(here, "seattle_rain").bills("r1")
    assert {bill.stage for bill in local} == set(bills)
    assert all((bill.cost, bill.service) == (0.0, "local") and bill.billed_s > 0 for bill in local)
