"""The work of the evaluate stage: rows and models in, evaluation and page out."""

import logging
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from threadpoolctl import threadpool_limits

from clearway.contracts.codec import to_jsonable
from clearway.contracts.errors import Unmeasurable
from clearway.contracts.manifest import canonical_json, sha256_of
from clearway.contracts.release_document import Version
from clearway.contracts.verdict import Check, Judgement, Verdict, judge
from clearway.evaluate.judging import Measured, judge_candidate
from clearway.evaluate.live import Latency, latency_check, model_server, smoke, time_single_rows
from clearway.evaluate.margins import derivation
from clearway.evaluate.report import Page, render, render_error
from clearway.evaluate.spec import Inputs
from clearway.evaluate.yardsticks import fit_yardsticks, seeded
from clearway.infra.clock import SystemClock
from clearway.infra.datasets import open_dataset, read_labelled
from clearway.infra.environment import Environment
from clearway.infra.evaluations import evaluation_uri
from clearway.infra.faults import fault
from clearway.infra.layout import Layout
from clearway.infra.storage import Storage
from clearway.packaging.package import Package, open_package
from clearway.packaging.split import Split, split_at
from clearway.product import LoadedProduct, Product

LOG = logging.getLogger("clearway.evaluate")
REFERENCE_FILE = "lightgbm.txt"


def produce(
    inputs: Inputs,
    *,
    case: dict[str, str | None],
    champion: Version | None,
    product: LoadedProduct,
    env: Environment,
    storage: Storage,
) -> bytes:
    """Write timings, page and evaluation, in this order, and return the evaluation's bytes.

    What cannot be measured at all becomes an ERROR with its reason, never a verdict on the model.
    """
    layout = Layout(env.store_root, product.name)
    keys = env.home / "keys"
    candidate = open_package(storage, inputs.model.uri, inputs.model.digest, key_folder=keys)
    serving = open_package(storage, champion.uri, champion.digest, key_folder=keys) if champion else None
    with model_server(env, product=product.name, clock=SystemClock()) as ready:
        split = _split(inputs, product=product, storage=storage, layout=layout)
        LOG.info("judging on %d rows from %s", len(split.holdout), split.holdout_start)
        latency = time_single_rows(candidate)
        operational = [
            latency_check(latency, limit_ms=product.spec.tabular.gates.latency_ms),
            smoke(ready(), inputs.model, candidate),
        ]
    fault("evaluate.after_smoke")
    # Matrices here are small: a second BLAS thread waits more than it computes (a fit took 0.3 CPU seconds with one,
    # 1.4 with two threads, on busy cores far more), and adds in another order, so figures would follow the machine.
    with threadpool_limits(1, user_api="blas"):
        measured = _judged_or_error(
            split, candidate, serving, operational, product=product.spec, env=env, inputs=inputs
        )
    fault("evaluate.before_write")
    return _write(inputs, measured, latency, case=case, product=product, storage=storage, layout=layout)


def _split(inputs: Inputs, *, product: LoadedProduct, storage: Storage, layout: Layout) -> Split:
    spec = product.spec
    rows = read_labelled(
        storage,
        layout,
        open_dataset(storage, inputs.dataset),
        table=spec.tabular.label.table,
        key=spec.features.key,
        column=spec.tabular.label.column,
    )
    return split_at(rows, holdout_days=spec.release.holdout_days)


def _judged_or_error(
    split: Split,
    candidate: Package,
    champion: Package | None,
    operational: Sequence[Check],
    *,
    product: Product,
    env: Environment,
    inputs: Inputs,
) -> Measured | Judgement:
    make_rng, num_threads = seeded(inputs.dataset.digest), env.jobs.num_threads
    try:
        yardsticks = fit_yardsticks(
            split, candidate.encoder, product=product, num_threads=num_threads, make_rng=make_rng
        )
        return judge_candidate(
            candidate,
            champion,
            split=split,
            yardsticks=yardsticks,
            operational=operational,
            product=product,
            num_threads=num_threads,
            make_rng=make_rng,
        )
    except Unmeasurable as error:
        return judge([Check(name="measurable", verdict=Verdict.ERROR, reason=str(error)), *operational])


def _reason(judgement: Judgement) -> str:
    decisive = sum(c.is_decisive for c in judgement.checks)
    if judgement.verdict is Verdict.PASS:
        return f"{decisive} gates passed"
    return f"{len(judgement.reasons)} of {decisive} gates did not pass; first: {judgement.reasons[0]}"


def evaluation_json(
    measured: Measured | Judgement, *, case: dict[str, str | None], confidence: float, release_id: str
) -> bytes:
    """Canonical bytes: the same inputs give the same digest anywhere, so nothing timed and no address is in it."""
    judgement = measured if isinstance(measured, Judgement) else measured.judgement
    content: dict[str, Any] = {
        **case,
        "release_id": release_id,
        "verdict": judgement.verdict.value,
        "reason": _reason(judgement),
        "checks": to_jsonable(judgement.checks),
    }
    if isinstance(measured, Measured):
        content["evidence"] = to_jsonable(measured.evidence)
        content["thresholds"] = derivation(
            measured.yardsticks.margins, measured.yardsticks.folds, confidence=confidence
        )
    return canonical_json(content)


def _write(
    inputs: Inputs,
    measured: Measured | Judgement,
    latency: Latency,
    *,
    case: dict[str, str | None],
    product: LoadedProduct,
    storage: Storage,
    layout: Layout,
) -> bytes:
    confidence = product.spec.tabular.gates.confidence
    data = evaluation_json(measured, case=case, confidence=confidence, release_id=inputs.release_id)
    title = f"Evaluation of {product.name}, release {inputs.release_id}"
    provenance = [("evaluation", sha256_of(data)), *((k, str(v)) for k, v in case.items())]
    if isinstance(measured, Judgement):
        html = render_error(measured, title=title, provenance=provenance)
    else:
        html = render(
            Page(
                title=title,
                judgement=measured.judgement,
                evidence=measured.evidence,
                holdout=measured.holdout,
                margins=measured.yardsticks.margins,
                folds=measured.yardsticks.folds,
                latency=latency,
                provenance=provenance,
            )
        )
    if isinstance(measured, Measured):
        storage.write(
            layout.release(inputs.release_id, "evaluate", REFERENCE_FILE), measured.yardsticks.reference.encode()
        )
    storage.write(layout.release(inputs.release_id, "evaluate", "timings.json"), canonical_json(asdict(latency)))
    storage.write(layout.release(inputs.release_id, "evaluate", "report.html"), html)
    fault("evaluate.before_evaluation")
    storage.write(evaluation_uri(layout, inputs.release_id), data)
    return data
