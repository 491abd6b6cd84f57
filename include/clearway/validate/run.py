"""Judge a dataset before anything is trained on it; only a pass leaves a receipt."""

import json
import logging
from typing import TYPE_CHECKING

from clearway.contracts.codec import to_jsonable
from clearway.contracts.manifest import canonical_json, sha256_of
from clearway.contracts.verdict import Check, Judgement, Verdict, judge
from clearway.infra.environment import Environment
from clearway.infra.faults import fault
from clearway.infra.layout import Layout
from clearway.infra.release_store import open_release_store
from clearway.infra.storage import Storage, join, open_storage
from clearway.product import LoadedProduct, Product
from clearway.validate.spec import Inputs, Outputs

if TYPE_CHECKING:
    from clearway.infra.datasets import DatasetDocument
    from clearway.packaging.package import Package

LOG = logging.getLogger("clearway.validate")


def run(inputs: Inputs, *, product: LoadedProduct, env: Environment) -> Outputs:
    """Own gate, then the suite, then the comparison with the champion's reference.

    The same dataset under the same rules, again, finds its receipt and this release's report.
    Raises: IntegrityError if the dataset or the champion's package is not what its digest says; ConfigError for a suite
        that cannot be built.
    """
    storage, layout = open_storage(env.store_root), Layout(env.store_root, product.name)
    report_uri = layout.release(inputs.release_id, "validate", "report.html")
    receipt_uri = layout.receipt(inputs.dataset.digest)
    rules = suite_digest(product.spec)
    if storage.exists(report_uri) and is_passed(
        storage, receipt_uri, dataset_digest=inputs.dataset.digest, rules=rules
    ):
        return Outputs(verdict=Verdict.PASS, reason="validated before", receipt_uri=receipt_uri, report_uri=report_uri)
    judgement = _judge(inputs, product=product, env=env, storage=storage, layout=layout, report_uri=report_uri)
    fault("validate.before_receipt")
    passed = judgement.verdict is Verdict.PASS
    # A receipt that an earlier, laxer suite gave for these bytes must not outlive today's answer.
    if passed or storage.exists(receipt_uri):
        storage.write(receipt_uri, receipt(judgement, dataset_digest=inputs.dataset.digest, rules=rules))
    fault("validate.after_receipt")
    return Outputs(
        verdict=judgement.verdict,
        reason=_reason(judgement),
        receipt_uri=receipt_uri if passed else None,
        report_uri=report_uri,
    )


def _judge(
    inputs: Inputs, *, product: LoadedProduct, env: Environment, storage: Storage, layout: Layout, report_uri: str
) -> Judgement:
    """Every check on this dataset, with the pages people read written on the way."""
    from clearway.infra.datasets import open_dataset  # noqa: PLC0415 - pyarrow, paid inside the job only
    from clearway.validate.against_reference import reference_checks  # noqa: PLC0415
    from clearway.validate.own_gate import own_checks  # noqa: PLC0415
    from clearway.validate.report import DATA_DOCS, render  # noqa: PLC0415
    from clearway.validate.scan import scan  # noqa: PLC0415

    spec = product.spec
    document = open_dataset(storage, inputs.dataset)
    label = None if spec.label is None else (spec.label.table, spec.features.key, spec.label.column)
    seen = scan(storage, layout, document, label=label)
    checks = list(own_checks(seen, document, spec))
    has_suite = judge(checks).verdict is Verdict.PASS
    LOG.info("own gate: %s", _reason(judge(checks)))
    if has_suite:
        found, data_docs = _run_suite(storage, layout, document, product=spec, env=env)
        checks += found
        storage.write(join(report_uri.rpartition("/")[0], DATA_DOCS), data_docs.encode())
        champion = _champion(storage, product=spec, env=env)
        checks += reference_checks(storage, layout, document, champion=champion, product=spec)
    judgement = judge(checks)
    LOG.info("dataset %s: %s, %s", inputs.dataset.digest[:12], judgement.verdict.value, _reason(judgement))
    title = f"Validation of {spec.name}, release {inputs.release_id}"
    page = render(judgement, seen, title=title, dataset_digest=inputs.dataset.digest, has_data_docs=has_suite)
    storage.write(report_uri, page)
    return judgement


def _run_suite(
    storage: Storage, layout: Layout, document: "DatasetDocument", *, product: Product, env: Environment
) -> tuple[tuple[Check, ...], str]:
    """The suite over all feature files, in the engine that made them."""
    from clearway.infra.datasets import feature_uris  # noqa: PLC0415
    from clearway.infra.spark import spark_session  # noqa: PLC0415

    with spark_session(env) as spark:
        from clearway.validate.suite import run_suite  # noqa: PLC0415 - after pyspark has chosen its engine

        frame = spark.read.parquet(*feature_uris(storage, layout, document))
        result = run_suite(frame, product.validate_.expectations, name=product.name)
    return result.checks, result.html


def _champion(storage: Storage, *, product: Product, env: Environment) -> "Package | None":
    from clearway.packaging.package import open_package  # noqa: PLC0415

    document, _ = open_release_store(env).read(product.name)
    if document.champion is None:
        return None
    return open_package(storage, document.champion.uri, document.champion.digest, key_folder=env.home / "keys")


def suite_digest(product: Product) -> str:
    """SHA-256 of everything in product.yaml that decides what a valid dataset is."""
    rules = {
        "validate": product.validate_.model_dump(mode="json"),
        "features": product.features.model_dump(mode="json"),
        "label": None if product.label is None else product.label.model_dump(mode="json"),
    }
    return sha256_of(canonical_json(rules))


def receipt(judgement: Judgement, *, dataset_digest: str, rules: str) -> bytes:
    """The receipt's bytes: a function of the dataset, the rules and what was measured, nothing else."""
    checks = [to_jsonable(c) for c in judgement.checks if c.is_decisive]
    return canonical_json(
        {
            "dataset_digest": dataset_digest,
            "verdict": judgement.verdict.value,
            "suite_digest": rules,
            "checks": checks,
        }
    )


def is_passed(storage: Storage, uri: str, *, dataset_digest: str, rules: str) -> bool:
    """Whether a passing receipt for exactly this dataset and these rules lies at `uri`."""

    if not storage.exists(uri):
        return False
    found = json.loads(storage.read(uri))
    return (found["dataset_digest"], found["verdict"], found["suite_digest"]) == (dataset_digest, "pass", rules)


def _reason(judgement: Judgement) -> str:
    decisive = [c for c in judgement.checks if c.is_decisive]
    if judgement.verdict is Verdict.PASS:
        return f"{len(decisive)} checks passed"
    reasons = judgement.reasons
    return f"{len(reasons)} of {len(decisive)} checks did not pass; first: {reasons[0]}"
