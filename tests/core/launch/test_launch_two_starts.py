"""Two commands that start the stack of one home at the same time end with one stack, for both."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from typing import Any, NoReturn

import pytest

from clearway.contracts.errors import Unavailable
from clearway.infra.environment import Environment
from clearway.launch import process, stack
from clearway.launch.ports import Ports
from clearway.launch.stack import StackWish, ensure_stack, stack_paths
from clearway.launch.state import Phase, StackState, save_state, supervisor_lock

WISH = StackWish(product="flights")


def ended() -> subprocess.Popen[bytes]:
    """A supervisor that found another one and left."""
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait(timeout=60)
    return child


@pytest.fixture
def other() -> StackState:
    """What another supervisor, this process, says of itself."""
    return StackState(
        supervisor_pid=os.getpid(),
        supervisor_created_s=process.created_s(os.getpid()),
        phase=Phase.STARTING,
        ports=Ports(),
        endpoints={"flights": 8890},
        started_s=0.0,
    )


@pytest.fixture
def held() -> Iterator[ExitStack]:
    with ExitStack() as held:
        yield held


def test_the_one_that_comes_second_waits_for_the_stack_of_the_first(
    env: Environment, other: StackState, held: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths, seen = stack_paths(env), list[Phase]()

    def first_is_faster(*_: object) -> subprocess.Popen[bytes]:
        held.enter_context(supervisor_lock(paths))
        save_state(paths, other)
        return ended()

    def become_ready(state: StackState) -> None:
        seen.append(state.phase)
        save_state(paths, replace(state, phase=Phase.READY))

    monkeypatch.setattr(stack, "_spawn_supervisor", first_is_faster)
    state, is_new = ensure_stack(env, WISH, on_change=become_ready)
    assert (state.supervisor_pid, is_new) == (os.getpid(), False)
    assert seen == [Phase.STARTING, Phase.READY]


def test_the_one_that_gives_up_stops_no_stack_of_another(
    env: Environment, other: StackState, held: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths, stopped = stack_paths(env), list[bool]()

    def first_is_faster(*_: object) -> subprocess.Popen[bytes]:
        held.enter_context(supervisor_lock(paths))
        save_state(paths, other)
        return ended()

    monkeypatch.setattr(stack, "_spawn_supervisor", first_is_faster)
    monkeypatch.setattr(stack, "READY_TIMEOUT_S", 0.5)
    monkeypatch.setattr(stack, "stop_stack", lambda *_, **__: stopped.append(True))
    with pytest.raises(Unavailable, match="was not healthy"):
        ensure_stack(env, WISH, on_change=lambda _state: None)
    assert stopped == []
    held.close()
    (paths.run / "state.json").unlink()
    monkeypatch.setattr(stack, "_spawn_supervisor", lambda *_: ended())
    with pytest.raises(Unavailable, match="was not healthy"):
        ensure_stack(env, WISH, on_change=lambda _state: None)
    assert stopped == [True], "what is left of its own is ended"


def test_whoever_is_interrupted_before_the_first_sign_leaves_no_supervisor_behind(
    env: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    started, spawn = list[subprocess.Popen[bytes]](), stack._spawn_supervisor

    def spawn_seen(*words: Any) -> subprocess.Popen[bytes]:
        started.append(spawn(*words))
        return started[0]

    def interrupted(*_: object, **__: object) -> NoReturn:
        raise KeyboardInterrupt

    monkeypatch.setattr(stack, "_spawn_supervisor", spawn_seen)
    monkeypatch.setattr(stack, "_wait_ready", interrupted)
    try:
        with pytest.raises(KeyboardInterrupt):
            ensure_stack(env, WISH, on_change=lambda _state: None)
        assert started[0].poll() == -signal.SIGTERM
    finally:
        started[0].kill()
        started[0].wait(timeout=60)
