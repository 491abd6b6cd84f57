"""Find, start and stop the stack of one home folder; what every sub-command builds on."""

import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from time import monotonic, sleep

import psutil

from clearway.contracts.errors import ConfigError, Unavailable
from clearway.infra.clock import SystemClock
from clearway.infra.environment import Environment, Tracking, project_root
from clearway.infra.release_store import open_release_store
from clearway.launch import process
from clearway.launch.airflow_env import STACK_MARK, airflow_env
from clearway.launch.components import components
from clearway.launch.paths import StackPaths
from clearway.launch.ports import Ports, choose_ports, endpoint_ports
from clearway.launch.secret_keys import load_secret_keys
from clearway.launch.state import Phase, StackState, forget_state, is_running, load_state, supervisor_lock
from clearway.launch.supervisor import Supervisor
from clearway.product_yaml import list_products

logger = logging.getLogger("clearway.launch")

POLL_S = 0.2
# A supervisor writes its state within its first second; the interpreter and imports before that take 1-3 s.
FIRST_SIGN_TIMEOUT_S = 30.0
READY_TIMEOUT_S = 240.0
# Two waves of STOP_TIMEOUT_S, and the rest.
STOP_TIMEOUT_S = 60.0

OnChange = Callable[[StackState], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class StackWish:
    """How a stack should be started: a product that it has to serve, and the ports tried first."""

    product: str
    ports: Ports = field(default_factory=Ports)


def stack_paths(env: Environment) -> StackPaths:
    """Where the stack of this environment keeps its files."""
    return StackPaths(home=env.home.resolve(), root=project_root())


def connected(env: Environment, state: StackState) -> Environment:
    """The environment with the addresses that the running stack really took."""
    endpoint = env.endpoint.model_copy(update={"urls": env.endpoint.urls | state.endpoint_urls})
    return env.model_copy(update={"endpoint": endpoint, "tracking": Tracking(uri=state.mlflow_url)})


def connected_if_running(env: Environment) -> Environment:
    """The addresses of the running stack if there is one, else those that are set."""
    state = running_stack(env)
    return connected(env, state) if state else env


def running_stack(env: Environment) -> StackState | None:
    """State of the stack that runs now; None if none does."""
    return _state_of_the_living(stack_paths(env))


def _state_of_the_living(paths: StackPaths) -> StackState | None:
    """The state file, if its writer lives: a new supervisor holds the lock a moment before it replaces an old file."""
    state = load_state(paths) if is_running(paths) else None
    if state is None or not process.is_same_process(state.supervisor_pid, state.supervisor_created_s):
        return None
    return state


def supervise(env: Environment, wish: StackWish, *, on_change: OnChange) -> int | None:
    """Run the stack in this process until a signal; its exit code, or None if another supervisor runs already."""
    paths = stack_paths(env)
    paths.make()
    with supervisor_lock(paths) as is_mine:
        if not is_mine:
            return None
        clean_up_after_a_dead_supervisor(paths)
        ports, notes = choose_ports(wish.ports)
        for note in notes:
            logger.warning("%s", note)
        endpoints = endpoint_ports(served_products(env, wish.product), ports)
        variables = _child_variables(paths, ports, endpoints)
        has_local_jobs = env.jobs.kind == "local"
        wanted = components(ports=ports, paths=paths, endpoints=endpoints, has_local_jobs=has_local_jobs)
        supervisor = Supervisor(
            wanted,
            paths=paths,
            ports=ports,
            endpoints=endpoints,
            env=variables,
            notes=notes,
            clock=SystemClock(),
            on_change=on_change,
        )
        return supervisor.run()


def served_products(env: Environment, first: str) -> tuple[str, ...]:
    """Products that get a model server: the one asked for, and all that have a champion. None with SageMaker's."""
    if env.endpoint.kind == "sagemaker":
        return ()
    store = open_release_store(env)
    others = (name for name in list_products(env.products) if name != first)
    return (first, *(name for name in others if store.read(name)[0].champion is not None))


def check_serves(state: StackState, product: str) -> None:
    """Raises: ConfigError if this stack has model servers, and none for this product."""
    if state.endpoints and product not in state.endpoints:
        raise ConfigError(
            f"the running stack serves {', '.join(state.endpoints)}, not {product}; run `make stop`, then this again: "
            "the new stack serves it, and all that had a champion"
        )


def _child_variables(paths: StackPaths, ports: Ports, endpoints: Mapping[str, int]) -> dict[str, str]:
    ours = airflow_env(ports=ports, paths=paths, keys=load_secret_keys(paths.keys), endpoints=endpoints)
    inherited = os.environ.get("PYTHONPATH", "")
    return os.environ | ours | {"PYTHONPATH": ":".join(filter(None, (ours["PYTHONPATH"], inherited)))}


def ensure_stack(env: Environment, wish: StackWish, *, on_change: OnChange) -> tuple[StackState, bool]:
    """The ready stack and whether this call started it.

    Raises: Unavailable if it does not become healthy; ConfigError if one runs that does not serve the product.
    """
    paths = stack_paths(env)
    paths.make()
    child = None if is_running(paths) else _spawn_supervisor(env, wish, paths)
    try:
        state = _wait_ready(paths, child, on_change=on_change)
    except BaseException:
        if child is not None:
            _call_off(env, child, paths, on_change=on_change)
        raise
    check_serves(state, wish.product)
    return state, child is not None and state.supervisor_pid == child.pid


def _call_off(env: Environment, child: subprocess.Popen[bytes], paths: StackPaths, *, on_change: OnChange) -> None:
    """End the supervisor that this process started, and its stack, also before it holds the lock or has a state."""
    found = _state_of_the_living(paths)
    if found is not None and found.supervisor_pid != child.pid:
        return
    if child.poll() is None:
        child.terminate()  # it has no children before it listens to signals
    stop_stack(env, on_change=on_change)
    process.wait_or_kill(child, timeout_s=STOP_TIMEOUT_S)


def _spawn_supervisor(env: Environment, wish: StackWish, paths: StackPaths) -> subprocess.Popen[bytes]:
    ports = wish.ports
    command = (
        *(sys.executable, "-m", "clearway", "up", "--product", wish.product),
        *("--airflow-port", str(ports.airflow), "--mlflow-port", str(ports.mlflow)),
        *("--endpoint-port", str(ports.endpoint)),
    )
    variables = os.environ | {"CLEARWAY__HOME": str(env.home.resolve())}
    return process.start(command, env=variables, log=paths.log("supervisor"), cwd=paths.root)


def _wait_ready(paths: StackPaths, child: subprocess.Popen[bytes] | None, *, on_change: OnChange) -> StackState:
    begin_s, last = monotonic(), None
    while monotonic() - begin_s < READY_TIMEOUT_S:
        state = _state_of_the_living(paths)
        if state is not None and state != last:
            on_change(state)
            last = state
        if state is not None and state.phase is Phase.READY:
            return state
        no_sign = state is None and monotonic() - begin_s > FIRST_SIGN_TIMEOUT_S
        has_ended = child is not None and child.poll() is not None
        if no_sign or (has_ended and not is_running(paths)):  # one that ended because of another's lock has a stack
            break
        sleep(POLL_S)
    raise Unavailable(
        f"the stack was not healthy after {monotonic() - begin_s:.0f} s; read {paths.log('supervisor')} and the files"
        f" beside it, then run `make stop` and try again"
    )


def stop_stack(env: Environment, *, on_change: OnChange) -> bool:
    """Stop the running stack and wait until every process is gone; False if none ran. Raises: Unavailable."""
    paths = stack_paths(env)
    deadline = monotonic() + STOP_TIMEOUT_S
    while (state := _state_of_the_living(paths)) is None:
        if not is_running(paths):
            return clean_up_after_a_dead_supervisor(paths) > 0
        if monotonic() > deadline:
            raise Unavailable(f"{paths.run} is locked by a process that writes no state; find it with `lsof`")
        sleep(POLL_S)
    os.kill(state.supervisor_pid, signal.SIGTERM)
    last = state
    while is_running(paths):
        state = load_state(paths) or state
        if state != last:
            on_change(state)
            last = state
        if monotonic() > deadline:
            raise Unavailable(
                f"supervisor {state.supervisor_pid} did not stop within {STOP_TIMEOUT_S:.0f} s;"
                f" read {paths.log('supervisor')}"
            )
        sleep(POLL_S)
    return True


def clean_up_after_a_dead_supervisor(paths: StackPaths) -> int:
    """End what a killed supervisor left behind; returns the number of processes. Call while no stack runs."""
    state = load_state(paths)
    recorded = {c.pid: c.created_s for c in state.components} if state else {}
    orphans = [p for pid, created in recorded.items() if process.is_same_process(pid, created) for p in _family(pid)]
    found = {p.pid: p for p in (*orphans, *_marked(paths))}
    if found:
        logger.warning("ending %d processes left behind by a supervisor that was killed", len(found))
        process.end_all(found.values(), timeout_s=10.0)
    forget_state(paths)
    return len(found)


def _family(pid: int) -> list[psutil.Process]:
    try:
        head = psutil.Process(pid)
        return [head, *head.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _marked(paths: StackPaths) -> list[psutil.Process]:
    """Processes started by a stack of this home: tasks and jobs that lost their parents still carry its mark."""
    found = []
    for candidate in psutil.process_iter():
        try:
            variables = candidate.environ() if candidate.pid != os.getpid() else {}
        except (psutil.AccessDenied, psutil.NoSuchProcess, psutil.ZombieProcess):
            continue
        if variables.get(STACK_MARK) == str(paths.home):
            found.append(candidate)
    return found
