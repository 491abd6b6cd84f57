"""Measure one batch, decide, report: in this order, so that a slow or broken report never holds up a decision."""

import logging
from typing import TYPE_CHECKING, Any

from clearway.contracts.refs import ModelRef
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
    label_batches,
    past_decisions,
    read_summary,
    store_decision,
)
from clearway.monitor.page import section, whole_page
from clearway.monitor.spec import Inputs, Outputs
from clearway.monitor.summary import DriftPart, PerformancePart, Summary
from clearway.product import LoadedProduct

if TYPE_CHECKING:
    import pyarrow as pa

    from clearway.infra.datasets import DatasetDocument

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
    """One run's surroundings; the champion is looked up once, so that both parts speak of the same model."""

    def __init__(self, inputs: Inputs, *, product: LoadedProduct, env: Environment) -> None:
        self.inputs, self.product, self.env = inputs, product, env
        self.policy = product.spec.monitor
        self.storage: Storage = open_storage(env.store_root)
        self.layout = Layout(env.store_root, product.name)

    def measure(self) -> Summary:
        """Both parts, judged. Reads the batch's features, its labels, the prediction log and the champion's package."""
        import pyarrow.compute as pc  # noqa: PLC0415 - not needed when the result is already there

        from clearway.infra.datasets import open_dataset  # noqa: PLC0415
        from clearway.monitor.judge import summarise  # noqa: PLC0415
        from clearway.monitor.prediction_log import read_predictions  # noqa: PLC0415

        document = open_dataset(self.storage, self.inputs.dataset)
        champion = self._champion()
        batch = self._batch(document)
        log = read_predictions(self.storage, self.layout, [self.inputs.batch_id])
        drift = None
        if champion is not None and len(batch) >= self.policy.min_rows:
            own = log.filter(pc.equal(log["model_digest"], champion.digest))["score"].to_pylist()
            drift = self._drift(champion, batch, scores=own)
        return summarise(
            product=self.product.name,
            batch_id=self.inputs.batch_id,
            as_of=document.as_of,
            dataset_digest=self.inputs.dataset.digest,
            champion_digest=champion.digest if champion else None,
            num_rows=len(batch),
            drift=drift,
            performance=self._performance(document),
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

        champion = ModelRef(uri=self.layout.model(summary.champion_digest), digest=summary.champion_digest)
        batch = self._batch(open_dataset(self.storage, self.inputs.dataset))
        sample = self._reference(champion)["sample"]
        return drift_page(summary.drift, sample, batch, max_rows=self.policy.report_rows)

    def _champion(self) -> ModelRef | None:
        document, _ = open_release_store(self.env).read(self.product.name)
        champion = document.champion
        return ModelRef(uri=champion.uri, digest=champion.digest) if champion else None

    def _reference(self, champion: ModelRef) -> dict[str, Any]:
        from clearway.packaging.package import open_package  # noqa: PLC0415 - cryptography, encoder

        package = open_package(self.storage, champion.uri, champion.digest, key_folder=self.env.home / "keys")
        return package.reference

    def _batch(self, document: "DatasetDocument") -> "pa.Table":
        import pyarrow.compute as pc  # noqa: PLC0415

        from clearway.infra.datasets import BATCH, read_features  # noqa: PLC0415

        rows = read_features(self.storage, self.layout, document)
        return rows.filter(pc.equal(rows[BATCH], self.inputs.batch_id))

    def _drift(self, champion: ModelRef, batch: "pa.Table", *, scores: list[float]) -> DriftPart:
        from clearway.monitor.drift import measure_drift  # noqa: PLC0415

        return measure_drift(self._reference(champion), batch, ignore=self.policy.ignore, scores=scores)

    def _performance(self, document: "DatasetDocument") -> PerformancePart:
        from clearway.infra.datasets import read_labels  # noqa: PLC0415
        from clearway.monitor.performance import measure_performance  # noqa: PLC0415
        from clearway.monitor.prediction_log import read_predictions  # noqa: PLC0415

        spec = self.product.spec
        labels = read_labels(
            self.storage,
            self.layout,
            document,
            table=spec.tabular.label.table,
            key=spec.features.key,
            column=spec.tabular.label.column,
        )
        delay_days = spec.tables[spec.tabular.label.table].delay_days
        batches = label_batches(spec.batch, self.inputs.batch_id, delay_days=delay_days)
        return measure_performance(labels, read_predictions(self.storage, self.layout, batches))
