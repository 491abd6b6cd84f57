"""Emit an asset event that names what happened; skipped with everything else when it did not."""

from collections.abc import Callable, Mapping
from typing import Any

from airflow.sdk import Asset, BaseOperator, Context

from clearway_airflow.operators.stage import RETRIES, RETRY_DELAY

# ruff: noqa: PLC0415 - see stage.py


class AnnounceOperator(BaseOperator):
    """Succeeds, and thereby updates `asset`.

    Args:
        stage: task whose Outputs the event reports.
        asset: what was made.
        payload: Outputs as a dict, and the task's context → the event's payload.
    """

    ui_color = "#e9f5ea"

    def __init__(
        self,
        *,
        stage: str,
        asset: Asset,
        payload: Callable[[Mapping[str, Any], Context], dict[str, Any]],
        **kwargs: Any,
    ) -> None:
        super().__init__(outlets=[asset], retries=RETRIES, retry_delay=RETRY_DELAY, **kwargs)
        self.stage = stage
        self.asset = asset
        self.payload = payload

    def execute(self, context: Context) -> None:
        """Attach the payload to the event."""
        outputs = context["ti"].xcom_pull(task_ids=self.stage, key="return_value")
        payload = self.payload(outputs, context)
        context["outlet_events"][self.asset].extra = payload
        self.log.info("%s: %s", self.asset.uri, payload)


def landed_batch(outputs: Mapping[str, Any], context: Context) -> dict[str, Any]:
    """Which batch landed."""
    from clearway_airflow.handoff import pull_request

    request = pull_request(context, first_task="ingest")
    return {"batch_id": request.batch_id, "start": request.start, "end": outputs["end"]}


def retraining_decision(outputs: Mapping[str, Any], context: Context) -> dict[str, Any]:  # noqa: ARG001
    """Why and on which data to retrain."""
    return {key: outputs[key] for key in ("as_of", "evidence_digest", "reason")}


def new_champion(outputs: Mapping[str, Any], context: Context) -> dict[str, Any]:
    """What serves now."""
    from clearway_airflow.requests import run_name

    status = outputs["status"] or {}
    return {"digest": status.get("digest", ""), "release_id": run_name(context)}
