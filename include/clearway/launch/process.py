"""Child processes in their own groups, and the certainty that none is left behind."""

import ctypes
import os
import signal
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from time import monotonic, sleep

import psutil

# linux/prctl.h: orphans of our descendants become our children instead of init's, so none escapes a stop.
_PR_SET_CHILD_SUBREAPER = 36
_POLL_S = 0.05


def adopt_orphans() -> None:
    """Make this process the reaper of all its descendants (Linux)."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def start(command: tuple[str, ...], *, env: Mapping[str, str], log: Path, cwd: Path) -> subprocess.Popen[bytes]:
    """Start a child in its own session, with default signal handling, output appended to `log`."""
    with log.open("ab") as file:
        return subprocess.Popen(  # noqa: S603  (our own command lines, no shell)
            command,
            env=dict(env),
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            restore_signals=True,
            preexec_fn=_default_interrupt,  # noqa: PLW1509  (before any thread exists)
        )


def _default_interrupt() -> None:
    # A shell starts background jobs with SIGINT ignored, and children inherit it: they could not be stopped in order.
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def created_s(pid: int) -> float:
    """Start time of a process (Unix seconds); 0 if it is gone."""
    try:
        return psutil.Process(pid).create_time()
    except psutil.NoSuchProcess:
        return 0.0


def is_same_process(pid: int, created: float) -> bool:
    """Whether `pid` still is the process that started at `created`; numbers are reused."""
    return pid > 0 and created > 0 and abs(created_s(pid) - created) < 1.0  # clock ticks of /proc


def wait_or_kill(process: subprocess.Popen[bytes], *, timeout_s: float) -> bool:
    """Wait for a child that was asked to leave, then kill whatever its group still holds; True if it left by itself."""
    try:
        process.wait(timeout=timeout_s)
        left_itself = True
    except subprocess.TimeoutExpired:
        left_itself = False
    kill_group(process.pid)
    process.wait(timeout=10)
    return left_itself


def kill_group(pid: int) -> None:
    """SIGKILL the process group led by `pid`, if any of it is alive."""
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def descendants() -> list[psutil.Process]:
    """Every living process below this one."""
    return [p for p in psutil.Process().children(recursive=True) if p.is_running()]


def end_all(processes: Iterable[psutil.Process], *, timeout_s: float) -> int:
    """SIGTERM, wait, SIGKILL; returns how many had to be killed."""
    alive = [p for p in processes if p.is_running()]
    for process in alive:
        _signal(process, signal.SIGTERM)
    _, stubborn = psutil.wait_procs(alive, timeout=timeout_s)
    for process in stubborn:
        _signal(process, signal.SIGKILL)
    psutil.wait_procs(stubborn, timeout=timeout_s)
    return len(stubborn)


def reap_orphans(known: set[int]) -> None:
    """Collect adopted children that ended; `known` are waited for by their owners."""
    for child in psutil.Process().children():
        if child.pid not in known and child.status() == psutil.STATUS_ZOMBIE:
            try:
                os.waitpid(child.pid, os.WNOHANG)
            except ChildProcessError:
                continue


def wait_gone(pid: int, created: float, *, timeout_s: float) -> bool:
    """Wait until a process that is not our child has ended."""
    deadline = monotonic() + timeout_s
    while is_same_process(pid, created):
        if monotonic() > deadline:
            return False
        sleep(_POLL_S)
    return True


def _signal(process: psutil.Process, number: signal.Signals) -> None:
    try:
        process.send_signal(number)
    except psutil.NoSuchProcess:
        return
