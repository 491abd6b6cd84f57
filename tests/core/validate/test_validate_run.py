"""The whole stage on Sail: verdict, receipt, pages, reruns."""

import json
import re

import pyarrow as pa
import pytest

from clearway.contracts.errors import ConfigError, IntegrityError
from clearway.contracts.refs import DatasetRef
from clearway.contracts.verdict import Verdict
from clearway.infra.environment import Environment
from clearway.infra.layout import Layout
from clearway.infra.storage import join, open_storage
from clearway.product import Expectation, LoadedProduct
from clearway.validate.run import run, suite_digest
from clearway.validate.spec import Inputs

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:PySpark does not yet fully support pandas:FutureWarning"),
]


def _inputs(dataset: DatasetRef, release_id: str = "r1") -> Inputs:
    return Inputs(product="flights", release_id=release_id, dataset=dataset)


def _with(product: LoadedProduct, **rules: object) -> LoadedProduct:
    changed = product.spec.validate_.model_copy(update=rules)
    return product.model_copy(update={"spec": product.spec.model_copy(update={"validate_": changed})})


def test_a_sound_dataset_gets_a_receipt_and_pages_and_keeps_them(
    env: Environment, product: LoadedProduct, make_dataset
) -> None:
    dataset = make_dataset()
    out = run(_inputs(dataset), product=product, env=env)
    storage = open_storage(env.store_root)
    assert (out.verdict, out.receipt_uri) == (
        Verdict.PASS,
        Layout(env.store_root, "flights").receipt(dataset.digest),
    ), out.reason
    receipt = json.loads(storage.read(out.receipt_uri))
    assert (receipt["dataset_digest"], receipt["verdict"]) == (dataset.digest, "pass")
    assert receipt["suite_digest"] == suite_digest(product.spec)
    assert sum(c["name"].startswith("expect[") for c in receipt["checks"]) == len(product.spec.validate_.expectations)
    page = storage.read(out.report_uri).decode()
    assert 'href="data-docs.html"' in page
    docs = storage.read(join(out.report_uri.rpartition("/")[0], "data-docs.html")).decode()
    assert "temp" in docs
    assert "<script src" not in docs
    assert re.findall(r"""(?:src|href)=["']https?://|url\(["']?https?://""", docs) == [], "a page opens without servers"
    before = storage.read(out.receipt_uri), storage.read(out.report_uri)
    again = run(_inputs(dataset), product=product, env=env)
    assert (again.verdict, again.receipt_uri, again.reason) == (Verdict.PASS, out.receipt_uri, "validated before")
    assert (storage.read(out.receipt_uri), storage.read(out.report_uri)) == before
    # Another release of the same bytes writes its own pages and the very same receipt.
    other = run(_inputs(dataset, "r2"), product=product, env=env)
    assert storage.read(other.receipt_uri) == before[0]
    assert other.report_uri != out.report_uri


def test_a_failed_expectation_leaves_no_receipt_and_withdraws_an_older_one(
    env: Environment, product: LoadedProduct, make_dataset
) -> None:
    def celsius(columns, _):
        return columns | {"temp": pa.array([(t - 32) / 1.8 for t in columns["temp"].to_pylist()])}

    dataset = make_dataset(celsius)
    lax = _with(product, expectations=product.spec.validate_.expectations[:2])
    passed = run(_inputs(dataset), product=lax, env=env)
    assert passed.verdict is Verdict.PASS
    out = run(_inputs(dataset), product=product, env=env)
    assert (out.verdict, out.receipt_uri) == (Verdict.FAIL, None)
    assert "column_mean_to_be_between[temp]" in out.reason
    withdrawn = json.loads(open_storage(env.store_root).read(passed.receipt_uri))
    assert withdrawn["verdict"] == "fail"


def test_an_expectation_that_cannot_run_is_an_error_not_a_pass(
    env: Environment, product: LoadedProduct, make_dataset
) -> None:
    broken = Expectation(expect="column_values_to_be_unique", args={"column": "nowhere"})
    product = _with(product, expectations=(*product.spec.validate_.expectations[:1], broken))
    out = run(_inputs(make_dataset()), product=product, env=env)
    assert (out.verdict, out.receipt_uri) == (Verdict.ERROR, None)
    assert "nowhere" in out.reason


def test_an_expectation_that_does_not_exist_is_refused_by_name(
    env: Environment, product: LoadedProduct, make_dataset
) -> None:
    product = _with(product, expectations=(Expectation(expect="column_values_to_be_nice", args={}),))
    with pytest.raises(ConfigError, match="column_values_to_be_nice"):
        run(_inputs(make_dataset()), product=product, env=env)


def test_the_own_gate_stops_before_the_suite(env: Environment, product: LoadedProduct, make_dataset) -> None:
    dataset = make_dataset(lambda c, _: {k: v for k, v in c.items() if k != "temp"})
    out = run(_inputs(dataset), product=product, env=env)
    assert out.verdict is Verdict.FAIL
    assert "temp" in out.reason
    assert b"Not run" in open_storage(env.store_root).read(out.report_uri)


def test_bytes_that_are_not_what_the_reference_names_are_refused(
    env: Environment, product: LoadedProduct, make_dataset
) -> None:
    dataset = make_dataset()
    storage = open_storage(env.store_root)
    storage.write(dataset.uri, storage.read(dataset.uri) + b" ")
    with pytest.raises(IntegrityError):
        run(_inputs(dataset), product=product, env=env)
