"""Ask the components how they are."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from clearway.infra.clock import parse_instant
from clearway.infra.jobs.local import JOBS
from clearway.infra.jobs.start import is_listening
from clearway.launch.components import AIRFLOW_PARTS, ENDPOINT
from clearway.launch.state import Health, StackState

PROBE_TIMEOUT_S = 3.0
# Airflow's answer says `metadatabase` and uses underscores; the API server is healthy when it answers at all.
_AIRFLOW_KEYS = {"scheduler": "scheduler", "dag-processor": "dag_processor", "triggerer": "triggerer"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """One component's health and a few words about it."""

    health: Health
    detail: str = ""


def read_health(
    client: httpx.Client, state: StackState, *, home: Path, started_s: dict[str, float]
) -> dict[str, Reading]:
    """Health by component. `started_s`: start of each process (Unix); older heartbeats belong to a predecessor."""
    answer = _get_json(client, f"{state.airflow_url}/api/v2/monitor/health")
    readings = airflow_readings(answer, started_s=started_s)
    readings["mlflow"] = _mlflow(client, state.mlflow_url)
    readings |= {f"{ENDPOINT}{product}": _endpoint(client, url) for product, url in state.endpoint_urls.items()}
    readings["callers"] = Reading(health=Health.HEALTHY, detail="ask while a canary runs")  # the process lives: enough
    readings["warm-worker"] = _warm_worker(home)
    return readings


def airflow_readings(answer: dict[str, Any] | None, *, started_s: dict[str, float]) -> dict[str, Reading]:
    """Translate Airflow's health document; None when nothing answered."""
    if answer is None:
        return {name: Reading(health=Health.STARTING) for name in AIRFLOW_PARTS}
    database = (answer.get("metadatabase") or {}).get("status")
    readings = {"api-server": Reading(health=Health.HEALTHY if database == "healthy" else Health.UNHEALTHY)}
    for name, key in _AIRFLOW_KEYS.items():
        part = answer.get(key) or {}
        beat = part.get(f"latest_{key}_heartbeat")
        is_fresh = beat is not None and parse_instant(beat).timestamp() >= started_s.get(name, 0.0)
        if part.get("status") == "healthy" and is_fresh:
            readings[name] = Reading(health=Health.HEALTHY)
        else:
            readings[name] = Reading(health=Health.STARTING, detail="no heartbeat yet" if not is_fresh else "")
    return readings


def _warm_worker(home: Path) -> Reading:
    if is_listening(home / JOBS):
        return Reading(health=Health.HEALTHY, detail="jobs are forked")
    return Reading(health=Health.STARTING, detail="loads libraries; jobs start without it")


def _mlflow(client: httpx.Client, url: str) -> Reading:
    status = _get_status(client, f"{url}/health")
    return Reading(health=Health.HEALTHY if status == httpx.codes.OK else Health.STARTING)


def _endpoint(client: httpx.Client, url: str) -> Reading:
    status = _get_status(client, f"{url}/ping")
    if status == httpx.codes.OK:
        return Reading(health=Health.HEALTHY, detail="serving")
    if status == httpx.codes.SERVICE_UNAVAILABLE:
        return Reading(health=Health.HEALTHY, detail="no model yet")
    return Reading(health=Health.STARTING)


def _get_status(client: httpx.Client, url: str) -> int:
    try:
        return client.get(url).status_code
    except httpx.TransportError:
        return 0


def _get_json(client: httpx.Client, url: str) -> dict[str, Any] | None:
    try:
        answer = client.get(url)
        return dict(answer.json()) if answer.status_code == httpx.codes.OK else None
    except (httpx.TransportError, ValueError):
        return None
