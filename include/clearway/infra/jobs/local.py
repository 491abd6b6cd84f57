"""Stage jobs as processes of this machine; how one is started: start.py.

    <home>/jobs/<key>/            one job (the idempotency key)
        submit.lock               held while somebody decides whether to start an attempt
        0001/                     one attempt; a new one only after the last one ended without a result
            inputs.json           what the stage was asked
            job.json              pid, stage, and why it is not a fork of the warm worker: for people
            alive.lock            held by the job itself, from its first instruction to its last
            log                   stdout and stderr
            watched               touched whenever somebody reads the log
            measured.json         seconds and memory that it took
            error.json            what the stage said when it refused or failed
            outputs.json          the result, written last by one rename

A job outlives whoever started it. Whether it lives is asked of the kernel, not of a pid: the job inherits a locked
file, and the lock ends with the last process that holds it, however it ends. A reused pid cannot be mistaken for the
job, and there is no moment between the start and the writing of a pid file in which a crash would lose the job.
"""

import fcntl
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from clearway.contracts.errors import JobFailed
from clearway.infra.environment import Environment
from clearway.infra.jobs import JobSpec, JobState
from clearway.infra.jobs.outcome import (
    ERROR,
    INPUTS,
    MEASURED,
    OUTPUTS,
    attempt_name,
    check_key,
    id_of,
    key_and_attempt,
    recorded_error,
    recorded_measure,
)
from clearway.infra.jobs.processes import child_variables, end_processes
from clearway.infra.jobs.start import start_process
from clearway.infra.jobs.usage import LOCAL, S_PER_HOUR, Usage, Used

JOBS = "jobs"
RECORD, LOG, WATCHED, ALIVE = "job.json", "log", "watched", "alive.lock"
# What every job runs; the stage's name follows.
CLEARWAY = (sys.executable, "-m", "clearway")
# Enough for a Python traceback and what led to it, small enough for a task log line.
LOG_TAIL_BYTES = 4_000
# A process shows its environment, by which it is found, once it has loaded its program: long on a busy machine.
LOOK_S, MAX_LOOKS = 0.02, 500

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
        check_key(spec.key)
        folder = self._root / spec.key
        folder.mkdir(parents=True, exist_ok=True)
        with _locked(folder / "submit.lock"):
            last = _last_attempt(folder)
            if last and self.state(_job_id(last)) is not JobState.FAILED:
                return _job_id(last)
            if last:
                # A dead attempt may have left workers behind; two attempts must never write side by side.
                end_processes(last, grace_s=0)
            attempt = folder / attempt_name((int(last.name) if last else 0) + 1)
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
            raise recorded_error((folder / ERROR).read_bytes())
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

    def attempts(self, key: str) -> tuple[str, ...]:
        """Ids of all attempts under a key, oldest first."""
        folder = self._root / key
        return tuple(_job_id(attempt) for attempt in _attempts(folder)) if folder.is_dir() else ()

    def usage(self, job_id: str) -> Usage | None:
        """Time on this machine, as its files tell; None while it runs."""
        state, folder = self.state(job_id), self._folder(job_id)
        if state is JobState.RUNNING or not (folder / INPUTS).exists():
            return None
        measured = (folder / MEASURED).read_bytes() if (folder / MEASURED).exists() else None
        begin_s = (folder / INPUTS).stat().st_mtime
        end_s = max((folder / file).stat().st_mtime for file in (INPUTS, LOG, OUTPUTS) if (folder / file).exists())
        hours = (end_s - begin_s) / S_PER_HOUR
        return Usage(
            job_id=job_id,
            service=LOCAL,
            has_succeeded=state is JobState.SUCCEEDED,
            begin_s=begin_s,
            end_s=end_s,
            used=(Used(what=LOCAL, hours=hours, full_hours=hours),),
            measured=recorded_measure(measured),
        )

    def cancel(self, job_id: str, *, grace_s: float = 5.0) -> None:
        """Stop every process of the job, politely first; a finished job is left alone.

        Raises: JobFailed if one survives.
        """
        for _ in range(MAX_LOOKS):
            if self.state(job_id) is not JobState.RUNNING:
                return
            end_processes(self._folder(job_id), grace_s=grace_s)
            if self.state(job_id) is JobState.RUNNING:
                time.sleep(LOOK_S)
        raise JobFailed(f"job {job_id} runs and none of its processes can be found; look for who holds its {ALIVE}")

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
        key, attempt = key_and_attempt(job_id)
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
    return id_of(attempt.parent.name, attempt.name)


def _attempts(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.is_dir() and p.name.isdigit())


def _last_attempt(folder: Path) -> Path | None:
    attempts = _attempts(folder)
    return attempts[-1] if attempts else None


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
