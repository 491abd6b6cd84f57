"""Airflow's health document, read with suspicion: a heartbeat of a predecessor is no health."""

from pathlib import Path
from typing import Any

import httpx
import pytest

from clearway.launch.health import airflow_readings, read_health
from clearway.launch.ports import Ports
from clearway.launch.state import Health, Phase, StackState

BEAT = "2026-01-01T12:00:00.000000+00:00"
BEAT_S = 1767268800.0
STATE = StackState(
    supervisor_pid=1,
    supervisor_created_s=0.0,
    phase=Phase.STARTING,
    ports=Ports(),
    endpoints={"flights": Ports().endpoint},
    started_s=0.0,
)


def document(**changes: Any) -> dict[str, Any]:
    parts = {
        key: {"status": "healthy", f"latest_{key}_heartbeat": BEAT}
        for key in ("scheduler", "dag_processor", "triggerer")
    }
    return {"metadatabase": {"status": "healthy"}, **parts, **changes}


def test_all_four_parts_are_healthy() -> None:
    found = airflow_readings(document(), started_s={})
    assert {name: r.health for name, r in found.items()} == dict.fromkeys(
        ("api-server", "scheduler", "dag-processor", "triggerer"), Health.HEALTHY
    )


def test_no_answer_is_still_starting() -> None:
    assert {r.health for r in airflow_readings(None, started_s={}).values()} == {Health.STARTING}


def test_a_heartbeat_older_than_the_process_does_not_count() -> None:
    found = airflow_readings(document(), started_s={"scheduler": BEAT_S + 1, "triggerer": BEAT_S - 1})
    assert found["scheduler"].health is Health.STARTING
    assert found["triggerer"].health is Health.HEALTHY


def test_a_part_that_was_never_seen_is_starting() -> None:
    silent = {"status": None, "latest_triggerer_heartbeat": None}
    found = airflow_readings(document(triggerer=silent), started_s={})
    assert found["triggerer"].health is Health.STARTING
    assert found["triggerer"].detail == "no heartbeat yet"


def test_a_broken_database_makes_the_api_server_unhealthy() -> None:
    found = airflow_readings(document(metadatabase={"status": "unhealthy"}), started_s={})
    assert found["api-server"].health is Health.UNHEALTHY


@pytest.mark.parametrize(
    ("ping", "health", "detail"),
    [(200, Health.HEALTHY, "serving"), (503, Health.HEALTHY, "no model yet"), (404, Health.STARTING, "")],
    ids=["serving", "empty", "someone-else"],
)
def test_an_endpoint_without_a_model_is_alive(ping: int, health: Health, detail: str, tmp_path: Path) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(ping if request.url.path == "/ping" else 200, json=document())

    with httpx.Client(transport=httpx.MockTransport(answer)) as client:
        found = read_health(client, STATE, home=tmp_path, started_s={})
    assert (found["endpoint-flights"].health, found["endpoint-flights"].detail) == (health, detail)
    assert found["mlflow"].health is Health.HEALTHY


def test_nothing_listening_is_no_error(tmp_path: Path) -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused", request=request)

    with httpx.Client(transport=httpx.MockTransport(refuse)) as client:
        found = read_health(client, STATE, home=tmp_path, started_s={})
    assert {r.health for name, r in found.items() if name != "callers"} == {Health.STARTING}  # callers listen nowhere
