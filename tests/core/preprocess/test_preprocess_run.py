"""Features are computed where they are missing, once, and the dataset names them."""

import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from clearway.contracts.errors import ClearwayError, ConfigError, DataError, IntegrityError, Unavailable
from clearway.infra.datasets import DatasetDocument, open_dataset, read_features, read_labelled
from clearway.infra.environment import Environment
from clearway.infra.faults import InjectedFault
from clearway.infra.layout import Layout
from clearway.infra.storage import open_storage
from clearway.preprocess.spec import Outputs
from clearway.product import LoadedProduct
from clearway.product_yaml import load_product

MADE = ("temp_range", "month", "rain_days_3d", "rain_days_7d", "rain_days_30d", "precipitation_7d", "temp_mean_7d")
TEXTS = ", ".join(f"\"'cold' AS {name}\"" for name in (*MADE, "temp_change_7d", "season"))
YEAR = {"first": "2012-01-01", "start": "2012-01-01", "end": "2013-01-01"}


def document(env: Environment, outputs: Outputs) -> DatasetDocument:
    return open_dataset(open_storage(env.store_root), outputs.dataset)


def test_the_second_product_has_features_and_labels(
    rain: LoadedProduct, env: Environment, prepare: Callable[..., Outputs]
) -> None:
    outputs = prepare(rain, env, **YEAR)
    storage, layout = open_storage(env.store_root), Layout(env.store_root, rain.name)
    found = document(env, outputs)
    table = read_labelled(storage, layout, found, table="labels", key="key", column="rain")
    assert (outputs.num_rows, outputs.num_labelled, outputs.num_batches_computed) == (365, 364, 12)
    assert len(table) == 364
    assert found.as_of == "2013-01-01T00:00:00Z"
    assert table["key"].to_pylist() == sorted(table["key"].to_pylist())
    day = {row["key"]: row for row in table.to_pylist()}["2012-04-11"]
    # 2.3 mm on the 11th, none on the 9th and 10th; rain on the 12th
    assert (day["precipitation"], day["rain_days_3d"], day["label"], day["season"]) == (2.3, 1.0, 1.0, "spring")

    again = prepare(rain, env, **YEAR)
    assert again.dataset == outputs.dataset
    assert again.num_batches_computed == 0

    longer = prepare(rain, env, first="2012-01-01", start="2012-01-01", end="2013-02-01")
    assert longer.num_batches_computed == 1
    assert document(env, longer).features[:-1] == found.features


def test_a_month_with_its_look_back_equals_the_full_recompute(
    rain: LoadedProduct, env: Environment, prepare: Callable[..., Outputs]
) -> None:
    full = document(env, prepare(rain, env, **YEAR))
    shutil.rmtree(env.home / "store" / rain.name / "features")
    part = document(env, prepare(rain, env, first="2012-10-01", start="2012-12-01", end="2013-01-01"))
    assert part.features == full.features[-1:]


def test_a_changed_feature_function_computes_again(
    rain: LoadedProduct, env: Environment, prepare: Callable[..., Outputs], tmp_path: Path
) -> None:
    months = {"first": "2012-01-01", "start": "2012-01-01", "end": "2012-03-01"}
    before = prepare(rain, env, **months)
    folder = tmp_path / rain.name
    shutil.copytree(rain.folder, folder)
    source = folder / "features.py"
    source.write_text(source.read_text().replace('F.col("temp_max") - F.col("temp_min")', "F.lit(1.0)"))
    after = prepare(load_product(folder), env, **months)
    assert after.num_batches_computed == 2
    assert after.dataset != before.dataset
    storage, layout = open_storage(env.store_root), Layout(env.store_root, rain.name)
    assert set(read_features(storage, layout, document(env, after))["temp_range"].to_pylist()) == {1.0}
    # The older dataset named snapshots that are no longer current; reading it says so instead of mixing the two.
    with pytest.raises(IntegrityError, match="run the preprocess stage again"):
        read_features(storage, layout, document(env, before))


@pytest.mark.parametrize(
    ("body", "error", "told"),
    [
        (
            "tables['snow']",
            ConfigError,
            r"build of 'seattle_rain' raised KeyError: 'snow', line 2; it is handed the tables",
        ),
        ("None", ConfigError, "returned a NoneType; allowed: a Spark DataFrame"),
        ("tables['rows'].toArrow()", ConfigError, "returned a Table; allowed: a Spark DataFrame"),
        ("tables['rows'].select('snow')", ConfigError, "cannot be computed: .*snow"),
        (
            f"tables['rows'].selectExpr('*', {TEXTS})",
            DataError,
            "fails on the rows at hand: .*; allowed: numbers under",
        ),
    ],
    ids=["raises", "nothing", "no frame", "unknown column", "text as number"],
)
def test_a_feature_function_that_fails_is_told_with_what_to_correct(
    rain: LoadedProduct,
    env: Environment,
    prepare: Callable[..., Outputs],
    tmp_path: Path,
    body: str,
    error: type[ClearwayError],
    told: str,
) -> None:
    folder = tmp_path / rain.name
    shutil.copytree(rain.folder, folder)
    (folder / "features.py").write_text(f"def build(tables):\n    return {body}\n")
    with pytest.raises(error, match=told):
        prepare(load_product(folder), env, first="2012-01-01", start="2012-01-01", end="2012-02-01")


def test_a_declared_feature_that_is_not_made_is_named(
    rain: LoadedProduct, env: Environment, prepare: Callable[..., Outputs], tmp_path: Path
) -> None:
    folder = tmp_path / rain.name
    shutil.copytree(rain.folder, folder)
    source = folder / "features.py"
    source.write_text(source.read_text().replace('"temp_range"', '"temp_spread"'))
    with pytest.raises(ConfigError, match=r"does not return columns \['temp_range'\]"):
        prepare(load_product(folder), env, first="2012-01-01", start="2012-01-01", end="2012-02-01")


@pytest.mark.parametrize("point", ["preprocess.after_job", "preprocess.after_seal", "preprocess.before_dataset"])
def test_a_crash_anywhere_leaves_the_same_dataset_after_another_run(
    rain: LoadedProduct,
    env: Environment,
    prepare: Callable[..., Outputs],
    monkeypatch: pytest.MonkeyPatch,
    point: str,
) -> None:
    months = {"first": "2012-01-01", "start": "2012-01-01", "end": "2012-04-01"}
    with monkeypatch.context() as patched:
        patched.setenv("CLEARWAY_FAULT", f"{point}=raise")
        patched.setattr("clearway.infra.faults._visits", Counter())
        with pytest.raises(InjectedFault):
            prepare(rain, env, **months)
    resumed = prepare(rain, env, **months)
    shutil.rmtree(env.home / "store")
    assert prepare(rain, env, **months).dataset == resumed.dataset


@pytest.mark.filterwarnings("ignore:PySpark does not yet fully support pandas:FutureWarning")
def test_a_full_disk_under_spark_is_told_as_one_and_may_be_tried_again(
    rain: LoadedProduct, env: Environment, prepare: Callable[..., Outputs], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No test can fill a disk without rights; the error is Sail's own, word for word."""
    months = {"first": "2012-01-01", "start": "2012-01-01", "end": "2012-02-01"}

    def full(*_: object, **__: object) -> None:
        from pyspark.errors.exceptions.connect import QueryExecutionException

        text = "Generic LocalFileSystem error: Unable to copy data to file: No space left on device (os error 28)"
        raise QueryExecutionException(text)

    with monkeypatch.context() as patched:
        patched.setattr("pyspark.sql.connect.readwriter.DataFrameWriter.parquet", full)
        with pytest.raises(Unavailable, match=r"^Spark cannot write below file://.*: No space left on device; free"):
            prepare(rain, env, **months)
    assert prepare(rain, env, **months).num_rows == 30


def test_a_start_after_the_window_is_refused(
    rain: LoadedProduct, env: Environment, prepare: Callable[..., Outputs]
) -> None:
    with pytest.raises(ConfigError, match="no batch of the raw window"):
        prepare(rain, env, first="2012-01-01", start="2012-05-01", end="2012-03-01")
