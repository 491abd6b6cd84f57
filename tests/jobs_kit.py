"""A stage in ten lines, run as a real child process, and a person's patience."""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from clearway.infra.clock import SystemClock
from clearway.infra.environment import Environment, project_root
from clearway.infra.jobs import JobRunner, JobSpec
from clearway.infra.jobs import local as local_jobs
from clearway.infra.jobs.local import jobs_folder
from clearway.infra.jobs.processes import child_variables, end_processes
from clearway.infra.jobs.start import is_listening
from clearway.infra.jobs.wait import wait_for
from clearway.infra.jobs.warm_worker import placeholder

# It obeys its inputs, counts its starts, and writes its result as the real stages do.
STAGE = """
import json, os, pathlib, subprocess, sys, time
_, stage, _, inputs_file, _, outputs_file = sys.argv
if "://" in inputs_file:
    from clearway.infra.storage import open_storage
    storage = open_storage(inputs_file)
    read, write = storage.read, lambda uri, text: storage.write(uri, text.encode())
else:
    read = lambda path: pathlib.Path(path).read_text()
    def write(path, text):
        pathlib.Path(path + ".new").write_text(text)
        os.rename(path + ".new", path)
asked = json.loads(read(inputs_file))
with open(asked["starts"], "a") as starts:
    starts.write(f"{os.getpid()}\\n")
print(f"{stage} begins", flush=True)
if asked.get("worker"):
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True)
    with open(asked["starts"], "a") as starts:
        starts.write(f"{child.pid}\\n")
while not pathlib.Path(asked["go"]).exists():
    time.sleep(0.01)
if asked.get("refuse"):
    error = {"error": "DataError", "text": "bad rows"}
    write(outputs_file.replace("outputs.json", "error.json"), json.dumps(error))
    sys.exit(2)
result = {"threads": os.environ["OMP_NUM_THREADS"], "airflow": [k for k in os.environ if k.startswith("AIRFLOW")]}
write(outputs_file, json.dumps(result))
"""


def spec_of(tmp_path: Path, *, key: str = "train-1", stage: str = "train", **asked: bool) -> JobSpec:
    """A job that waits for the file `go`; `worker` starts a child, `refuse` ends it with an error."""
    inputs = {"starts": str(tmp_path / "starts"), "go": str(tmp_path / "go"), **asked}
    return JobSpec(stage=stage, inputs_json=json.dumps(inputs), key=key)


def folder_of(tmp_path: Path, job_id: str) -> Path:
    """Where a local job's attempt lies in the test's own home."""
    return tmp_path.resolve() / "home" / "jobs" / job_id.replace(".", "/")


def starts(tmp_path: Path) -> list[int]:
    """Pids of all starts so far."""
    file = tmp_path / "starts"
    return [int(line) for line in file.read_text().split()] if file.exists() else []


def wait_until(condition: Callable[[], object], *, seconds: float = 120.0) -> None:
    """Until something is true."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


def finish(jobs: JobRunner, job_id: str, lines: list[str] | None = None) -> str:
    """The result of a job that may end now."""
    log = lines.append if lines is not None else lambda _: None
    return wait_for(jobs, job_id, clock=SystemClock(), poll_s=0.01, max_seconds=120, on_log=log)


@contextmanager
def warm_worker(env: Environment, *libraries: str) -> Iterator["subprocess.Popen[bytes]"]:
    """A real warm worker for the jobs of `env`, ready; killed at the end if it still lives."""
    folder = jobs_folder(env)
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "clearway.infra.jobs.warm_worker", str(folder), *libraries]
    variables = child_variables(env, placeholder())
    # The only variable that differs between a fixture and the test that uses it.
    variables |= {k: v.replace("(setup)", "(call)") for k, v in variables.items() if k == "PYTEST_CURRENT_TEST"}
    with (folder / "warm.log").open("ab") as log:
        child = subprocess.Popen(command, env=variables, cwd=project_root(), stdout=log, stderr=log)
    try:
        wait_until(lambda: child.poll() is not None or is_listening(folder), seconds=120)
        assert child.poll() is None, (folder / "warm.log").read_text()
        yield child
    finally:
        child.kill()
        child.wait(60)


def why_cold(tmp_path: Path, job_id: str) -> str:
    """Why a job was started as a new interpreter; empty for a fork."""
    return str(json.loads((folder_of(tmp_path, job_id) / "job.json").read_text())["why_cold"])


def end_all(home: Path) -> None:
    """End every job of a home folder and collect what the kernel still keeps of them."""
    for attempt in (home / "jobs").glob("*/0*"):
        end_processes(attempt, grace_s=0)
        child = local_jobs._children.pop(attempt, None)
        if child is not None:
            child.wait(60)
