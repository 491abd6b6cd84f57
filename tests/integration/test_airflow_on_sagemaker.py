"""The DAGs in a running Airflow whose models are served by a SageMaker endpoint, as tests/sagemaker_account.py has it.

All else is as in test_airflow_on_aws.py: data in S3, documents in DynamoDB, each stage a job, on moto. SageMaker counts
by the minute, so a canary takes minutes.
"""

import json
import random
import shutil
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from aws_kit import at_endpoint, moto_server, variables
from clearway.contracts.release_document import Phase
from clearway.infra.aws.client import client
from clearway.infra.clock import SystemClock
from clearway.infra.environment import project_root
from clearway.launch.example_request import try_example
from cloud_kit import asking, check_a_month_is_scored, check_promoted, check_rollback, cloud_settings, run_by
from sagemaker_account import Account, Fate
from sagemaker_server import sagemaker_server
from stack_kit import Stack, started

pytestmark = [pytest.mark.long, pytest.mark.slow, pytest.mark.airflow, pytest.mark.timeout(1800)]
PRODUCT, ENDPOINT = "seattle_rain", "clearway-seattle-rain"
SERVICES = {"preprocess": "emr_serverless", "train": "sagemaker"}
SAGEMAKER = {
    "CLEARWAY__ENDPOINT__KIND": "sagemaker",
    "CLEARWAY__SAGEMAKER__IMAGE": "123456789012.dkr.ecr.us-east-1.amazonaws.com/clearway-serving:1",
    "CLEARWAY__SAGEMAKER__ROLE": "arn:aws:iam::123456789012:role/clearway-serving",
    "CLEARWAY__SAGEMAKER__POLL_S": "0.5",
    "CLEARWAY__SAGEMAKER__METRICS_DELAY_S": "1",
}
RUN_TIMEOUT_S = 1200
CALLS_PER_S = 5.0
# A step lasts as long as whole minutes of figures take; nobody is slow, and what is tried is the way.
PLAN = {
    "steps_pct": [50, 100],
    "min_requests": 30,
    "min_step_s": 60,
    "max_step_s": 900,
    "hold_s": 600,
    "error_margin": 0.2,
    "slow_s": 10.0,
    "slow_margin": 0.3,
    "shadow": {"min_rows": 50, "margin": 0.5},
    "watch": {"min_s": 60, "min_requests": 50},
}
RELEASES = {
    "blue_green": ("blue_green", [], "2015-01-01"),
    "canary": ("canary", ["split", "split"], "2015-02-01"),
    "shadow_then_canary": (["shadow", "canary"], ["mirror", "split", "split"], "2015-03-01"),
    "watch": (["blue_green", "watch"], ["watch"], "2015-04-01"),
}


class Cloud:
    """The stack, and the account behind it, which tests read and change."""

    def __init__(self, stack: Stack, account: Account) -> None:
        self.stack, self.account = stack, account

    def release(self, run: str, strategy: str | list[str], as_of: str) -> dict[str, str | None]:
        """States of a release's tasks, callers asking meanwhile."""
        file = self.stack.product_folder / "product.yaml"
        written = yaml.safe_load(file.read_text(encoding="utf-8"))
        written["rollout"] = PLAN | {"strategy": strategy}
        file.write_text(yaml.safe_dump(written, sort_keys=False), encoding="utf-8")
        conf = {"as_of": as_of, "approval": "person"}
        rng = random.Random(7)  # noqa: S311
        with asking(self.stack, ask, pause_s=lambda: rng.expovariate(CALLS_PER_S)):
            self.stack.api.trigger(f"{PRODUCT}_release", run, conf=conf, note="")
            return self.stack.wait("release", run, answer="Approve", seconds=RUN_TIMEOUT_S)


def ask(_: int, row: dict[str, Any]) -> None:
    """As a product's callers ask SageMaker: by signed calls of the runtime."""
    body = json.dumps({"instances": [row]}).encode()
    asked = {"EndpointName": ENDPOINT, "ContentType": "application/json", "Body": body}
    client("sagemaker-runtime").invoke_endpoint(**asked)["Body"].read()


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    """A running Airflow without a model server; callers, jobs and tasks all take the account's address for AWS."""
    folder = tmp_path_factory.mktemp("cloud")
    products = folder / "products"
    shutil.copytree(project_root() / "tests" / "products" / PRODUCT, products / PRODUCT)
    with (
        sagemaker_server() as stage,
        moto_server(products, seen_as=stage.address) as moto,
        pytest.MonkeyPatch.context() as patch,
    ):
        stack = Stack(folder / "home", products=products, product=PRODUCT)
        for _ in at_endpoint(moto, patch):
            stack.variables |= variables(stage.address) | cloud_settings(stack, services=SERVICES, **SAGEMAKER)
        account = Account(stack.env, SystemClock(), home=folder / "containers", upstream=moto, update_s=3.0)
        stage.account = account
        for _ in at_endpoint(stage.address, patch):
            with started(stack):
                yield Cloud(stack, account)
        account.close()
        assert account.misfits == []


@pytest.mark.parametrize(("strategy", "kinds", "as_of"), RELEASES.values(), ids=RELEASES)
def test_a_release_is_promoted_by(cloud: Cloud, strategy: str | list[str], kinds: list[str], as_of: str) -> None:
    stack, run = cloud.stack, run_by(strategy)
    before = stack.document().champion
    states = cloud.release(run, strategy, as_of)
    trained = check_promoted(stack, run, states, before=before, kinds=kinds)
    served = client("sagemaker").describe_endpoint(EndpointName=ENDPOINT)
    (variant,) = [v["VariantName"] for v in served["ProductionVariants"] if v["CurrentWeight"] > 0]
    config = client("sagemaker").describe_endpoint_config(EndpointConfigName=served["EndpointConfigName"])
    (model,) = [v["ModelName"] for v in config["ProductionVariants"] if v["VariantName"] == variant]
    container = client("sagemaker").describe_model(ModelName=model)["PrimaryContainer"]
    assert container["Environment"]["CLEARWAY__SAGEMAKER__MODEL_DIGEST"] == trained


def test_the_request_to_copy_is_answered_by_the_champion(cloud: Cloud) -> None:
    champion = cloud.stack.document().champion
    tried = try_example(cloud.stack.env, PRODUCT, champion)
    assert tried.answer["model_digest"] == champion.digest
    assert f"--endpoint-name {ENDPOINT} " in tried.curl


def test_an_update_that_sagemaker_takes_back_ends_the_release_by_a_verdict(cloud: Cloud) -> None:
    stack, before = cloud.stack, cloud.stack.document()
    cloud.account.next_fate = lambda: Fate("silent")
    try:
        states = cloud.release("taken-back", "blue_green", "2015-05-01")
    finally:
        cloud.account.next_fate = Fate
    assert states["deploy"] == "success", "no is green"
    deployed, document = stack.outputs("release", "taken-back", "deploy"), stack.document()
    assert deployed["verdict"] == "fail", deployed
    assert "none given" in deployed["reason"]
    assert (document.champion, document.phase) == (before.champion, Phase.IDLE)
    assert stack.traffic().weights_pct == {before.champion.digest: 100.0}


def test_a_month_that_landed_is_scored_by_the_endpoint(cloud: Cloud) -> None:
    check_a_month_is_scored(cloud.stack, day="2015-04-01T00:00:00Z")


def test_the_rollback_brings_the_previous_champion_back(cloud: Cloud) -> None:
    check_rollback(cloud.stack)
