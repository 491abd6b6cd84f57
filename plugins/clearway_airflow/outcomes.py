"""From a stage's answer or error to the state of its task: the one table.

| stage says                  | task       | downstream                        |
|-----------------------------|------------|-----------------------------------|
| pass                        | success    | runs                              |
| fail                        | success    | skipped; the DAG run is green     |
| inconclusive, from evaluate | success    | runs: approve then asks a person  |
| inconclusive, elsewhere     | success    | skipped, with the reason          |
| monitor, any measured answer| success    | runs only if a retraining is due  |
| error                       | up for retry, then failed  |                   |
| retryable error raised      | up for retry, then failed  |                   |
| other Clearway error raised | failed at once             |                   |
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from airflow.sdk import Context
from airflow.sdk.exceptions import AirflowException, AirflowFailException

from clearway.contracts.errors import ClearwayError
from clearway.contracts.verdict import Verdict
from clearway.release import stops
from clearway_airflow import told
from clearway_airflow.handoff import push_outputs


def advances(stage: str, outputs: Any) -> bool:
    """Whether the tasks after `stage` run.

    Raises: AirflowException for a verdict of ERROR: the measurement itself broke, so the task is tried again.
    """
    if outputs.verdict is Verdict.ERROR:
        raise AirflowException(f"{stage} could not be measured: {outputs.reason}")
    if stage == "monitor":
        return bool(outputs.retrain)
    return not stops(stage, outputs.verdict)


def conclude(operator: Any, context: Context, outputs: Any, *, is_told: bool = True) -> dict[str, Any]:
    """Hand a stage's Outputs on, then let downstream tasks run or skip them. Returns what was handed on.

    `is_told`: figures are published, and a person is told of what went wrong.
    """
    stage, log = operator.stage, operator.log
    log.info("%s: %s: %s", stage, outputs.verdict.value, outputs.reason)
    does_advance = advances(stage, outputs)
    value = push_outputs(context, outputs)
    if is_told:
        told.outcome(operator, context, outputs, ends=not does_advance)
    if not does_advance:
        log.info("%s ends this run here; downstream tasks are skipped", stage)
        operator.skip(context["ti"], context["task"].get_flat_relatives(upstream=False))
    return value


@contextmanager
def translated(stage: str) -> Iterator[None]:
    """Raise a ClearwayError as the Airflow exception that gives the task the right state."""
    try:
        yield
    except ClearwayError as error:
        text = f"{stage}: {type(error).__name__}: {error}"
        if error.is_retryable:
            raise AirflowException(text) from error
        raise AirflowFailException(text) from error
