"""Ask a person on Airflow's own approval page, where somebody must be asked.

Speaks to Airflow's human-in-the-loop directly: a question is stored, the task parks in `awaiting_input` with no worker
or a triggerer, and the scheduler resumes it with the answer. The standard provider's operator does the same, but its
import costs every task process 5 ms of the 50 that parsing may take.
"""

from datetime import timedelta
from typing import Any

from airflow.sdk import BaseOperator, Context, SkipMixin
from airflow.sdk.exceptions import AirflowException, TaskAwaitingInput

from clearway_airflow.operators.stage import RETRIES, RETRY_DELAY

# ruff: noqa: PLC0415 - see stage.py

APPROVE, REJECT = "Approve", "Reject"
BODY = """\
**{title}** · risk tier **{tier}** · owners {owners}

| | |
|---|---|
| model digest | `{model}` |
| evaluation | **{verdict}** · digest `{evaluation}` |
| data as of | {as_of} |
| started because | {reason} |

{finding}

[Open the report]({report})

Approving lets exactly these bytes take the traffic. Without an answer within {hours:.0f} hours the release is rejected.
"""


class ApproveOperator(BaseOperator, SkipMixin):
    """Parks the release until a person answers; the answer is stored with the digests it was given for.

    Nobody is asked where the risk tier does not demand it, or where the environment answers itself (and says so).
    """

    stage = "approve"
    ui_color = "#fdf3d8"

    def __init__(self, *, product: str, **kwargs: Any) -> None:
        super().__init__(task_id=self.stage, retries=RETRIES, retry_delay=RETRY_DELAY, **kwargs)
        self.product = product

    def execute(self, context: Context) -> Any:
        """Answer what needs no person; otherwise ask and park."""
        from clearway.release import standing_answer
        from clearway_airflow import told
        from clearway_airflow.outcomes import translated

        with translated(self.stage):
            env, product, request, evaluated = self._case(context)
            answer = standing_answer(product.spec, evaluated.verdict, mode=env.approve.mode, asked=request.approval)
            if answer is not None:
                self.log.warning("NOBODY WAS ASKED: %s by %s. %s", answer.answer, answer.answered_by, answer.note)
                return self._record(context, answer)
            hours = env.approve.timeout_hours
            subject = f"{product.spec.title}: release {request.release_id}"
            report = _report_address(context, evaluated)
            self._ask(context, subject, _body(product.spec, request, evaluated, report=report, hours=hours))
            told.question(env, self.product, request.release_id, f"{evaluated.reason}; {report}")
        raise TaskAwaitingInput(method_name="execute_complete", timeout=timedelta(hours=hours))

    def _ask(self, context: Context, subject: str, body: str) -> None:
        from airflow.sdk import Param
        from airflow.sdk.execution_time.hitl import upsert_hitl_detail

        note = Param("", type=["string", "null"], maxLength=1000, title="Why")
        upsert_hitl_detail(
            ti_id=context["ti"].id,
            options=[APPROVE, REJECT],
            subject=subject,
            body=body,
            # Silence is not consent.
            defaults=[REJECT],
            params={"note": note.serialize()},
        )

    def execute_complete(self, context: Context, event: dict[str, Any]) -> Any:
        """Store the answer and act on it."""
        from clearway.release import Answer
        from clearway_airflow.outcomes import translated

        if "error" in event:
            raise AirflowException(f"the question could not be asked: {event['error']}")
        user = event.get("responded_by_user")
        answer = Answer(
            answer="approve" if event["chosen_options"] == [APPROVE] else "reject",
            answered_by=str(user["name"]) if user else "nobody (time ran out)",
            note=str((event.get("params_input") or {}).get("note") or ""),
        )
        self.log.info("answered by %s: %s", answer.answered_by, answer.answer)
        with translated(self.stage):
            return self._record(context, answer)

    def _record(self, context: Context, answer: Any) -> Any:
        from clearway.release import approve_inputs, run_in_place
        from clearway_airflow.outcomes import conclude

        env, product, request, evaluated = self._case(context)
        inputs = approve_inputs(request, evaluated, answer)
        return conclude(self, context, run_in_place(self.stage, inputs, product=product, env=env))

    def _case(self, context: Context) -> tuple[Any, Any, Any, Any]:
        from clearway.infra.environment import Environment
        from clearway.product_yaml import find_product
        from clearway_airflow.handoff import pull_outputs, pull_request

        env = Environment.load()
        (evaluated,) = pull_outputs(context, ["evaluate"])
        return env, find_product(env.products, self.product), pull_request(context, first_task="ingest"), evaluated


def _report_address(context: Context, evaluated: Any) -> str:
    from urllib.parse import quote

    from airflow.sdk import conf

    dag_run = context["dag_run"]
    run = f"{quote(dag_run.dag_id, safe='')}/{quote(dag_run.run_id, safe='')}"
    file = evaluated.report_uri.rpartition("/")[2]
    return f"{conf.get('api', 'base_url', fallback='').rstrip('/')}/clearway/runs/{run}/evaluate/{file}"


def _body(product: Any, request: Any, evaluated: Any, *, report: str, hours: float) -> str:
    return BODY.format(
        title=product.title,
        tier=product.risk_tier,
        owners=", ".join(product.owners),
        model=evaluated.model.digest,
        verdict=evaluated.verdict.value,
        evaluation=evaluated.evaluation_digest,
        as_of=request.end,
        reason=request.reason or "not given",
        finding=evaluated.reason,
        report=report,
        hours=hours,
    )
