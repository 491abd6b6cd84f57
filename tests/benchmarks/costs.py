"""What processes cost: CPU seconds of a whole tree and wall seconds. Shared by the parts of bench_release.py.

The process that measures is the reaper of its descendants, so that a JVM which outlives the Python that started it is
waited for and counted. Call `process.adopt_orphans` (clearway.launch) first.
"""

import json
import os
import resource
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import psutil

from clearway.infra.environment import Environment, project_root
from clearway.infra.jobs import JobSpec, JobState
from clearway.infra.jobs.local import LocalJobs, jobs_folder
from clearway.infra.jobs.start import is_listening

STEP_TIMEOUT_S = 1800
START_TIMEOUT_S = 180


class Cost(NamedTuple):
    """CPU seconds of a process tree, user and system, and wall seconds."""

    cpu_s: float
    wall_s: float


def measured(command: Sequence[str], *, settings: Mapping[str, str]) -> Cost:
    """Cost of one process with everything it starts. Raises: RuntimeError with the end of its output."""
    before, begin = _reaped_s(), time.monotonic()
    known = {p.pid for p in psutil.Process().children()}
    done = subprocess.run(
        command,
        env=os.environ | dict(settings),
        cwd=project_root(),
        capture_output=True,
        text=True,
        timeout=STEP_TIMEOUT_S,
        check=False,
    )
    wall_s = time.monotonic() - begin
    for orphan in psutil.Process().children():
        if orphan.pid not in known:
            os.waitpid(orphan.pid, 0)
    if done.returncode:
        raise RuntimeError(f"{command[1:4]} ended with {done.returncode}:\n{done.stderr[-3000:]}")
    return Cost(_reaped_s() - before, wall_s)


def _reaped_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def tree_cpu_s(pids: Sequence[int]) -> float:
    """CPU seconds of live processes with all their descendants so far, ended ones included."""
    family = {p.pid: p for pid in pids for p in (psutil.Process(pid), *psutil.Process(pid).children(recursive=True))}
    found = 0.0
    for member in family.values():
        try:
            found += sum(member.cpu_times()[:4])
        except psutil.NoSuchProcess:  # ended since it was listed; its parent has its seconds by the next look
            continue
    return found


@contextmanager
def warm_worker(env: Environment, *, log: Path, settings: Mapping[str, str]) -> Iterator[tuple[int, Cost]]:
    """A warm worker of this environment's jobs; its pid, and what it cost until it was ready."""
    begin, command = time.monotonic(), (sys.executable, "-m", "clearway", "warm-worker")
    with log.open("ab") as file:
        child = subprocess.Popen(command, env=os.environ | dict(settings), cwd=project_root(), stdout=file, stderr=file)
    try:
        while not is_listening(jobs_folder(env)):
            if child.poll() is not None:
                raise RuntimeError(f"the warm worker ended with {child.returncode}, see {log}")
            time.sleep(0.05)
        yield child.pid, Cost(tree_cpu_s([child.pid]), time.monotonic() - begin)
    finally:
        child.kill()
        child.wait()


def measured_job(env: Environment, spec: JobSpec, *, worker_pid: int) -> tuple[Cost, str]:
    """Cost of one forked job, submitting and watching it included; JSON of its Outputs. Raises: RuntimeError."""
    jobs, begin = LocalJobs(env), time.monotonic()
    before, own = tree_cpu_s([worker_pid]), time.process_time()
    job_id = jobs.submit(spec)
    while jobs.state(job_id) is JobState.RUNNING:
        time.sleep(0.02)
    wall_s = time.monotonic() - begin
    record = json.loads((jobs_folder(env) / job_id.replace(".", "/") / "job.json").read_text(encoding="utf-8"))
    if record["why_cold"]:
        raise RuntimeError(f"job {job_id} was not forked: {record['why_cold']}")
    while psutil.Process(worker_pid).children():  # its seconds are the worker's once it is reaped
        time.sleep(0.01)
    return Cost(tree_cpu_s([worker_pid]) - before + time.process_time() - own, wall_s), jobs.result(job_id)


@contextmanager
def server(command: Sequence[str], *, log: Path, url: str, settings: Mapping[str, str]) -> Iterator[Callable[[], Cost]]:
    """A server from its start until it answers at `url`; yields a function that tells its cost so far."""
    begin = time.monotonic()
    with log.open("ab") as file:
        child = subprocess.Popen(command, env=os.environ | dict(settings), cwd=project_root(), stdout=file, stderr=file)
    try:
        wait_until_answers(url, child=child, log=log)
        yield lambda: Cost(tree_cpu_s([child.pid]), time.monotonic() - begin)
    finally:
        tree = [*psutil.Process(child.pid).children(recursive=True), psutil.Process(child.pid)]
        for member in tree:
            member.send_signal(signal.SIGTERM)
        psutil.wait_procs(tree, timeout=30)
        child.wait(30)


def wait_until_answers(url: str, *, child: "subprocess.Popen[bytes]", log: Path) -> None:
    """Return once `url` is answered with any status. Raises: RuntimeError if the process ends or takes too long."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while not answers(url):
        if child.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"no answer at {url} in {START_TIMEOUT_S} s; end of {log}:\n{log.read_text()[-2000:]}")
        time.sleep(0.05)


def answers(url: str) -> bool:
    """Whether somebody answers at `url`."""
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return bool(answer.status)
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
