"""Nothing lost: what a crash between two systems left undone is found and done."""

from typing import Any

from airflow.sdk import BaseOperator, Context

from clearway_airflow import assets
from clearway_airflow.operators.stage import RETRIES, RETRY_DELAY

# ruff: noqa: PLC0415 - see stage.py


class ReconcileOperator(BaseOperator):
    """Repairs one product: retraining decisions nobody acted on, the release document, jobs nobody watches."""

    ui_color = "#eeeeee"

    def __init__(self, *, product: str, **kwargs: Any) -> None:
        outlets = [assets.found_again(product)]
        super().__init__(outlets=outlets, retries=RETRIES, retry_delay=RETRY_DELAY, **kwargs)
        self.product = product

    def execute(self, context: Context) -> dict[str, Any]:
        """Returns what was repaired, for the task's XCom."""
        from clearway import reconcile
        from clearway.infra.environment import Environment
        from clearway.product_yaml import find_product
        from clearway_airflow.outcomes import translated

        with translated("reconcile"):
            env = Environment.load()
            product = find_product(env.products, self.product)
            batches = reconcile.unmonitored_batches(env, product)
            decisions, asked = reconcile.lost_decisions(env, product), reconcile.unclaimed_requests(env, product)
            again = context["outlet_events"][assets.found_again(self.product)]
            for payload in batches:
                again.add(assets.batches(self.product), extra=payload)
            for payload in decisions:
                again.add(assets.retrain(self.product), extra=payload)
            for payload in asked:
                again.add(assets.arrivals(self.product), extra=payload)
            found = {
                "batches": [payload["batch_id"] for payload in batches],
                "releases": [payload["evidence_digest"] for payload in [*decisions, *asked]],
                "repaired": reconcile.repair_release(env, product),
                "jobs": reconcile.stop_unwatched_jobs(env),
                "unbilled": reconcile.settle_bills(env, product),
            }
            self.log.info("reconciled: %s", found)
            return found
