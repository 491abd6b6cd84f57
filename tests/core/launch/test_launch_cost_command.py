"""`python -m clearway cost`: what a release cost, stage by stage, for people and for scripts."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from clearway.__main__ import EXIT_REFUSED, main
from clearway.infra.aws.client import client
from clearway.infra.clock import SystemClock
from clearway.infra.cost.purse import Purse
from clearway.infra.environment import Environment
from clearway.infra.jobs import JobSpec
from clearway.infra.jobs.local import LocalJobs
from clearway.product import LoadedProduct
from http_kit import post
from iam_kit import recorded
from jobs_kit import STAGE, end_all, finish
from shape_kit import misfits


@pytest.fixture
def billed(env: Environment, flights: LoadedProduct, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A release one job of which really ran here, on a machine of 3600 per hour; nobody has written its bill yet."""
    monkeypatch.setenv("CLEARWAY__HOME", str(env.home))
    monkeypatch.setenv("CLEARWAY__JOBS__PRICE_PER_HOUR", "3600")
    (tmp_path / "stage.py").write_text(STAGE)
    (tmp_path / "go").touch()
    jobs = LocalJobs(env, command=(sys.executable, str(tmp_path / "stage.py")))
    files = {"starts": str(tmp_path / "starts"), "go": str(tmp_path / "go")}
    inputs = json.dumps({"product": "flights", "release_id": "manual-1", **files})
    spec = JobSpec(stage="train", inputs_json=inputs, key="train-1")
    purse = Purse(env, flights, jobs, is_release=True, stages=("train",))
    finish(jobs, jobs.submit(purse.admit(spec, now_s=SystemClock().now_s()).spec))
    yield "manual-1"
    end_all(env.home)


def shown(capsys: pytest.CaptureFixture[str], *words: str) -> Any:
    assert main(["cost", *words, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_a_release_is_shown_with_seconds_price_and_expectation(billed: str, capsys: pytest.CaptureFixture[str]) -> None:
    found = shown(capsys, "--product", "flights", "--release", billed)
    (run,) = found["products"][0]["runs"]
    (stage,) = run["stages"]
    assert (stage["stage"], stage["service"], stage["num_attempts"]) == ("train", "local", 1)
    assert run["cost"] == pytest.approx(stage["billed_s"])  # 3600 per hour
    assert 0 < stage["billed_s"] < 60
    assert stage["estimate"]["basis"] == "limit"
    assert shown(capsys)["products"] == found["products"]
    assert main(["cost", "--product", "flights"]) == 0
    text = capsys.readouterr().out
    assert "manual-1, begun 20" in text
    assert "(its limit)" in text


def test_batch_runs_are_shown_apart(billed: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert shown(capsys, "--batches")["products"][0]["runs"] == []


@pytest.mark.parametrize("words", [["--release", "x"], ["--product", "flights", "--release", "x"], ["--product", "y"]])
def test_what_is_not_known_is_refused(billed: str, words: list[str]) -> None:
    assert main(["cost", *words]) == EXIT_REFUSED


def group(product: str, stage: str, amount: str) -> dict[str, Any]:
    keys = [f"clearway:product${product}", f"clearway:stage${stage}"]
    return {"Keys": keys, "Metrics": {"UnblendedCost": {"Amount": amount, "Unit": "USD"}}}


@pytest.mark.slow
def test_the_ledger_is_set_beside_what_cost_explorer_says(
    billed: str, aws: str, capsys: pytest.CaptureFixture[str]
) -> None:
    cost = shown(capsys, "--product", "flights", "--release", billed)["products"][0]["runs"][0]["cost"]
    months = [
        [group("flights", "train", "2.5"), group("flights", "", "0.5"), group("deliveries", "train", "9")],
        [group("flights", "train", "0.25"), group("", "", "1")],
    ]
    answer = {"ResultsByTime": [{"Groups": groups} for groups in months]}
    post(f"{aws}/moto-api/static/ce/cost-and-usage-results", json={"results": [answer]}).raise_for_status()
    with recorded() as calls:
        found = shown(capsys, "--aws", "--product", "flights", "--days", "7")
    assert [(row["product"], row["stage"], row["aws"]) for row in found["rows"]] == [
        ("", "", 1.0),
        ("flights", "", 0.5),
        ("flights", "train", 2.75),
    ]
    assert [row["ledger"] for row in found["rows"]] == [0.0, 0.0, pytest.approx(cost)]
    (asked,) = (call.asked for call in calls if call.operation == "GetCostAndUsage")
    assert asked["Filter"] == {"Tags": {"Key": "clearway:environment", "Values": ["local"]}}
    assert asked["TimePeriod"] == {"Start": found["first"], "End": found["end"]}
    model = client("ce").meta.service_model.operation_model("GetCostAndUsage")
    assert list(misfits(model.input_shape, dict(asked), model.name)) == []
    assert main(["cost", "--aws", "--product", "flights", "--days", "7"]) == 0
    assert "(no tag)" in capsys.readouterr().out


def test_no_days_are_refused(billed: str) -> None:
    assert main(["cost", "--aws", "--days", "0"]) == EXIT_REFUSED
