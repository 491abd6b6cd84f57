"""How the process of a job comes to be: forked from the warm worker if one is there and fits, else a new interpreter.

Both give the same job: same arguments, variables, folder, log and lock, a session of its own. This file is the only
place that chooses. What is said between submitter, worker and job, in whole messages over one connection:

    submitter → worker      the wish: command, variables, working folder
    job → submitter         its pid, the first thing a forked job does    (or worker → submitter: why it refuses)
    submitter → job         GO, with the log and the lock; before that a job does nothing

So a job runs exactly when the submitter said GO, whoever dies in between: without an answer the submitter hangs up
and starts an interpreter, and a job that is hung up on leaves. Nobody but submitter and job ever holds the lock.
"""

import json
import os
import socket
import struct
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SOCKET = "warm.sock"
GO = b"go"
# A worker answers in some 20 ms. One that is stopped or starved costs each job this long, then it starts without.
ANSWER_TIMEOUT_S = 2.0
MAX_MESSAGE_BYTES = 1 << 17
_PEER = struct.Struct("3i")  # pid, uid, gid; socket(7), SO_PEERCRED


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """A job's process. `child`: for whoever must reap it; None for a fork. `why_cold`: why it is not a fork."""

    pid: int
    child: "subprocess.Popen[bytes] | None" = None
    why_cold: str = ""


class NotWarm(Exception):
    """No warm worker starts this job; the text says why."""


def start_process(
    command: Sequence[str], *, variables: Mapping[str, str], log: int, lock: int, jobs_folder: Path
) -> Started:
    """Start a job.

    Args:
        log, lock: file descriptors; the job's output, and the locked file that the job keeps open as long as it lives.
        jobs_folder: where a warm worker would listen.
    """
    try:
        return Started(pid=_fork(command, variables, (log, lock), jobs_folder))
    except NotWarm as reason:
        return _spawn(command, variables, log, lock, why_cold=str(reason))


def _spawn(command: Sequence[str], variables: Mapping[str, str], log: int, lock: int, *, why_cold: str) -> Started:
    child = subprocess.Popen(  # noqa: S603 - our own interpreter and module, arguments are paths we made
        command,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        env=dict(variables),
        start_new_session=True,
        pass_fds=(lock,),
    )
    return Started(pid=child.pid, child=child, why_cold=why_cold)


def _fork(command: Sequence[str], variables: Mapping[str, str], files: tuple[int, int], folder: Path) -> int:
    wish = {"command": list(command), "variables": dict(variables), "cwd": str(Path.cwd())}
    try:
        with connection(folder) as line:
            line.send(json.dumps(wish).encode())
            answer = line.recv(MAX_MESSAGE_BYTES)
            if not answer:
                raise NotWarm("the warm worker or the forked job died before it answered")
            reply: dict[str, Any] = json.loads(answer)
            if "refused" in reply:
                raise NotWarm(str(reply["refused"]))
            socket.send_fds(line, [GO], list(files))
            return int(reply["pid"])
    except OSError as error:
        raise NotWarm(f"no answer from a warm worker: {error}") from error


@contextmanager
def connection(folder: Path) -> Iterator[socket.socket]:
    """A connection to the worker that listens in `folder`. Raises: OSError if none does, or it is not this user's."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as line, address(folder) as path:
        line.settimeout(ANSWER_TIMEOUT_S)
        line.connect(path)
        pid, uid, _ = _PEER.unpack(line.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size))
        if uid != os.geteuid() or pid == 0:  # 0: it lives in another container, which sees other processes and files
            raise PermissionError("it belongs to another user or container")
        yield line


def is_listening(folder: Path) -> bool:
    """Whether a warm worker that this user may use listens in `folder`."""
    try:
        with connection(folder):
            return True
    except OSError:
        return False


@contextmanager
def address(folder: Path) -> Iterator[str]:
    """A short name of the socket in `folder`: the kernel allows 107 bytes, folders may be deeper than that."""
    handle = os.open(folder, os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{handle}/{SOCKET}"
    finally:
        os.close(handle)
