"""Stage jobs as processes of this machine; how one is started: start.py.

    <home>/jobs/<key>/            one job (the idempotency key)
        submit.lock               held while somebody decides whether to start an attempt
        0001/                     one attempt; a new one only after the last one ended without a result
            inputs.json           what the stage was asked
            job.json              pid, stage, and why it is not a fork of the warm worker: for people
            alive.lock            held by the job itself, from its first instruction to its last
            log                   stdout and stderr
            watched               touched whenever somebody reads the log
            error.json            what the stage said when it refused or failed
            outputs.json          the result, written last by one rename

A job outlives whoever started it. Whether it lives is asked of the kernel, not of a pid: the job inherits a locked
file, and the lock ends with the last process that holds it, however it ends. A reused pid cannot be mistaken for the
job, and there is no moment between the start and the writing of a pid file in which a crash would lose the job.
"""

import fcntl
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from clearway.contracts import errors
from clearway.contracts.errors import ClearwayError, ConfigError, JobFailed
from clearway.infra.environment import Environment
from clearway.infra.jobs import JobSpec, JobState
from clearway.infra.jobs.processes import child_variables, end_processes
from clearway.infra.jobs.start import start_process

JOBS = "jobs"
INPUTS, OUTPUTS, ERROR, RECORD = "inputs.json", "outputs.json", "error.json", "job.json"
LOG, WATCHED, ALIVE = "log", "watched", "alive.lock"
# What every job runs; the stage's name follows.
CLEARWAY = (sys.executable, "-m", "clearway")
_KEY = re.compile(r"^[a-z0-9][a-z0-9_-]{0,99}$")
# Enough for a Python traceback and what led to it, small enough for a task log line.
LOG_TAIL_BYTES = 4_000

# Popen objects of jobs this very process started, kept so that ended ones can be reaped.
_children: dict[Path, subprocess.Popen[bytes]] = {}


def jobs_folder(env: Environment) -> Path:
    """Where the jobs of this environment lie, and where a warm worker listens."""
    return env.home.resolve() / JOBS


class LocalJobs:
    """A JobRunner over `<home>/jobs`; any number of processes may use the same folder."""

    def __init__(self, env: Environment, *, command: tuple[str, ...] = CLEARWAY) -> None:
        self._env = env
        self._command = command
        self._root = jobs_folder(env)

    def submit(self, spec: JobSpec) -> str:
        """Start the job, or return the id of the attempt that runs or succeeded under the same key."""
        if not _KEY.match(spec.key):
            raise ConfigError(f"job key {spec.key!r} is not allowed; use {_KEY.pattern}")
        folder = self._root / spec.key
        folder.mkdir(parents=True, exist_ok=True)
        with _locked(folder / "submit.lock"):
            last = _last_attempt(folder)
            if last and self.state(_job_id(last)) is not JobState.FAILED:
                return _job_id(last)
            if last:
                # A dead attempt may have left workers behind; two attempts must never write side by side.
                end_processes(last, grace_s=0)
            attempt = folder / f"{(int(last.name) if last else 0) + 1:04d}"
            self._start(spec, attempt)
            return _job_id(attempt)

    def state(self, job_id: str) -> JobState:
        """Current state; an id nobody started is FAILED."""
        folder = self._folder(job_id)
        # Asked before the outcome is read: a job that ends in between is seen as running once more, never as lost.
        is_alive = _is_locked(folder / ALIVE)
        if not is_alive:
            _reap(folder)
        if (folder / OUTPUTS).exists():
            return JobState.SUCCEEDED
        return JobState.RUNNING if is_alive else JobState.FAILED

    def result(self, job_id: str) -> str:
        """JSON text of the stage's Outputs.

        Raises: the ClearwayError the stage itself raised, if it could still write it down; JobFailed otherwise.
        """
        folder = self._folder(job_id)
        if (folder / OUTPUTS).exists():
            return (folder / OUTPUTS).read_text(encoding="utf-8")
        if (folder / ERROR).exists():
            raise _recorded_error(folder / ERROR)
        if self.state(job_id) is JobState.RUNNING:
            raise JobFailed(f"job {job_id} still runs; wait for it before asking for its result")
        raise JobFailed(
            f"job {job_id} ended without a result (killed, or out of memory); run the task again. End of its log:\n"
            f"{_log_tail(folder)}"
        )

    def read_log(self, job_id: str, offset: int) -> tuple[str, int]:
        """Log text from byte `offset`, whole lines only while the job runs, and the next offset."""
        path = self._folder(job_id) / LOG
        if path.exists():
            path.with_name(WATCHED).touch()
        if not path.exists():
            return "", offset
        with path.open("rb") as file:
            file.seek(offset)
            data = file.read()
        if _is_locked(path.with_name(ALIVE)):
            data = data[: data.rfind(b"\n") + 1]
        return data.decode("utf-8", errors="replace"), offset + len(data)

    def cancel(self, job_id: str, *, grace_s: float = 5.0) -> None:
        """Stop every process of the job, politely first; a finished job is left alone."""
        if self.state(job_id) is JobState.RUNNING:
            end_processes(self._folder(job_id), grace_s=grace_s)

    def running(self) -> list[str]:
        """Ids of the jobs alive now, for `status`, `stop` and the reconciler."""
        folders = (_last_attempt(key) for key in sorted(self._root.glob("*")) if key.is_dir())
        ids = (_job_id(folder) for folder in folders if folder is not None)
        return [job_id for job_id in ids if self.state(job_id) is JobState.RUNNING]

    def unwatched(self, *, now_s: float, longer_than_s: float) -> list[str]:
        """Ids of the live jobs whose log nobody has read for so long: whoever wanted their result is gone."""

        def last_s(job_id: str) -> float:
            folder = self._folder(job_id)
            mark = folder / WATCHED
            return (mark if mark.exists() else folder / INPUTS).stat().st_mtime

        return [job_id for job_id in self.running() if now_s - last_s(job_id) > longer_than_s]

    def _start(self, spec: JobSpec, attempt: Path) -> None:
        attempt.mkdir()
        (attempt / INPUTS).write_text(spec.inputs_json, encoding="utf-8")
        command = [*self._command, spec.stage, "--inputs-file", str(attempt / INPUTS)]
        command += ["--outputs-file", str(attempt / OUTPUTS)]
        with (attempt / LOG).open("ab") as log, _locked(attempt / ALIVE) as lock:
            started = start_process(
                command,
                variables=child_variables(self._env, attempt),
                log=log.fileno(),
                lock=lock,
                jobs_folder=self._root,
            )
        if started.child is not None:
            _children[attempt] = started.child
        record = {"pid": started.pid, "stage": spec.stage, "attempt": int(attempt.name), "why_cold": started.why_cold}
        (attempt / RECORD).write_text(json.dumps(record), encoding="utf-8")

    def _folder(self, job_id: str) -> Path:
        key, _, attempt = job_id.rpartition(".")
        if not _KEY.match(key) or not attempt.isdigit():
            raise ConfigError(f"job id {job_id!r} is not one of ours; ids look like <key>.0001")
        return self._root / key / attempt


def _reap(folder: Path) -> None:
    child = _children.pop(folder, None)
    if child is not None:
        # Its lock is gone, so it is past its last instruction: this waits for the kernel's bookkeeping only.
        child.wait()


def _log_tail(folder: Path) -> str:
    data = (folder / LOG).read_bytes() if (folder / LOG).exists() else b""
    return data[-LOG_TAIL_BYTES:].decode("utf-8", errors="replace")


def _job_id(attempt: Path) -> str:
    return f"{attempt.parent.name}.{attempt.name}"


def _last_attempt(folder: Path) -> Path | None:
    attempts = sorted(p for p in folder.iterdir() if p.is_dir() and p.name.isdigit())
    return attempts[-1] if attempts else None


def _recorded_error(path: Path) -> ClearwayError:
    raw = json.loads(path.read_text(encoding="utf-8"))
    found = getattr(errors, raw["error"], None)
    if isinstance(found, type) and issubclass(found, ClearwayError):
        return found(raw["text"])
    return JobFailed(f"{raw['error']}: {raw['text']}")


@contextmanager
def _locked(path: Path) -> Iterator[int]:
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield handle
    finally:
        os.close(handle)


def _is_locked(path: Path) -> bool:
    try:
        handle = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False
