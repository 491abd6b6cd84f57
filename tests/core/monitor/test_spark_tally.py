"""What Spark counts is what is counted here, bin by bin, and so are the verdicts."""

from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clearway.infra.datasets import DAY
from clearway.infra.environment import Environment
from clearway.infra.spark import spark_session
from clearway.measures.distance import build_reference
from clearway.measures.tally import tally
from clearway.monitor.drift import measure_counted, measure_drift
from clearway.product_monitor import CountedBy

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:PySpark does not yet fully support pandas:FutureWarning"),
]

NUMERIC = ["measured", "read", "constant", "is_open", "short"]
NUM_ROWS, NUM_DAYS = 3_000, 7


def rows(seed: int, *, unit: float = 1.0, missing: float = 0.1) -> pa.Table:
    """Measured with infinities and no-numbers, read in steps, constant, true or false, float32, and names."""
    rng = np.random.default_rng(seed)
    is_missing = rng.random(NUM_ROWS) < missing
    measured = rng.normal(size=NUM_ROWS)
    measured[:4] = [np.inf, -np.inf, np.nan, -0.0]
    columns: dict[str, Any] = {
        "measured": measured,
        "read": rng.poisson(9, NUM_ROWS) * 1.15078 * unit,
        "constant": np.full(NUM_ROWS, 3.0),
        "is_open": rng.random(NUM_ROWS) < 0.5,
        "short": rng.normal(size=NUM_ROWS).astype(np.float32),
        "code": rng.choice(["u", "v", "w", f"new{seed}"], NUM_ROWS),
        "tail": [f"N{i}" for i in rng.integers(0, 900, NUM_ROWS)],
    }
    days = [date(2020, 2, 25) + timedelta(days=int(d)) for d in rng.integers(0, NUM_DAYS, NUM_ROWS)]
    arrays = {name: pa.array(values, mask=is_missing) for name, values in columns.items()}
    return pa.table(
        arrays | {"batch_id": [f"{i // 300:02}" for i in range(NUM_ROWS)], DAY: pa.array(days, pa.date32())}
    )


@pytest.fixture(scope="module")
def reference() -> dict[str, Any]:
    return build_reference(rows(0), numeric=NUMERIC, categorical=["code", "tail"], batch_column="batch_id")


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> "Iterator[SparkSession]":
    with spark_session(Environment(home=tmp_path_factory.mktemp("spark"))) as session:
        yield session


@pytest.mark.parametrize(
    "batch",
    [rows(1), rows(2, unit=0.44704), rows(3, missing=1.0), pa.concat_tables([rows(1), rows(2), rows(4)])],
    ids=["usual", "another unit", "nothing there", "three files"],
)
def test_spark_counts_what_is_counted_here(
    session: "SparkSession", reference: dict[str, Any], tmp_path: Path, batch: pa.Table
) -> None:
    from clearway.monitor.spark_tally import spark_tally

    entries = reference["features"]
    assert {name for name, e in entries.items() if e.get("grid")} >= {"read"}
    assert {name for name, e in entries.items() if e.get("seen")} == {"code"}
    uris = []
    for number, start in enumerate(range(0, len(batch), NUM_ROWS)):
        uris.append(f"{tmp_path.as_uri()}/{number}.parquet")
        pq.write_table(batch.slice(start, NUM_ROWS), tmp_path / f"{number}.parquet")
    found = spark_tally(entries, session.read.parquet(*uris))
    here = tally(entries, batch, days=batch[DAY].cast(pa.int32()).to_numpy())
    assert found.days == here.days
    for name, column in here.columns.items():
        assert np.array_equal(column.bins.counts, found.columns[name].bins.counts), name
        assert np.array_equal(column.bins.missing, found.columns[name].bins.missing), name
        np.testing.assert_allclose(column.bins.sums, found.columns[name].bins.sums, rtol=1e-9, atol=1e-9)
        assert (column.num_unseen, column.num_asked) == (found.columns[name].num_unseen, found.columns[name].num_asked)
        assert column.num_sized == found.columns[name].num_sized
        assert column.log_sum == pytest.approx(found.columns[name].log_sum, rel=1e-9, abs=1e-9)
    how: dict[str, Any] = {"ignore": (), "scores": None, "false_discovery_rate": 0.1}
    by_spark = measure_counted(reference, found, sample=None, num_rows=len(batch), **how)
    by_frame = measure_drift(reference, batch, **how)
    assert [(f.name, f.is_over, f.is_lost, f.unseen) for f in by_spark.features] == [
        (f.name, f.is_over, f.is_lost, f.unseen) for f in by_frame.features
    ]
    assert (by_spark.share_over, by_spark.num_changed) == (by_frame.share_over, by_frame.num_changed)


def test_the_stage_decides_the_same_when_spark_counts(town: Any) -> None:
    champion = town.release()
    dataset = town.land(8, town.rows(8, shift=2.0), labelled_week=None)
    town.serve(8, champion)
    town.monitor(8, dataset)
    by_pieces = town.summary(8)
    town.storage.delete_tree(town.layout.monitor("2013-03-04"))
    policy = town.product.spec.monitor.model_copy(update={"counted_by": CountedBy.SPARK})
    spec = town.product.spec.model_copy(update={"monitor": policy})
    town.product = type(town.product)(spec=spec, folder=town.product.folder, digest=town.product.digest)
    town.monitor(8, dataset)
    by_spark = town.summary(8)
    assert by_spark["drift"]["together"] is None
    for key in ("verdict", "reason", "faults"):
        assert by_spark[key] == by_pieces[key]
    over = [[(f["name"], f["is_over"]) for f in s["drift"]["features"]] for s in (by_spark, by_pieces)]
    assert over[0] == over[1]
    assert any(is_over for _, is_over in over[0])
