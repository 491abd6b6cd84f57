"""Measure one batch, decide, report: in this order, so that a slow or broken report never holds up a decision."""

import logging
from typing import TYPE_CHECKING, Any

from clearway.contracts.verdict import Verdict
from clearway.infra.clock import SystemClock
from clearway.infra.environment import Environment
from clearway.infra.faults import fault
from clearway.infra.layout import Layout
from clearway.infra.release_store import open_release_store
from clearway.infra.storage import Storage, open_storage
from clearway.monitor.decide import Answer, Decision, decide
from clearway.monitor.history import (
    SUMMARY,
    earlier_windows,
    past_decisions,
    read_summary,
    state_before,
    store_decision,
)
from clearway.monitor.kinds import Case, watched
from clearway.monitor.page import section, whole_page
from clearway.monitor.spec import Inputs, Outputs
from clearway.monitor.summary import Summary
from clearway.product import LoadedProduct
from clearway.product_monitor import CountedBy, DriftWeights

if TYPE_CHECKING:
    from clearway.infra.datasets import DatasetDocument
    from clearway.measures.tally import Tally
    from clearway.monitor.batch_rows import BatchRows
    from clearway.monitor.drift_part import DriftPart
    from clearway.packaging.package import Package

LOG = logging.getLogger("clearway.monitor")
REPORT = "drift.html"


def run(inputs: Inputs, *, product: LoadedProduct, env: Environment) -> Outputs:
    """Judge the newest batch against the champion's training period and the labels that arrived with it.

    Run again with the same inputs, it returns what it found the first time; only a batch that could not be judged
    (INCONCLUSIVE) is measured anew, since a champion or a prediction log may have come in the meantime.
    """
    work = _Work(inputs, product=product, env=env)
    summary = read_summary(work.storage, work.layout, inputs.batch_id)
    if summary is None or summary.dataset_digest != inputs.dataset.digest or summary.verdict is Verdict.INCONCLUSIVE:
        summary = work.measure()
        work.storage.write(work.layout.monitor(inputs.batch_id, SUMMARY), summary.to_json())
    fault("monitor.after_summary")
    decision = work.decide(summary)
    fault("monitor.after_decision")
    work.report(summary, decision)
    LOG.info("batch %s: %s, retraining: %s", inputs.batch_id, summary.verdict.value, decision.answer.value)
    return Outputs(
        verdict=summary.verdict,
        reason="; ".join((*decision.reasons[:1], summary.reason)),
        retrain=decision.answer is Answer.RETRAIN,
        evidence_digest=decision.evidence_digest,
        as_of=summary.as_of,
        report_uri=work.layout.monitor(inputs.batch_id, REPORT),
        summary_uri=work.layout.monitor(inputs.batch_id, SUMMARY),
    )


class _Work:
    """One run's surroundings; the champion is looked up once, so that all parts speak of the same model."""

    def __init__(self, inputs: Inputs, *, product: LoadedProduct, env: Environment) -> None:
        self.inputs, self.product, self.env = inputs, product, env
        self.policy = product.spec.monitor
        self.storage: Storage = open_storage(env.store_root)
        self.layout = Layout(env.store_root, product.name)
        self.watched = watched(product)
        self._opened: Package | None = None

    def measure(self) -> Summary:
        """Inputs and performance, judged. Reads the batch's rows, its labels, the prediction log, the package."""
        import pyarrow.compute as pc  # noqa: PLC0415 - not needed when the result is already there

        from clearway.infra.datasets import open_dataset  # noqa: PLC0415
        from clearway.monitor.judge import summarise  # noqa: PLC0415
        from clearway.monitor.prediction_log import read_predictions  # noqa: PLC0415

        document = open_dataset(self.storage, self.inputs.dataset)
        champion = self._champion()
        batch = self._batch(document)
        log = read_predictions(self.storage, self.layout, [self.inputs.batch_id])
        served = log.filter(pc.equal(log["model_digest"], champion.digest)) if champion else log.slice(0, 0)
        drift, own = None, []
        if champion is not None and batch.num_rows >= self.policy.min_rows:
            own = served["score"].to_pylist()
            drift = self._drift(champion, batch, scores=own)
        case = Case(
            product=self.product,
            storage=self.storage,
            layout=self.layout,
            document=document,
            batch_id=self.inputs.batch_id,
            batch=batch,
            served=served,
            champion=champion,
        )
        judged = self.watched.judged(case)
        before, num_passed = state_before(self.storage, self.layout, self.product.spec.batch, self.inputs.batch_id)
        return summarise(
            product=self.product.name,
            batch_id=self.inputs.batch_id,
            as_of=document.as_of,
            dataset_digest=self.inputs.dataset.digest,
            champion_digest=champion.digest if champion else None,
            num_rows=batch.num_rows,
            drift=drift,
            performance=judged.performance,
            surprise=judged.surprise,
            length=judged.length,
            other_faults=judged.faults,
            scores=own,
            arrived=judged.arrived,
            before=before,
            num_passed=num_passed,
            policy=self.policy,
        )

    def decide(self, summary: Summary) -> Decision:
        """The decision on this batch, kept if it says retrain."""
        window = summary.window
        earlier = earlier_windows(
            self.storage, self.layout, self.product.spec.batch, self.policy, batch_id=summary.batch_id
        )
        past = past_decisions(self.storage, self.layout)
        decision = decide([*earlier, window], past, self.policy, product=self.product.name, as_of=summary.as_of)
        if decision.answer is Answer.RETRAIN:
            now_s = SystemClock().now_s()
            store_decision(self.storage, self.layout, decision, window, as_of=summary.as_of, now_s=now_s)
        return decision

    def report(self, summary: Summary, decision: Decision) -> None:
        """The page for people; not made again for a summary it already shows."""
        uri = self.layout.monitor(summary.batch_id, REPORT)
        top = section(summary, decision)
        if self.storage.exists(uri) and summary.digest.encode() in self.storage.read(uri):
            return
        page = self._evidently(summary)
        html = page.replace("<body>", f"<body>{top}", 1) if page else whole_page(top)
        self.storage.write(uri, html.encode())

    def _evidently(self, summary: Summary) -> str:
        if summary.drift is None or summary.champion_digest is None:
            return ""
        from clearway.infra.datasets import open_dataset  # noqa: PLC0415
        from clearway.monitor.report import drift_page  # noqa: PLC0415

        package = self._package(self.layout.model(summary.champion_digest), summary.champion_digest)
        batch = self._batch(open_dataset(self.storage, self.inputs.dataset))
        rows = batch.evenly(self.policy.report_rows)
        return drift_page(summary.drift, package.reference["sample"], rows)

    def _champion(self) -> "Package | None":
        champion = open_release_store(self.env).read(self.product.name)[0].champion
        return self._package(champion.uri, champion.digest) if champion else None

    def _package(self, uri: str, digest: str) -> "Package":
        from clearway.packaging.package import open_package  # noqa: PLC0415 - cryptography, encoder

        if self._opened is None or self._opened.digest != digest:  # measuring and the page want the same one
            self._opened = open_package(self.storage, uri, digest, key_folder=self.env.home / "keys")
        return self._opened

    def _batch(self, document: "DatasetDocument") -> "BatchRows":
        from clearway.monitor.batch_rows import batch_rows  # noqa: PLC0415

        return batch_rows(
            self.storage,
            self.layout,
            document,
            batch_id=self.inputs.batch_id,
            rows_per_piece=self.watched.rows_per_piece,
        )

    def _drift(self, champion: "Package", batch: "BatchRows", *, scores: list[float]) -> "DriftPart":
        from clearway.monitor.drift import measure_counted, measure_pieces  # noqa: PLC0415

        reference = champion.reference
        how: dict[str, Any] = {
            "num_rows": batch.num_rows,
            "ignore": self.policy.ignore,
            "scores": scores,
            "false_discovery_rate": self.policy.false_discovery_rate,
            "is_by_effect": self.policy.drift_weights is DriftWeights.EFFECT,
        }
        if self.policy.counted_by is CountedBy.SPARK:
            return measure_counted(reference, self._counted_by_spark(reference, batch), sample=None, **how)
        return measure_pieces(reference, batch.pieces(), **how)

    def _counted_by_spark(self, reference: dict[str, Any], batch: "BatchRows") -> "Tally":
        from clearway.infra.spark import spark_session  # noqa: PLC0415 - pyspark, only where it is asked for
        from clearway.monitor.spark_tally import spark_tally  # noqa: PLC0415

        with spark_session(self.env) as session:
            return spark_tally(reference["features"], session.read.parquet(*batch.uris))
