"""Start the components, watch them, start a dead one again, stop all of them in order."""

import logging
import os
import signal
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from subprocess import Popen
from time import monotonic

import httpx

from clearway.infra.clock import Clock
from clearway.launch import process
from clearway.launch.components import Component
from clearway.launch.database import is_migrated, mark_migrated, migrate_command
from clearway.launch.health import PROBE_TIMEOUT_S, Reading, read_health
from clearway.launch.memory import pss_bytes
from clearway.launch.paths import StackPaths
from clearway.launch.ports import Ports
from clearway.launch.settings_file import SettingsLoader
from clearway.launch.state import ComponentState, Health, Phase, StackState, forget_state, save_state

logger = logging.getLogger("clearway.launch")

TICK_STARTING_S, TICK_READY_S = 0.2, 1.0
PROBE_EVERY_STARTING_S, PROBE_EVERY_READY_S = 0.5, 5.0
MEMORY_EVERY_S = 5.0
# A component that dies again this often in a row has a reason that starting it once more will not cure.
MAX_RESTARTS = 5
RESTART_PAUSE_S = 2.0
STOP_TIMEOUT_S = 15.0


@dataclass(kw_only=True)
class Child:
    """A component and its process, if any."""

    component: Component
    popen: Popen[bytes] | None = None
    created_s: float = 0.0
    num_restarts: int = 0
    not_before_s: float = 0.0
    reading: Reading = field(default_factory=lambda: Reading(health=Health.WAITING))

    @property
    def is_alive(self) -> bool:
        return self.popen is not None and self.popen.poll() is None

    def state(self) -> ComponentState:
        return ComponentState(
            name=self.component.name,
            health=self.reading.health,
            detail=self.reading.detail,
            pid=self.popen.pid if self.popen else 0,
            created_s=self.created_s,
            num_restarts=self.num_restarts,
        )


class Supervisor:
    """Owns the children of one stack from start to stop; the caller holds the lock."""

    def __init__(
        self,
        wanted: Sequence[Component],
        *,
        paths: StackPaths,
        ports: Ports,
        endpoints: Mapping[str, int],
        env: Mapping[str, str],
        notes: tuple[str, ...],
        clock: Clock,
        on_change: Callable[[StackState], None],
    ) -> None:
        self._paths, self._env, self._clock, self._on_change = paths, dict(env), clock, on_change
        self._children = [Child(component=c) for c in wanted]
        self._stop = threading.Event()
        self._begin_s = monotonic()
        self._migration: Popen[bytes] | None = None
        self._settings = SettingsLoader(paths=paths)
        self._next_probe_s = self._next_memory_s = 0.0
        self._state = StackState(
            supervisor_pid=os.getpid(),
            supervisor_created_s=process.created_s(os.getpid()),
            phase=Phase.STARTING,
            ports=ports,
            endpoints=dict(endpoints),
            started_s=clock.now_s(),
            notes=notes,
        )

    def run(self) -> int:
        """Until a signal or `request_stop`; the exit code: 0 for a requested stop, 1 if a component stayed dead."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: self._stop.set())
        process.adopt_orphans()
        exit_code = 0
        with httpx.Client(timeout=PROBE_TIMEOUT_S) as client:
            try:
                while not self._stop.is_set() and exit_code == 0:
                    exit_code = self._tick(client)
                    self._stop.wait(TICK_READY_S if self._state.phase is Phase.READY else TICK_STARTING_S)
            finally:
                self._stop_all()
        return exit_code

    def request_stop(self) -> None:
        """End `run` from another thread."""
        self._stop.set()

    def _tick(self, client: httpx.Client) -> int:
        if not self._database_is_ready():
            self._start_waiting(database=False)
        else:
            self._start_waiting(database=True)
            self._probe(client)
        given_up = [c for c in self._children if c.component.is_needed and c.reading.health is Health.STOPPED]
        self._sample_memory()
        process.reap_orphans({c.popen.pid for c in self._children if c.popen} | self._migration_pid())
        self._publish(client)
        return 1 if given_up or self._migration_failed() else 0

    def _migration_pid(self) -> set[int]:
        return {self._migration.pid} if self._migration else set()

    def _database_is_ready(self) -> bool:
        if is_migrated(self._paths):
            return True
        if self._migration is None:
            log = self._paths.log("database")
            self._migration = process.start(migrate_command(), env=self._env, log=log, cwd=self._paths.root)
        if self._migration.poll() == 0:
            mark_migrated(self._paths)
            return True
        return False

    def _migration_failed(self) -> bool:
        if self._migration is None or self._migration.poll() in (None, 0):
            return False
        logger.error("Airflow's database could not be migrated; read %s", self._paths.log("database"))
        return True

    def _start_waiting(self, *, database: bool) -> None:
        for child in self._children:
            if child.is_alive or (child.component.needs_database and not database):
                continue
            if not child.component.is_needed and self._state.phase is not Phase.READY:
                continue
            if child.popen is not None and child.reading.health is not Health.WAITING:
                self._bury(child)
            if child.reading.health is Health.WAITING and monotonic() >= child.not_before_s:
                self._start(child)

    def _start(self, child: Child) -> None:
        name = child.component.name
        child.popen = process.start(
            child.component.command, env=self._env, log=self._paths.log(name), cwd=self._paths.root
        )
        child.created_s = process.created_s(child.popen.pid)
        child.reading = Reading(health=Health.STARTING)

    def _bury(self, child: Child) -> None:
        """A child ended by itself: kill what it left, then try again or give up."""
        assert child.popen is not None
        process.kill_group(child.popen.pid)
        name, code = child.component.name, child.popen.returncode
        log = self._paths.log(name)
        if child.num_restarts >= MAX_RESTARTS:
            logger.error("%s ended %d times (last code %s); giving up, read %s", name, MAX_RESTARTS + 1, code, log)
            child.reading = Reading(health=Health.STOPPED, detail=f"ended with code {code}, see {log}")
            return
        child.num_restarts += 1
        child.not_before_s = monotonic() + RESTART_PAUSE_S
        logger.warning("%s ended with code %s; starting it again, see %s", name, code, log)
        child.reading = Reading(health=Health.WAITING, detail=f"ended with code {code}, starting again")

    def _probe(self, client: httpx.Client) -> None:
        if monotonic() < self._next_probe_s:
            return
        is_ready = self._state.phase is Phase.READY
        started_s = {c.component.name: c.created_s for c in self._children}
        readings = read_health(client, self._state, home=self._paths.home, started_s=started_s)
        for child in self._children:
            if child.is_alive:
                reading = readings[child.component.name]
                was_healthy = child.reading.health in (Health.HEALTHY, Health.UNHEALTHY)
                lost = was_healthy and reading.health is Health.STARTING
                child.reading = replace(reading, health=Health.UNHEALTHY) if lost else reading
        self._next_probe_s = monotonic() + (PROBE_EVERY_READY_S if is_ready else PROBE_EVERY_STARTING_S)

    def _sample_memory(self) -> None:
        if monotonic() < self._next_memory_s:
            return
        self._next_memory_s = monotonic() + MEMORY_EVERY_S
        used = pss_bytes([os.getpid(), *(p.pid for p in process.descendants())])
        peak = max(used, self._state.peak_memory_bytes)
        self._state = replace(self._state, memory_bytes=used, peak_memory_bytes=peak)

    def _publish(self, client: httpx.Client) -> None:
        before = self._state
        state = replace(before, components=tuple(c.state() for c in self._children))
        is_healthy = all(c.reading.health is Health.HEALTHY for c in self._children if c.component.is_needed)
        if state.phase is Phase.STARTING and is_healthy and self._settings.apply(client, state.airflow_url):
            state = replace(state, phase=Phase.READY, ready_after_s=round(monotonic() - self._begin_s, 1))
        self._write(state)

    def _write(self, state: StackState) -> None:
        self._state = state
        save_state(self._paths, state)
        self._on_change(state)

    def _stop_all(self) -> None:
        self._write(replace(self._state, phase=Phase.STOPPING))
        if self._migration is not None:
            process.kill_group(self._migration.pid)
        # Two waves: whoever starts work first, whoever answers requests after.
        for starts_work in (True, False):
            wave = [c for c in self._children if c.component.starts_work is starts_work]
            alive = [child for child in wave if child.popen is not None]
            for child in alive:
                if child.is_alive and child.popen is not None:
                    child.popen.send_signal(child.component.stop_signal)
            deadline = monotonic() + STOP_TIMEOUT_S
            for child in alive:
                self._stop_one(child, timeout_s=max(0.1, deadline - monotonic()))
        num_killed = process.end_all(process.descendants(), timeout_s=5.0)
        if num_killed:
            logger.warning("%d processes ignored SIGTERM and were killed", num_killed)
        forget_state(self._paths)

    def _stop_one(self, child: Child, *, timeout_s: float) -> None:
        assert child.popen is not None
        if not process.wait_or_kill(child.popen, timeout_s=timeout_s):
            logger.info("%s did not leave within %.0f s; killed", child.component.name, STOP_TIMEOUT_S)
        child.reading = Reading(health=Health.STOPPED)
        self._write(replace(self._state, components=tuple(c.state() for c in self._children)))
