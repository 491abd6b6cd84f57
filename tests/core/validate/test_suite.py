"""The suite in the real Great Expectations on Sail: what breaks, or looks at nothing, is an error and never a pass."""

from collections.abc import Iterator
from typing import Any

import pytest

from clearway.contracts.refs import DatasetRef
from clearway.contracts.verdict import Check, Verdict, judge
from clearway.infra.environment import Environment
from clearway.infra.layout import Layout
from clearway.infra.spark import spark_session
from clearway.infra.storage import open_storage
from clearway.product import Expectation, LoadedProduct
from clearway.validate.run import run
from clearway.validate.spec import Inputs

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:PySpark does not yet fully support pandas:FutureWarning"),
]
FULL = Expectation(expect="column_values_to_be_between", args={"column": "full", "min_value": 0, "max_value": 9})
EMPTY = Expectation(expect="column_values_to_be_between", args={"column": "empty", "min_value": 0, "max_value": 9})
EMPTY_SET = Expectation(expect="column_values_to_be_in_set", args={"column": "empty_text", "value_set": ["a"]})
EMPTY_MEAN = Expectation(expect="column_mean_to_be_between", args={"column": "empty", "min_value": 0, "max_value": 9})
EXPLODES = Expectation(expect="column_values_to_explode", args={"column": "full"})
BOOM = "the third row bit back"


@pytest.fixture(scope="module")
def frames(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """A frame with and one without rows, in one session."""
    with spark_session(Environment(home=tmp_path_factory.mktemp("spark"))) as spark:
        rows = spark.createDataFrame(
            [(1.0, None, None), (2.0, None, None)], "full double, empty double, empty_text string"
        )
        yield {"rows": rows, "no rows": rows.where("full > 5")}


@pytest.fixture
def explosive(monkeypatch: pytest.MonkeyPatch) -> None:
    """An expectation of Great Expectations' own kind that raises instead of answering."""
    import great_expectations as gx

    class ExpectColumnValuesToExplode(gx.expectations.ExpectColumnValuesToBeUnique):
        def _validate(self, *_: Any, **__: Any) -> Any:
            raise RuntimeError(BOOM)

    monkeypatch.setattr(gx.expectations, "ExpectColumnValuesToExplode", ExpectColumnValuesToExplode, raising=False)


def _run(frame: Any, *expectations: Expectation) -> tuple[Check, ...]:
    from clearway.validate.suite import run_suite

    return run_suite(frame, expectations, name="suite").checks


def test_values_that_are_there_are_judged(frames: dict[str, Any]) -> None:
    assert judge(_run(frames["rows"], FULL)).verdict is Verdict.PASS


@pytest.mark.parametrize("expectation", [EMPTY, EMPTY_SET, EMPTY_MEAN], ids=["range", "set", "mean"])
def test_an_expectation_about_values_that_saw_none_is_an_error(
    frames: dict[str, Any], expectation: Expectation
) -> None:
    complete, full, empty = _run(frames["rows"], FULL, expectation)
    assert (complete.verdict, full.verdict) == (Verdict.PASS, Verdict.PASS)
    assert empty.verdict is Verdict.ERROR, empty.reason


def test_a_rule_about_missing_values_has_seen_them(frames: dict[str, Any]) -> None:
    missing = Expectation(expect="column_values_to_not_be_null", args={"column": "empty"})
    assert _run(frames["rows"], missing)[1].verdict is Verdict.FAIL


def test_a_suite_on_no_rows_is_an_error(frames: dict[str, Any]) -> None:
    assert judge(_run(frames["no rows"], FULL)).verdict is Verdict.ERROR


def test_a_suite_of_nothing_is_an_error(frames: dict[str, Any]) -> None:
    assert judge(_run(frames["rows"])).verdict is Verdict.ERROR


def test_an_expectation_that_raises_is_an_error_beside_one_that_passes(frames: dict[str, Any], explosive: None) -> None:
    _, full, broken = _run(frames["rows"], FULL, EXPLODES)
    assert (full.verdict, broken.verdict) == (Verdict.PASS, Verdict.ERROR)
    assert BOOM in broken.reason


def _with_suite(product: LoadedProduct, *expectations: Expectation) -> LoadedProduct:
    rules = product.spec.validate_.model_copy(update={"expectations": expectations})
    return product.model_copy(update={"spec": product.spec.model_copy(update={"validate_": rules})})


def test_a_crash_inside_the_suite_leaves_no_receipt(
    env: Environment, product: LoadedProduct, make_dataset, explosive: None
) -> None:
    sound = product.spec.validate_.expectations[0]
    broken = Expectation(expect="column_values_to_explode", args={"column": "temp"})
    dataset: DatasetRef = make_dataset()
    inputs = Inputs(product="flights", release_id="r1", dataset=dataset)
    out = run(inputs, product=_with_suite(product, sound, broken), env=env)
    assert (out.verdict, out.receipt_uri) == (Verdict.ERROR, None)
    assert BOOM in out.reason
    assert not open_storage(env.store_root).exists(Layout(env.store_root, "flights").receipt(dataset.digest))


def test_a_crash_of_the_engine_fails_the_stage_and_leaves_no_receipt(
    env: Environment, product: LoadedProduct, make_dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    import great_expectations as gx

    def crash(*_: Any, **__: Any) -> Any:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(gx.ValidationDefinition, "run", crash)
    dataset: DatasetRef = make_dataset()
    with pytest.raises(RuntimeError, match="out of memory"):
        run(Inputs(product="flights", release_id="r1", dataset=dataset), product=product, env=env)
    assert not open_storage(env.store_root).exists(Layout(env.store_root, "flights").receipt(dataset.digest))
