"""What tests of a running Airflow on AWS share: settings, callers while a release runs, what must hold after it."""

import itertools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from aws_kit import account
from clearway.contracts.release_document import Phase, Version
from clearway.deploy.history import read_rollout
from clearway.infra.endpoint import open_endpoint
from clearway.infra.environment import Environment, project_root
from clearway.infra.jobs.processes import environment_variables
from clearway.infra.layout import Layout
from clearway.infra.storage import open_storage
from clearway.release import release_id
from stack_kit import Stack

STAGES = ("ingest", "preprocess", "validate", "tune", "train", "yardsticks", "evaluate", "approve", "deploy")


def cloud_settings(stack: Stack, *, services: dict[str, str], **more: str) -> dict[str, str]:
    """Variables of an installation on AWS, in a fresh account: as conf/aws.yaml says, but with Sail for the cluster's
    Spark. `services`: stage → service, where it is not Batch."""
    asked = {
        **stack.variables,
        "CLEARWAY_ENV": "aws",
        "CLEARWAY__STORAGE__ROOT": "s3://none/yet",
        "CLEARWAY__SPARK__ENGINE": "sail",
        "CLEARWAY__JOBS__POLL_S": "0.5",
        "CLEARWAY__ENDPOINT__ADMIN_TOKEN_FILE": str(stack.home / "serving" / "admin.token"),
    }
    stage = project_root() / "include" / "aws" / "clearway_job.py"
    env = account(Environment.load(asked | more), stage=stage, services=services)
    assert env.jobs.deferrable, "what is tried is the shipped configuration"
    return {name: value for name, value in environment_variables(env).items() if value}


@contextmanager
def asking(
    stack: Stack, ask: Callable[[int, dict[str, Any]], object], *, pause_s: Callable[[], float]
) -> Iterator[None]:
    """`ask` is called with a number and a row that the champion takes, again and again; never before there is one."""
    champion, done = stack.document().champion, threading.Event()
    rows = open_endpoint(stack.env, product=stack.product).examples(champion.digest) if champion else []

    def run() -> None:
        for number in itertools.count():
            if done.wait(pause_s()):
                return
            ask(number, rows[number % len(rows)])

    thread = threading.Thread(target=run)
    if rows:
        thread.start()
    try:
        yield
    finally:
        done.set()
        if rows:
            thread.join(60)


def run_by(strategy: str | list[str]) -> str:
    """Name of the run that releases by this strategy."""
    return f"by-{'-'.join([strategy] if isinstance(strategy, str) else strategy)}"


def check_promoted(
    stack: Stack, run: str, states: dict[str, str | None], *, before: Version | None, kinds: list[str]
) -> str:
    """The release went through these kinds of steps and took the traffic; the digest of its model."""
    assert states == dict.fromkeys((*STAGES, "champion"), "success"), {
        stage: stack.outputs("release", run, stage) for stage in ("evaluate", "deploy")
    }
    document, trained = stack.document(), str(stack.outputs("release", run, "train")["model"]["digest"])
    deployed = stack.outputs("release", run, "deploy")
    assert (deployed["verdict"], document.phase) == ("pass", Phase.IDLE), deployed
    assert document.champion is not None
    assert document.champion.digest == trained
    assert document.previous == before
    assert stack.traffic().weights_pct == {trained: 100.0}
    name = release_id(f"{stack.product}_release", run)
    rollout = read_rollout(open_storage(stack.env.store_root), Layout(stack.env.store_root, stack.product), name)
    assert ([step.kind.value for step in rollout.plan] if rollout else []) == kinds
    assert not rollout or rollout.is_last
    return trained


def check_a_month_is_scored(stack: Stack, *, day: str) -> None:
    """The batch that begins on `day` lands, is scored by the endpoint and monitored."""
    known, runs = stack.runs("monitor"), stack.runs("ingest")
    body = {"dag_id": f"{stack.product}_ingest", "from_date": day, "to_date": day, "max_active_runs": 1}
    stack.call("POST", "/backfills", body | {"reprocess_behavior": "none"})
    assert stack.wait("ingest", stack.new_run("ingest", runs)) == {"ingest": "success", "batches": "success"}
    monitor = stack.new_run("monitor", known)
    states = stack.wait("monitor", monitor)
    assert {states[task] for task in ("ingest", "preprocess", "serve", "monitor")} == {"success"}
    served, champion = stack.outputs("monitor", monitor, "serve"), stack.document().champion
    assert champion is not None
    assert served["digest"] == champion.digest
    assert served["num_rows"] > 0


def check_rollback(stack: Stack) -> None:
    """The rollback brings the previous champion back."""
    before = stack.document()
    assert before.previous is not None
    stack.api.trigger(f"{stack.product}_rollback", "back", conf={"reason": "drill"}, note="")
    assert stack.wait("rollback", "back") == {"revert": "success", "champion": "success"}
    champion = stack.document().champion
    assert champion is not None
    assert champion.digest == before.previous.digest
    assert stack.traffic().weights_pct == {before.previous.digest: 100.0}
