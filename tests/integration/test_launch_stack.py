"""The real stack: from nothing to healthy, found by a second start, stopped without a trace."""

import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

import http_kit
from clearway.launch.airflow_env import STACK_MARK
from stack_kit import clean_environment, free_port, run_clearway

pytestmark = [pytest.mark.slow, pytest.mark.airflow]

START_TIMEOUT_S = 200


class Home:
    """One stack's home folder and the commands on it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ports = [free_port() for _ in range(3)]

    def clearway(self, *words: str) -> dict[str, Any]:
        environment = {**clean_environment(), "CLEARWAY__HOME": str(self.folder)}
        return run_clearway(*words, environment=environment, timeout_s=START_TIMEOUT_S)

    def up(self) -> dict[str, Any]:
        names = ("--airflow-port", "--mlflow-port", "--endpoint-port")
        words = [w for name, port in zip(names, self.ports, strict=True) for w in (name, str(port))]
        return self.clearway("up", "--detach", *words)

    def members(self) -> list[psutil.Process]:
        """Processes that carry this stack's mark, whoever their parent is now."""
        return [p for p in psutil.process_iter() if _mark(p) == str(self.folder)]


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    found = Home(tmp_path / "home")
    yield found
    found.clearway("stop")
    assert found.members() == []


def _mark(process: psutil.Process) -> str | None:
    try:
        return process.environ().get(STACK_MARK)
    except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
        return None


def _listeners(members: list[psutil.Process]) -> set[str]:
    family = {c.pid: c for m in members for c in (m, *m.children(recursive=True))}
    found = set()
    for member in family.values():
        try:
            connections = member.net_connections(kind="inet")
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
        found |= {c.laddr.ip for c in connections if c.status == psutil.CONN_LISTEN}
    return found


def test_a_stack_starts_is_found_and_leaves_nothing(home: Home) -> None:
    with socket.socket() as squatter:
        squatter.bind(("127.0.0.1", home.ports[0]))
        squatter.listen()
        first = home.up()
    assert first["started_now"]
    # The warm worker starts once all others are healthy.
    assert {c["health"] for c in first["components"] if c["name"] != "warm-worker"} == {"healthy"}
    assert first["airflow"] != f"http://127.0.0.1:{home.ports[0]}"
    assert any("is taken by another program" in note for note in first["notes"])

    health = http_kit.get(f"{first['airflow']}/api/v2/monitor/health").json()
    parts = ("metadatabase", "scheduler", "triggerer", "dag_processor")
    assert {health[p]["status"] for p in parts} == {"healthy"}
    assert http_kit.get(f"{first['mlflow']}/health").text == "OK"
    assert _listeners(home.members()) == {"127.0.0.1"}
    assert 0 < first["memory_mib"] < 4096

    second = home.up()
    assert not second["started_now"]
    assert second["supervisor_pid"] == first["supervisor_pid"]
    assert home.clearway("status")["running"]

    members = home.members()
    assert len(members) >= 6
    assert home.clearway("stop") == {"was_running": True}
    assert [p for p in members if p.is_running()] == []
    assert home.clearway("stop") == {"was_running": False}


def test_orphans_of_a_killed_supervisor_are_ended_by_the_next_start(home: Home) -> None:
    first = home.up()
    before = home.members()
    psutil.Process(first["supervisor_pid"]).send_signal(signal.SIGKILL)
    psutil.Process(first["supervisor_pid"]).wait(60)
    second = home.up()
    assert second["started_now"]
    assert second["supervisor_pid"] != first["supervisor_pid"]
    assert [p for p in before if p.is_running() and p.status() != psutil.STATUS_ZOMBIE] == []


@pytest.mark.long
def test_a_component_that_dies_is_started_again(home: Home) -> None:
    first = home.up()
    (endpoint,) = (c for c in first["components"] if c["name"] == "endpoint-flights")
    psutil.Process(endpoint["pid"]).kill()
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        (now,) = (c for c in home.clearway("status")["components"] if c["name"] == "endpoint-flights")
        if now["num_restarts"] == 1 and now["health"] == "healthy":
            break
        time.sleep(0.5)
    assert now["num_restarts"] == 1
    assert now["health"] == "healthy"
    assert http_kit.get(f"{first['endpoints']['flights']}/ping").status_code in {200, 503}
