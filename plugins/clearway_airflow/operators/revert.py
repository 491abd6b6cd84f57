"""The way back: the previous champion takes all traffic again."""

from typing import Any

from airflow.sdk import Context

from clearway_airflow.operators.stage import StageOperator

# ruff: noqa: PLC0415 - see stage.py


class RevertOperator(StageOperator):
    """Runs the rollback in this very process: a job's start would take longer than the rollback."""

    stage = "revert"

    def execute(self, context: Context) -> dict[str, Any] | None:
        """Roll back; doing it twice is the same as once."""
        from clearway.deploy.spec import RollbackInputs
        from clearway.infra.environment import Environment
        from clearway.product_yaml import find_product
        from clearway.release import run_in_place
        from clearway_airflow.outcomes import conclude, translated
        from clearway_airflow.requests import run_name

        with translated(self.stage):
            env = Environment.load()
            reason = str(context["params"]["reason"])
            inputs = RollbackInputs(product=self.product, release_id=run_name(context), reason=reason)
            product = find_product(env.products, self.product)
            return conclude(self, context, run_in_place(self.stage, inputs, product=product, env=env))
