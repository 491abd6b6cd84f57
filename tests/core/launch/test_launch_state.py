"""The state file and the lock that tell a second start about the first."""

import fcntl
import json
import os
import stat
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from clearway.contracts.errors import ConfigError
from clearway.launch import state
from clearway.launch.paths import StackPaths
from clearway.launch.ports import Ports
from clearway.launch.secret_keys import load_secret_keys
from clearway.launch.state import (
    ComponentState,
    Health,
    Phase,
    StackState,
    forget_state,
    is_running,
    load_state,
    save_state,
    supervisor_lock,
)

STATE = StackState(
    supervisor_pid=4,
    supervisor_created_s=12.5,
    phase=Phase.READY,
    ports=Ports(airflow=8081),
    endpoints={"flights": 8890},
    started_s=100.0,
    ready_after_s=20.1,
    notes=("port 8080 for airflow is taken by another program; using 8081 instead",),
    components=(ComponentState(name="scheduler", health=Health.HEALTHY, pid=9, created_s=13.0),),
)


@pytest.fixture
def paths(tmp_path: Path) -> StackPaths:
    found = StackPaths(home=tmp_path / "home", root=tmp_path)
    found.make()
    return found


def test_a_state_survives_the_file(paths: StackPaths) -> None:
    save_state(paths, STATE)
    assert load_state(paths) == STATE
    save_state(paths, replace(STATE, phase=Phase.STOPPING))
    assert load_state(paths) == replace(STATE, phase=Phase.STOPPING)
    assert [p.name for p in paths.run.iterdir()] == ["state.json"]


def test_no_file_is_no_state(paths: StackPaths) -> None:
    assert load_state(paths) is None
    forget_state(paths)
    save_state(paths, STATE)
    forget_state(paths)
    assert load_state(paths) is None


def test_addresses_follow_the_ports() -> None:
    assert STATE.airflow_url == "http://127.0.0.1:8081"


def test_only_one_supervisor_holds_the_lock(paths: StackPaths) -> None:
    assert not is_running(paths)
    with supervisor_lock(paths) as first:
        assert first
        assert is_running(paths)
        with supervisor_lock(paths) as second:
            assert not second
        assert is_running(paths)
    assert not is_running(paths)


def test_whoever_only_asks_keeps_no_supervisor_from_starting(
    paths: StackPaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (paths.run / "supervisor.lock").open("a") as asking:
        fcntl.flock(asking, fcntl.LOCK_SH)
        assert not is_running(paths), "two that ask do not take each other for a stack"
        monkeypatch.setattr(state, "sleep", lambda _seconds: fcntl.flock(asking, fcntl.LOCK_UN))
        with supervisor_lock(paths) as is_mine:
            assert is_mine


def test_the_lock_ends_with_a_killed_holder(paths: StackPaths) -> None:
    code = f"""
import os, sys
from pathlib import Path
from clearway.launch.paths import StackPaths
from clearway.launch.state import supervisor_lock
with supervisor_lock(StackPaths(home=Path({str(paths.home)!r}), root=Path("/"))) as mine:
    print(mine, flush=True)
    sys.stdin.read()
"""
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"True\n"
        assert is_running(paths)
        holder.kill()
    assert not is_running(paths)


def test_secrets_are_made_once_private_and_long(paths: StackPaths) -> None:
    keys = load_secret_keys(paths.keys)
    assert load_secret_keys(paths.keys) == keys
    assert len(keys.jwt.encode()) >= 64
    for file in paths.keys.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert len({keys.jwt, keys.api, keys.fernet}) == 3


@pytest.mark.parametrize(
    ("text", "says"),
    [(json.dumps({"pid": os.getpid()}), "required keys"), ("{", "Expecting property name")],
    ids=["of another layout", "cut off"],
)
def test_a_state_that_cannot_be_read_is_refused_with_the_way_on(paths: StackPaths, text: str, says: str) -> None:
    (paths.run / "state.json").write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=f"{says}.*then remove the file"):
        load_state(paths)
