"""The DAGs in a running Airflow with `CLEARWAY_ENV=aws`, on AWS as tests/moto_server.py models it: every strategy.

One Airflow for all of them, and one champion after the other: each release trains on a month more than the one before.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
import yaml

import http_kit
from aws_kit import at_endpoint, moto_server, variables
from clearway.infra.aws.client import client
from clearway.infra.cost.ledger import Ledger
from clearway.infra.environment import Environment, project_root
from clearway.infra.jobs import open_jobs
from clearway.release import release_id
from cloud_kit import STAGES, asking, check_a_month_is_scored, check_promoted, check_rollback, cloud_settings, run_by
from stack_kit import Stack, started, until

pytestmark = [pytest.mark.long, pytest.mark.slow, pytest.mark.airflow, pytest.mark.timeout(1800)]
PRODUCT = "seattle_rain"
# What the settings of the account send elsewhere; all other stages are containers of Batch.
SERVICES = {"preprocess": "emr_serverless", "tune": "sagemaker_tuning", "train": "sagemaker"}
# Judged by few requests within seconds, and nobody is slow: what is tried is the way, not the verdict.
PATIENT = {"min_requests": 30, "min_step_s": 0.5, "error_margin": 0.2, "slow_s": 10.0, "slow_margin": 0.3}
SHADOW, WATCH = {"min_rows": 50, "margin": 0.5}, {"min_s": 0.5, "min_requests": 50}
AB_TEST = {"share_pct": 50.0, "horizon_s": 1.5}
# Of the first release: the product as written is judged by the stage, the other trials by a tuning job, two at a time.
NUM_TRIALS = 4
STUDY = {"sampler": "random", "space": {"lr": {"low": 0.0005, "high": 0.002, "log": True}}}
# strategy, kinds of steps that its record must have gone through, as_of
RELEASES = {
    "blue_green": ("blue_green", [], "2015-01-01"),
    "canary": ("canary", ["split", "split"], "2015-02-01"),
    "shadow_then_canary": (["shadow", "canary"], ["mirror", "split", "split"], "2015-03-01"),
    "ab_test": ("ab_test", ["split", "split"], "2015-04-01"),
    "watch": (["blue_green", "watch"], ["watch"], "2015-05-01"),
}


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A running Airflow whose jobs, data and release documents are on AWS."""
    folder = tmp_path_factory.mktemp("cloud")
    products = folder / "products"
    shutil.copytree(project_root() / "tests" / "products" / PRODUCT, products / PRODUCT)
    with moto_server(products) as endpoint, pytest.MonkeyPatch.context() as patch:
        for _ in at_endpoint(endpoint, patch):
            found = Stack(folder / "home", products=products, product=PRODUCT)
            found.variables |= variables(endpoint) | cloud_settings(found, services=SERVICES)
            found.variables["CLEARWAY__AWS__TUNING_PARALLEL"] = "2"
            with started(found):
                yield found


def plan(stack: Stack, strategy: str | list[str], *, num_trials: int) -> None:
    """Write strategy and study into the product's file."""
    file = stack.product_folder / "product.yaml"
    written = yaml.safe_load(file.read_text(encoding="utf-8"))
    written["rollout"] = PATIENT | {"strategy": strategy, "steps_pct": [50, 100]}
    written["rollout"] |= {"shadow": SHADOW, "ab_test": AB_TEST, "watch": WATCH}
    written["tune"] = STUDY | {"num_trials": num_trials}
    file.write_text(yaml.safe_dump(written, sort_keys=False), encoding="utf-8")


@contextmanager
def callers_who_report(stack: Stack) -> Iterator[None]:
    """Callers to whom a newer model does better, for an A/B test; the stack's own callers report nothing."""
    champion = stack.document().champion
    with httpx.Client(base_url=stack.endpoint_url, timeout=60) as http:

        def ask(number: int, row: dict[str, Any]) -> None:
            headers = {"x-clearway-sticky-key": f"reporter-{number}"}
            digest = http.post("/invocations", json={"instances": [row]}, headers=headers).json()["model_digest"]
            outcome = {"key": f"reporter-{number}", "model_digest": digest}
            outcome |= {"value": 0.2 if champion and digest == champion.digest else 0.9}
            http.post("/outcomes", json={"outcomes": [outcome]})

        with asking(stack, ask, pause_s=lambda: 0.01):
            yield


@pytest.mark.parametrize(("strategy", "kinds", "as_of"), RELEASES.values(), ids=RELEASES)
def test_a_release_is_promoted_by(cloud: Stack, strategy: Any, kinds: list[str], as_of: str) -> None:
    run = run_by(strategy)
    before = cloud.document().champion
    num_trials = NUM_TRIALS if before is None else 0
    plan(cloud, strategy, num_trials=num_trials)
    with callers_who_report(cloud):
        cloud.api.trigger(f"{PRODUCT}_release", run, conf={"as_of": as_of, "approval": "person"}, note="")
        states = cloud.wait("release", run, answer="Approve")
    trained = check_promoted(cloud, run, states, before=before, kinds=kinds)
    check_bills(cloud.env, release_id(f"{PRODUCT}_release", run), has_study=num_trials > 0)
    assert cloud.outputs("release", run, "tune")["num_trials"] == num_trials
    report = http_kit.get(f"{cloud.url}/clearway/runs/{PRODUCT}_release/{run}/evaluate/report.html")
    assert (report.status_code, trained[:12] in report.text) == (httpx.codes.OK, True)


def check_bills(env: Environment, name: str, *, has_study: bool) -> None:
    """Each stage that is a job ran once, where the settings send it; trials are on the bill of their study."""
    ledger, runner = Ledger(env, PRODUCT), open_jobs(env)
    until(lambda: ledger.settle(name, runner) and not ledger.unbilled(name), seconds=120, what="the bills")
    bills = ledger.bills(name)
    jobs = set(STAGES) - {"approve"}
    assert sorted(bill.stage for bill in bills) == sorted(jobs)
    assert {bill.stage: bill.service for bill in bills} == {stage: SERVICES.get(stage, "batch") for stage in jobs}
    assert all(bill.has_succeeded for bill in bills)
    (tuned,) = (bill for bill in bills if bill.stage == "tune")
    assert (env.aws.training_instance in {line.what for line in tuned.lines}) is has_study


def test_a_month_that_landed_is_scored_and_monitored(cloud: Stack) -> None:
    check_a_month_is_scored(cloud, day="2015-05-01T00:00:00Z")


def test_the_rollback_brings_the_previous_champion_back(cloud: Stack) -> None:
    check_rollback(cloud)


def test_a_person_who_fails_a_study_stops_its_tuning_job(cloud: Stack) -> None:
    def studies(status: str) -> set[str]:
        found = client("sagemaker").list_hyper_parameter_tuning_jobs(StatusEquals=status)
        return {job["HyperParameterTuningJobName"] for job in found["HyperParameterTuningJobSummaries"]}

    plan(cloud, "blue_green", num_trials=25)
    cloud.api.trigger(f"{PRODUCT}_release", "stopped", conf={"as_of": "2014-12-01"}, note="")
    until(lambda: studies("InProgress"), seconds=420, what="a tuning job")
    (name,) = studies("InProgress")
    path = f"/dags/{PRODUCT}_release/dagRuns/stopped/taskInstances/tune"
    cloud.call("PATCH", path, {"new_state": "failed"})
    until(lambda: name in studies("Stopped"), seconds=420, what="the end of the tuning job")
    cloud.wait("release", "stopped")
    assert cloud.state("release", "stopped", "tune") == "failed"
    assert studies("InProgress") == set()
