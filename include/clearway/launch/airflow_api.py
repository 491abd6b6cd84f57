"""The part of Airflow's REST API that driving the loop needs. No token: the local profile listens on loopback only."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from time import monotonic, sleep
from typing import Any

import httpx

from clearway.contracts.errors import ConfigError, Unavailable
from clearway.infra.clock import parse_instant

POLL_S = 0.4
REQUEST_TIMEOUT_S = 30.0
# A scheduler under load answers late, not never; give up on the API only after this long without one answer.
OUTAGE_TIMEOUT_S = 60.0
ENDED = frozenset({"success", "failed"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A DAG run; instants are aware UTC, None while unknown."""

    dag_id: str
    run_id: str
    state: str
    run_type: str
    queued: datetime | None
    started: datetime | None
    ended: datetime | None
    conf: dict[str, Any]

    @property
    def duration_s(self) -> float | None:
        """Seconds from being asked for to the end; None while it lasts."""
        begin = self.queued or self.started
        return (self.ended - begin).total_seconds() if begin and self.ended else None

    @property
    def has_ended(self) -> bool:
        return self.state in ENDED


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A task of a run. `state` is None before it is scheduled."""

    task_id: str
    state: str | None
    started: datetime | None
    ended: datetime | None
    try_number: int

    @property
    def duration_s(self) -> float | None:
        """Seconds from start to end; None unless both are known."""
        return (self.ended - self.started).total_seconds() if self.started and self.ended else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """An asset event: its payload and the runs it started, as (DAG id, run id)."""

    asset_name: str
    extra: dict[str, Any]
    created: tuple[tuple[str, str], ...] = field(default=())


OnTasks = Callable[[Run, tuple[Task, ...]], None]


class AirflowApi:
    """Calls on one Airflow; every call that changes something is safe to repeat."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._client = httpx.Client(base_url=f"{url}/api/v2", timeout=REQUEST_TIMEOUT_S)

    def close(self) -> None:
        """Release the connection."""
        self._client.close()

    def has_dag(self, dag_id: str) -> bool:
        """Whether the DAG is known and was parsed without error."""
        return self._get(f"/dags/{dag_id}") is not None

    def import_errors(self) -> list[str]:
        """File and first lines of every DAG file that could not be imported."""
        found = self._get("/importErrors") or {}
        return [f"{e['filename']}: {e['stack_trace'].strip()[-800:]}" for e in found.get("import_errors", [])]

    def trigger(self, dag_id: str, run_id: str, *, conf: dict[str, Any], note: str) -> Run:
        """Start a run, or find the one of that name. Raises: ConfigError if Airflow refuses `conf`."""
        body = {"dag_run_id": run_id, "logical_date": None, "conf": conf, "note": note}
        answer = self._call("POST", f"/dags/{dag_id}/dagRuns", json=body)
        if answer.status_code == httpx.codes.CONFLICT:
            return self.run(dag_id, run_id)
        _refuse(answer, f"start of {dag_id} as {run_id!r}")
        return _run(answer.json())

    def clear_failed(self, dag_id: str, run_id: str) -> None:
        """Let the failed tasks of a run, and what follows them, run again."""
        body = {"dry_run": False, "only_failed": True}
        _refuse(self._call("POST", f"/dags/{dag_id}/dagRuns/{run_id}/clear", json=body), f"clearing {run_id!r}")

    def run(self, dag_id: str, run_id: str) -> Run:
        """Raises: ConfigError if there is no such run."""
        found = self._get(f"/dags/{dag_id}/dagRuns/{run_id}")
        if found is None:
            raise ConfigError(f"Airflow has no run {run_id!r} of {dag_id!r}; look at {self._url}/dags/{dag_id}")
        return _run(found)

    def runs(self, dag_id: str, *, limit: int = 100) -> list[Run]:
        """Runs of a DAG, oldest first; the newest `limit` of them."""
        found = self._get(f"/dags/{dag_id}/dagRuns", params={"limit": limit, "order_by": "-run_after"})
        return [_run(r) for r in reversed((found or {}).get("dag_runs", []))]

    def tasks(self, dag_id: str, run_id: str) -> tuple[Task, ...]:
        """Tasks of a run, in the order in which they started, waiting ones last."""
        found = self._get(f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances", params={"limit": 100})
        tasks = [_task(t) for t in (found or {}).get("task_instances", [])]
        return tuple(sorted(tasks, key=lambda t: (t.started is None, t.started.timestamp() if t.started else 0.0)))

    def outputs(self, dag_id: str, run_id: str, task_id: str) -> dict[str, Any] | None:
        """What a task handed on (its return value), or None."""
        entry = f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/xcomEntries/return_value"
        value = (self._get(entry, params={"deserialize": "false"}) or {}).get("value")
        return value if isinstance(value, dict) else None

    def events_of(self, dag_id: str, run_id: str) -> list[Event]:
        """Asset events that a run emitted, oldest first."""
        params = {"source_dag_id": dag_id, "source_run_id": run_id, "order_by": "timestamp"}
        found = self._get("/assets/events", params=params)
        return [_event(e) for e in (found or {}).get("asset_events", [])]

    def causes_of(self, dag_id: str, run_id: str) -> list[Event]:
        """Asset events that started a run; empty for one started otherwise."""
        found = self._get(f"/dags/{dag_id}/dagRuns/{run_id}/upstreamAssetEvents")
        return [_event(e) for e in (found or {}).get("asset_events", [])]

    def pending_approvals(self) -> list[dict[str, Any]]:
        """Questions that wait for a person."""
        found = self._get("/dags/~/dagRuns/~/hitlDetails", params={"response_received": "false"})
        return list((found or {}).get("hitl_details", []))

    def wait(self, run: Run, *, on_tasks: OnTasks, timeout_s: float) -> Run:
        """Until the run has ended. Raises: Unavailable after `timeout_s`."""
        deadline = monotonic() + timeout_s
        while True:
            now = self.run(run.dag_id, run.run_id)
            on_tasks(now, self.tasks(run.dag_id, run.run_id))
            if now.has_ended:
                return now
            if monotonic() > deadline:
                raise Unavailable(
                    f"run {run.run_id!r} of {run.dag_id!r} is {now.state} after {timeout_s:.0f} s;"
                    f" look at {self._url}/dags/{run.dag_id}/runs/{run.run_id}, then run the same command again"
                )
            sleep(POLL_S)

    def _get(self, path: str, params: dict[str, Any] | None = None) -> dict[str, Any] | None:
        answer = self._call("GET", path, params=params)
        if answer.status_code == httpx.codes.NOT_FOUND:
            return None
        _refuse(answer, f"GET {path}")
        return dict(answer.json())

    def _call(self, method: str, path: str, **kwargs: Any) -> httpx.Response:
        deadline = monotonic() + OUTAGE_TIMEOUT_S
        while True:
            try:
                answer = self._client.request(method, path, **kwargs)
            except httpx.TransportError as error:
                if monotonic() > deadline:
                    raise Unavailable(f"Airflow at {self._url} does not answer ({error}); see `make status`") from error
            else:
                if not answer.is_server_error or monotonic() > deadline:
                    return answer
            sleep(POLL_S)


def _refuse(answer: httpx.Response, what: str) -> None:
    if answer.is_server_error:
        raise Unavailable(f"{what} failed with {answer.status_code}: {answer.text[:300]}")
    if answer.is_client_error:
        raise ConfigError(f"{what} was refused with {answer.status_code}: {answer.text[:500]}")


def _run(raw: dict[str, Any]) -> Run:
    return Run(
        dag_id=raw["dag_id"],
        run_id=raw["dag_run_id"],
        state=raw["state"],
        run_type=raw["run_type"],
        queued=_instant(raw["queued_at"]),
        started=_instant(raw["start_date"]),
        ended=_instant(raw["end_date"]),
        conf=raw["conf"] or {},
    )


def _task(raw: dict[str, Any]) -> Task:
    return Task(
        task_id=raw["task_id"],
        state=raw["state"],
        started=_instant(raw["start_date"]),
        ended=_instant(raw["end_date"]),
        try_number=raw["try_number"],
    )


def _event(raw: dict[str, Any]) -> Event:
    created = tuple((r["dag_id"], r["run_id"]) for r in raw["created_dagruns"])
    return Event(asset_name=raw["name"] or raw["uri"] or "", extra=raw["extra"] or {}, created=created)


def _instant(text: str | None) -> datetime | None:
    return parse_instant(text.replace("Z", "+00:00")) if text else None
