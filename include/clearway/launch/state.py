"""What is known about the running stack: a small file that everyone may read, a lock that its supervisor holds."""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from time import sleep
from typing import IO

from clearway.contracts.codec import from_jsonable, to_jsonable
from clearway.contracts.errors import ConfigError
from clearway.launch.paths import StackPaths
from clearway.launch.ports import Ports, url_at

# Whoever asks whether a stack runs holds the lock for some microseconds; that must not look like a supervisor.
LOCK_ATTEMPTS, LOCK_PAUSE_S = 5, 0.02


class Phase(StrEnum):
    """Life of a stack."""

    STARTING = "starting"
    READY = "ready"
    STOPPING = "stopping"


class Health(StrEnum):
    """What is known of one component."""

    WAITING = "waiting"
    STARTING = "starting"
    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True, kw_only=True)
class ComponentState:
    """One child process. `created_s` (Unix) tells it from a later process with the same number."""

    name: str
    health: Health = Health.WAITING
    detail: str = ""
    pid: int = 0
    created_s: float = 0.0
    num_restarts: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class StackState:
    """Everything a second process needs to find and judge the first.

    Args:
        supervisor_pid: process to signal for a clean stop; `supervisor_created_s` identifies it.
        ready_after_s: seconds from start to all healthy; 0 until then.
        memory_bytes, peak_memory_bytes: proportional set size of supervisor and all descendants, sampled.
    """

    supervisor_pid: int
    supervisor_created_s: float
    phase: Phase
    ports: Ports
    endpoints: dict[str, int]
    started_s: float
    ready_after_s: float = 0.0
    memory_bytes: int = 0
    peak_memory_bytes: int = 0
    notes: tuple[str, ...] = ()
    components: tuple[ComponentState, ...] = field(default=())

    @property
    def airflow_url(self) -> str:
        return url_at(self.ports.airflow)

    @property
    def mlflow_url(self) -> str:
        return url_at(self.ports.mlflow)

    @property
    def endpoint_urls(self) -> dict[str, str]:
        """Product → base URL of its model server."""
        return {product: url_at(port) for product, port in self.endpoints.items()}


def save_state(paths: StackPaths, state: StackState) -> None:
    """Replace the state file in one step."""
    temporary = paths.run / f".state-{os.getpid()}"
    temporary.write_text(json.dumps(to_jsonable(state), indent=1), encoding="utf-8")
    temporary.replace(paths.run / "state.json")


def load_state(paths: StackPaths) -> StackState | None:
    """The last written state, of a running or a dead stack; None if there never was one.

    Raises: ConfigError for a file that this version did not write, or that is damaged.
    """
    path = paths.run / "state.json"
    try:
        return from_jsonable(StackState, json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise ConfigError(
            f"{path}: {error}; it is damaged, or of another version of Clearway: end that version's stack by its own "
            "`stop`, then remove the file"
        ) from error


def forget_state(paths: StackPaths) -> None:
    """Remove the state file after a clean stop."""
    (paths.run / "state.json").unlink(missing_ok=True)


@contextmanager
def supervisor_lock(paths: StackPaths) -> Iterator[bool]:
    """Hold the stack's lock; yields False if another supervisor has it. The kernel drops it when the holder dies."""
    with _lock_file(paths).open("a") as file:
        for _ in range(LOCK_ATTEMPTS):
            if _try_lock(file, fcntl.LOCK_EX):
                yield True
                return
            sleep(LOCK_PAUSE_S)
        yield False


def is_running(paths: StackPaths) -> bool:
    """Whether a supervisor holds the lock now."""
    if not _lock_file(paths).exists():
        return False
    with _lock_file(paths).open("a") as file:
        return not _try_lock(file, fcntl.LOCK_SH)


def _try_lock(file: IO[str], kind: int) -> bool:
    """Take the lock, of this kind, until the file is closed; False if somebody has it."""
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _lock_file(paths: StackPaths) -> Path:
    return paths.run / "supervisor.lock"
