"""First task of every chain: it decides what the run is about, then lands the data."""

from typing import Any

from airflow.sdk import Context

from clearway_airflow import assets
from clearway_airflow.operators.stage import StageOperator

# ruff: noqa: PLC0415 - see stage.py


class IngestOperator(StageOperator):
    """Lands the window of this run.

    A release that was asked for by hand first asks the product's policy, and ends green if that refuses. Then it claims
    the retraining decisions that caused it; one that comes second ends green, as superseded. A batch run treats the
    oldest of the batches whose events were merged into it and announces the others again.
    """

    stage = "ingest"

    def execute(self, context: Context) -> dict[str, Any] | None:
        """Decide, claim, land."""
        from clearway.contracts.verdict import Verdict
        from clearway.infra.environment import Environment
        from clearway.ingest.spec import Outputs
        from clearway.product_yaml import find_product
        from clearway.release import claim_evidence
        from clearway_airflow import handoff, requests
        from clearway_airflow.outcomes import conclude, translated

        with translated(self.stage):
            env = Environment.load()
            product = find_product(env.products, self.product)
            is_release = self.chain == "release"
            refused = requests.refusals(context, product, env) if is_release else {}
            request = (
                requests.for_release(context, product, env, refused=refused)
                if is_release
                else requests.for_batch(context, product)
            )
            self.log.info("this run is about %s; refused: %s", request, refused)
            handoff.push_request(context, request)
            events = requests.event_extras(context)
            is_refused = bool(refused) and all(extra.get("evidence_digest") in refused for extra in events)
            owner = "" if is_refused else claim_evidence(env, request)
            if owner != request.release_id:
                superseded = f"superseded: release {owner} already acts on this evidence"
                nothing = Outputs(
                    verdict=Verdict.FAIL,
                    reason="; ".join(refused.values()) if is_refused else superseded,
                    raw=None,
                    end=request.end,
                    num_batches=0,
                    num_new=0,
                )
                return conclude(self, context, nothing, is_told=is_refused)
            if self.chain == "batch":
                self._announce_again(context, requests.leftover_batches(context, request))
        return super().execute(context)

    def _announce_again(self, context: Context, leftovers: list[Any]) -> None:
        for extra in leftovers:
            self.log.info("batch %s was merged into this run; announcing it again", extra["batch_id"])
            alias = context["outlet_events"][assets.merged_batches(self.product)]
            alias.add(assets.batches(self.product), extra=dict(extra))
