"""Ask a person in Airflow's own approval page, where somebody must be asked."""

from datetime import timedelta
from typing import Any

from airflow.providers.standard.operators.hitl import HITLOperator
from airflow.sdk import Context, Param, SkipMixin

from clearway_airflow.operators.stage import RETRIES, RETRY_DELAY, StageOperator

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

Report: {report}

Approving lets exactly these bytes take the traffic. Without an answer within {hours:.0f} hours the release is rejected.
"""


class ApproveOperator(HITLOperator, SkipMixin):
    """Parks the release until a person answers; the answer is stored with the digests it was given for.

    Nobody is asked where the risk tier does not demand it, or where the environment answers itself (and says so).
    """

    stage = "approve"
    ui_color = "#fdf3d8"

    def __init__(self, *, product: str, **kwargs: Any) -> None:
        kwargs.setdefault("task_id", self.stage)
        kwargs.setdefault("retries", RETRIES)
        kwargs.setdefault("retry_delay", RETRY_DELAY)
        super().__init__(
            subject=f"Release of {product}",
            options=[APPROVE, REJECT],
            # Silence is not consent.
            defaults=REJECT,
            **kwargs,
        )
        # Marked as the task's own: the DAG's parameters do not belong into the answer form.
        self.params["note"] = Param("", source="task", type=["string", "null"], maxLength=1000, title="Why")
        self.product = product

    def execute(self, context: Context) -> Any:
        """Answer what needs no person; otherwise ask and park."""
        from clearway.release import standing_answer
        from clearway_airflow.outcomes import translated

        with translated(self.stage):
            env, product, request, evaluated = self._case(context)
            answer = standing_answer(product.spec, evaluated.verdict, mode=env.approve.mode, asked=request.approval)
            if answer is not None:
                self.log.warning("NOBODY WAS ASKED: %s by %s. %s", answer.answer, answer.answered_by, answer.note)
                return self._record(context, answer)
            self.response_timeout = timedelta(hours=env.approve.timeout_hours)
            self.subject = f"{product.spec.title}: release {request.release_id}"
            self.body = _body(product.spec, request, evaluated, hours=env.approve.timeout_hours)
        return super().execute(context)

    def execute_complete(self, context: Context, event: dict[str, Any]) -> Any:
        """Store the answer and act on it."""
        from clearway.release import Answer
        from clearway_airflow.outcomes import translated

        given = super().execute_complete(context, event)
        user = given["responded_by_user"]
        answer = Answer(
            answer="approve" if given["chosen_options"] == [APPROVE] else "reject",
            answered_by=str(user["name"]) if user else "nobody (time ran out)",
            note=str((given["params_input"] or {}).get("note", "")),
        )
        self.log.info("answered by %s: %s", answer.answered_by, answer.answer)
        with translated(self.stage):
            return self._record(context, answer)

    def _record(self, context: Context, answer: Any) -> Any:
        from clearway.release import approve_inputs, run_in_place

        env, product, request, evaluated = self._case(context)
        inputs = approve_inputs(request, evaluated, answer)
        return self.conclude(context, run_in_place(self.stage, inputs, product=product, env=env))

    conclude = StageOperator.conclude

    def _case(self, context: Context) -> tuple[Any, Any, Any, Any]:
        from clearway.infra.environment import Environment
        from clearway.product_yaml import find_product
        from clearway_airflow.handoff import pull_outputs, pull_request

        env = Environment.load()
        (evaluated,) = pull_outputs(context, ["evaluate"])
        return env, find_product(env.products, self.product), pull_request(context, first_task="ingest"), evaluated


def _body(product: Any, request: Any, evaluated: Any, *, hours: float) -> str:
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
        report=evaluated.report_uri,
        hours=hours,
    )
