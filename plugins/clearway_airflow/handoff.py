"""What tasks hand to each other through XCom: references and verdicts, never data."""

import json
from collections.abc import Sequence
from typing import Any

from airflow.sdk import Context

from clearway.contracts.codec import from_jsonable, to_jsonable
from clearway.contracts.errors import ConfigError
from clearway.contracts.refs import MAX_REFERENCE_BYTES
from clearway.release import Request, parse_outputs

REQUEST_KEY = "clearway_request"
# Outputs hold up to three references and a sentence.
MAX_XCOM_BYTES = 3 * MAX_REFERENCE_BYTES
# The whole reason is in the task's log and in the stage's own report.
MAX_REASON = 300


def push_request(context: Context, request: Request) -> None:
    """Store what this run is about."""
    context["ti"].xcom_push(key=REQUEST_KEY, value=_checked(to_jsonable(request), "request"))


def pull_request(context: Context, *, first_task: str) -> Request:
    """What this run is about, as its first task decided."""
    raw = context["ti"].xcom_pull(task_ids=first_task, key=REQUEST_KEY)
    if raw is None:
        raise ConfigError(f"task {first_task!r} left no request in this run; clear that task and let it run first")
    return from_jsonable(Request, raw)


def push_outputs(context: Context, outputs: Any) -> dict[str, Any]:
    """Store a stage's Outputs; returns what was stored."""
    value: dict[str, Any] = to_jsonable(outputs)
    value["reason"] = value["reason"][:MAX_REASON]
    context["ti"].xcom_push(key="return_value", value=_checked(value, "outputs"))
    return value


def pull_outputs(context: Context, stages: Sequence[str]) -> list[Any]:
    """Outputs of earlier stages, in the order asked for."""
    found = []
    for stage in stages:
        raw = context["ti"].xcom_pull(task_ids=stage, key="return_value")
        if raw is None:
            raise ConfigError(f"task {stage!r} left no outputs in this run; clear that task and let it run first")
        found.append(parse_outputs(stage, json.dumps(raw)))
    return found


def _checked(value: dict[str, Any], what: str) -> dict[str, Any]:
    num_bytes = len(json.dumps(value))
    if num_bytes > MAX_XCOM_BYTES:
        raise ConfigError(f"{what} of {num_bytes} bytes do not fit XCom; allowed {MAX_XCOM_BYTES}; hand on a reference")
    return value
