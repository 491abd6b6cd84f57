"""What processes cost: CPU seconds of a whole tree and wall seconds. Shared by the parts of bench_release.py.

The process that measures is the reaper of its descendants, so that a JVM which outlives the Python that started it is
waited for and counted. Call `process.adopt_orphans` (clearway.launch) first.
"""

import os
import resource
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import psutil

from clearway.infra.environment import project_root

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
