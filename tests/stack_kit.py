"""A running Airflow with one product of the tests and real stages."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import psutil

from clearway.contracts.release_document import ReleaseDocument
from clearway.infra.endpoint import TrafficState, open_endpoint
from clearway.infra.environment import Environment, project_root
from clearway.infra.jobs.processes import JOB_VARIABLE
from clearway.infra.release_store import open_release_store
from clearway.launch.airflow_api import AirflowApi

# What ingest and preprocess keep of batches, below the product's part of the store.
LANDED = ("ledger", "batches", "features")
SHUFFLE = """

import numpy as np


def shape(raw):
    tables = honest_shape(raw)
    labels = tables["labels"]
    rain, is_old = labels["rain"].to_numpy().copy(), labels["day_end"].to_numpy() < np.datetime64("{before}")
    rain[is_old] = np.random.default_rng(2012).permutation(rain[is_old])
    return tables | {{"labels": labels.set_column(labels.column_names.index("rain"), "rain", pa.array(rain))}}
"""
START_TIMEOUT_S = 300
# A release of the rain product takes half a minute alone; neighbours on the same cores make it several.
RUN_TIMEOUT_S = 420


class Stack:
    """One stack: its REST API, its home folder, and what can be done to it."""

    def __init__(self, home: Path, *, products: Path, product: str) -> None:
        self.home, self.product = home, product
        self.product_folder = products / product
        self.variables = {
            "CLEARWAY__HOME": str(home),
            "CLEARWAY__PRODUCTS": str(products),
            # A person answers here, so that the approval page is part of what is tested.
            "CLEARWAY__APPROVE__MODE": "person",
        }
        self.url = self.endpoint_url = ""
        self.api: AirflowApi

    @property
    def environment(self) -> dict[str, str]:
        """Variables of a command against this stack."""
        return {**clean_environment(), **self.variables}

    @property
    def env(self) -> Environment:
        """What this stack's tasks run in, but for keys of their own."""
        served = {"CLEARWAY__ENDPOINT__URL": self.endpoint_url} if self.endpoint_url else {}
        return Environment.load(self.variables | served)

    @contextmanager
    def guarded(self) -> Iterator[None]:
        """Stopped at the end, also when this process is killed: a shell stops the stack once its input ends unsaid."""
        stop = [sys.executable, "-m", "clearway", "stop"]
        words = ["sh", "-c", 'read -r said || exec "$@" >/dev/null 2>&1', "sh", *stop]
        pipe = subprocess.PIPE
        with subprocess.Popen(
            words, stdin=pipe, env=self.environment, cwd=project_root(), start_new_session=True
        ) as guard:
            try:
                yield
            finally:
                self.clearway("stop")
                guard.communicate(b"stopped\n")

    def clearway(self, *words: str) -> dict[str, Any]:
        """Run a command of ours against this stack."""
        return run_clearway(*words, environment=self.environment)

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """A REST call that must succeed."""
        answer = httpx.request(method, f"{self.url}/api/v2{path}", json=body, timeout=60)
        assert answer.is_success, f"{method} {path}: {answer.status_code} {answer.text[:500]}"
        return answer.json()

    def document(self) -> ReleaseDocument:
        """The release document as it is now."""
        document, _ = open_release_store(Environment.load(self.variables)).read(self.product)
        return document

    def traffic(self) -> TrafficState:
        """What the model server says of itself."""
        return open_endpoint(self.env, product=self.product).state()

    @contextmanager
    def shuffled_labels(self, *, before: str) -> Iterator[None]:
        """The source delivers every label of a day before `before` with another such day; on leaving all is as it was.

        What was landed is put aside meanwhile: a landed batch never changes, ingest would rightly refuse the new bytes.
        """
        source, store = self.product_folder / "source.py", self.home / "store" / self.product
        honest, aside = source.read_text(encoding="utf-8"), self.home / "aside"
        aside.mkdir()
        for name in LANDED:
            (store / name).rename(aside / name)
        source.write_text(honest.replace("def shape(", "def honest_shape(") + SHUFFLE.format(before=before))
        try:
            yield
        finally:
            source.write_text(honest, encoding="utf-8")
            for name in LANDED:
                shutil.rmtree(store / name)
                (aside / name).rename(store / name)

    def state(self, dag: str, run_id: str, task: str) -> str | None:
        """A task's state now."""
        found = self.call("GET", f"/dags/{self.product}_{dag}/dagRuns/{run_id}/taskInstances/{task}")
        return found["state"]

    def wait(self, dag: str, run_id: str, *, answer: str = "", seconds: float = RUN_TIMEOUT_S) -> dict[str, str | None]:
        """Wait for the end of a run, giving `answer` if a person is asked; returns task → state."""
        dag_id = f"{self.product}_{dag}"

        def has_ended() -> bool:
            if answer and self.questions(run_id):
                self.answer(run_id, answer)
            return self.api.run(dag_id, run_id).has_ended

        until(has_ended, seconds=seconds, what=f"end of {dag_id} {run_id}")
        return {task.task_id: task.state for task in self.api.tasks(dag_id, run_id)}

    def questions(self, run_id: str) -> list[dict[str, Any]]:
        """Questions of a release that wait for a person; one is there before its task has let go of its worker."""
        asked = [q["task_instance"] | q for q in self.api.pending_approvals()]
        return [q for q in asked if q["dag_run_id"] == run_id and q["state"] == "awaiting_input"]

    def answer(self, run_id: str, option: str, *, note: str = "") -> None:
        """Answer a release's question."""
        path = f"/dags/{self.product}_release/dagRuns/{quote(run_id, safe='')}/taskInstances/approve/-1/hitlDetails"
        self.call("PATCH", path, {"chosen_options": [option], "params_input": {"note": note}})

    def runs(self, dag: str) -> set[str]:
        """Run ids of a DAG."""
        return {run.run_id for run in self.api.runs(f"{self.product}_{dag}")}

    def new_run(self, dag: str, known: set[str]) -> str:
        """The next run of a DAG that is not one of `known`."""
        until(lambda: self.runs(dag) - known, seconds=120, what=f"a new run of {dag}")
        (run_id,) = self.runs(dag) - known
        return run_id

    def outputs(self, dag: str, run_id: str, task: str) -> dict[str, Any]:
        """What a task handed on."""
        return self.api.outputs(f"{self.product}_{dag}", run_id, task) or {}

    def post_event(self, asset: str, extra: dict[str, str]) -> None:
        """An asset event from outside."""
        found = self.call("GET", f"/assets?name_pattern={self.product}_{asset}")["assets"]
        self.call("POST", "/assets/events", {"asset_id": found[0]["id"], "extra": extra})

    def job_processes(self, stage: str) -> list[psutil.Process]:
        """Live processes of this stack's jobs of one stage."""
        return [p for p in psutil.process_iter() if self._runs_stage(p, stage)]

    @contextmanager
    def held_job(self, stage: str, *, seconds: float = 420) -> Iterator[list[psutil.Process]]:
        """The processes of the next job of one stage, stopped as soon as they are seen, and going on afterwards.

        Looked for without a pause that a short job could pass through: a look costs some milliseconds.
        """
        end = time.monotonic() + seconds
        while not (held := self.job_processes(stage)):
            assert time.monotonic() < end, f"waited {seconds} s in vain for the job of {stage}"
            time.sleep(0.02)
        for process in held:
            process.suspend()
        try:
            yield held
        finally:
            for process in held:
                with suppress(psutil.NoSuchProcess):  # it was ended meanwhile
                    process.resume()

    def _runs_stage(self, process: psutil.Process, stage: str) -> bool:
        try:
            env = process.environ()
        except psutil.Error:
            return False
        return env.get(JOB_VARIABLE, "").startswith(str(self.home / "jobs" / f"{stage}-"))


def is_told_to_end(process: psutil.Process) -> bool:
    """Whether a SIGTERM waits for a stopped process, or has ended it."""
    try:
        status = Path(f"/proc/{process.pid}/status").read_text(encoding="ascii")
    except FileNotFoundError:
        return True
    (pending,) = [line.split()[1] for line in status.splitlines() if line.startswith("ShdPnd:")]
    return bool(int(pending, 16) & 1 << signal.SIGTERM - 1)


def clean_environment() -> dict[str, str]:
    """This process's variables without those that say which stack is meant."""
    return {k: v for k, v in os.environ.items() if not k.startswith(("AIRFLOW", "CLEARWAY"))}


def run_clearway(*words: str, environment: dict[str, str], timeout_s: float = START_TIMEOUT_S) -> dict[str, Any]:
    """What a command of ours prints as JSON; it must succeed."""
    done = subprocess.run(
        [sys.executable, "-m", "clearway", *words, "--json"],
        env=environment,
        cwd=project_root(),
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout)


def until(condition: Callable[[], Any], *, seconds: float, what: str) -> None:
    """Wait for something to become true."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"waited {seconds} s in vain for {what}"
        time.sleep(0.3)


def free_port() -> int:
    """A port nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def started(found: Stack) -> Iterator[Stack]:
    """Up and healthy, and stopped at the end."""
    ports = [("--airflow-port", free_port()), ("--mlflow-port", free_port()), ("--endpoint-port", free_port())]
    words = [text for name, port in ports for text in (name, str(port))]
    with found.guarded():
        up = found.clearway("up", "--detach", "--product", found.product, *words)
        found.url, found.endpoint_url = up["airflow"], up["endpoints"].get(found.product, "")
        found.api = AirflowApi(found.url)
        yield found
        found.api.close()
