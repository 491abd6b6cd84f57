"""A small product with a known truth: what the best model is, what a leak looks like, what noise does.

Rows have six numbers and two categories; the label's log-odds are TRUTH plus a shock that all rows of a day share.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
import onnx
import pyarrow as pa
import pytest
from onnx import TensorProto, helper, numpy_helper

from clearway.contracts.refs import DatasetRef, ModelRef
from clearway.infra.datasets import DAY, FEATURES_FILE, KEY, TIME, DatasetDocument, Piece, write_dataset
from clearway.infra.environment import Environment
from clearway.infra.layout import Layout
from clearway.infra.parquet import to_parquet
from clearway.infra.snapshots import new_attempt, publish, seal
from clearway.infra.storage import join, open_storage
from clearway.measures.distance import build_reference
from clearway.packaging.encoder import Encoder
from clearway.packaging.package import PackageContents, write_package
from clearway.product import Features, LoadedProduct
from clearway.product_rollout import Rollout

NUMERIC = ("x0", "x1", "x2", "x3", "x4", "x5")
CATEGORICAL = ("group", "other")
GROUPS = ("a", "b", "c")
TRUTH = np.array([1.0, -0.8, 0.5, 0.0, 0.0, 0.0])
INTERCEPT = -1.2
NUM_WEEKS, ROWS_PER_DAY, HOLDOUT_DAYS = 10, 80, 14
FIRST = datetime(2012, 12, 31, tzinfo=UTC)
HOLDOUT_START = (FIRST + timedelta(days=7 * NUM_WEEKS - HOLDOUT_DAYS)).date()


@pytest.fixture
def product(flights: LoadedProduct) -> LoadedProduct:
    """The small product; gates are those of flights where they do not depend on size."""
    features = Features(
        function="features.py:build",
        key="key",
        time="sched_dep_utc",
        lookback_days=0,
        numeric=NUMERIC,
        categorical=CATEGORICAL,
        deny=("outcome",),
        slices=("group",),
    )
    gates = flights.spec.gates.model_copy(
        update={
            "num_folds": 2,
            "num_resamples": 200,
            "min_slice_rows": 100,
            "min_slice_positives": 20,
            "latency_ms": 200.0,
        }
    )
    release = flights.spec.release.model_copy(update={"holdout_days": HOLDOUT_DAYS})
    parts = {"features": features, "gates": gates, "release": release, "rollout": Rollout()}
    spec = flights.spec.model_copy(update=parts)
    return flights.model_copy(update={"spec": spec, "digest": "p" * 64})


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """A dataset on disk and a way to package linear models for it."""

    dataset: DatasetRef
    package: Callable[..., ModelRef]


def _rows(rng: np.random.Generator, week: int, *, leak: bool) -> tuple[dict[str, pa.Array], list[float]]:
    num_rows = 7 * ROWS_PER_DAY
    day = np.repeat(np.arange(7), ROWS_PER_DAY)
    times = [FIRST + timedelta(days=7 * week + int(d), seconds=37 * i % 86_000) for i, d in enumerate(day)]
    x = rng.normal(size=(num_rows, len(NUMERIC)))
    logit = INTERCEPT + x @ TRUTH + rng.normal(0, 0.25, 7)[day]
    labels = (rng.random(num_rows) < 1 / (1 + np.exp(-logit))).astype(float)
    if leak:
        x[:, 5] = labels + rng.normal(0, 0.3, num_rows)
    x[rng.random(num_rows) < 0.02, 3] = np.nan
    columns = {
        KEY: pa.array([f"{week}-{i}" for i in range(num_rows)]),
        TIME: pa.array(times, pa.timestamp("us", tz="UTC")),
        DAY: pa.array([t.date() for t in times], pa.date32()),
    }
    columns |= {name: pa.array(x[:, i], from_pandas=True) for i, name in enumerate(NUMERIC)}
    columns |= {name: pa.array(rng.choice(GROUPS, num_rows).tolist(), pa.string()) for name in CATEGORICAL}
    return columns, labels.tolist()


@pytest.fixture
def make_world(env: Environment, product: LoadedProduct) -> Callable[..., World]:
    """Write a dataset and hand out the packager.

    With `leak`, x5 knows the answer; with `is_shuffled`, rows before the holdout carry labels of other rows.
    """
    storage, layout = open_storage(env.store_root), Layout(env.store_root, product.name)

    def put(base: str, name: str, table: pa.Table) -> str:
        attempt = new_attempt(base)
        storage.write(join(attempt, name), to_parquet(table))
        snapshot = seal(storage, attempt, num_rows={name: len(table)}, facts={})
        publish(storage, base, snapshot)
        return snapshot.digest

    def make(
        *, seed: int = 0, leak: bool = False, is_shuffled: bool = False, num_labelled_weeks: int = NUM_WEEKS
    ) -> World:
        rng = np.random.default_rng(seed)
        features, labels, tables = [], [], []
        for week in range(NUM_WEEKS):
            batch_id = (FIRST + timedelta(days=7 * week)).strftime("%Y-%m-%d")
            columns, answers = _rows(rng, week, leak=leak)
            if is_shuffled and week < NUM_WEEKS - HOLDOUT_DAYS // 7:
                answers = rng.permutation(answers).tolist()
            table = pa.table(columns)
            tables.append(table)
            digest = put(layout.features(batch_id), FEATURES_FILE, table)
            features.append(Piece(batch_id=batch_id, digest=digest, num_rows=len(table)))
            if week < num_labelled_weeks:
                known = pa.table({"key": table[KEY], "late15": pa.array(answers)})
                digest = put(layout.batch(batch_id), "labels.parquet", known)
                labels.append(Piece(batch_id=batch_id, digest=digest, num_rows=len(known)))
        document = DatasetDocument(
            product=product.name,
            as_of=(FIRST + timedelta(days=7 * NUM_WEEKS)).isoformat(),
            schema={f.name: str(f.type) for f in tables[0].schema},
            features=tuple(features),
            labels=tuple(labels),
        )
        dataset = write_dataset(storage, layout, document)
        table = pa.concat_tables(tables)

        def package(weights: np.ndarray = TRUTH, *, scale: float = 1.0, **changes: object) -> ModelRef:
            contents = _contents(table, weights, scale=scale, dataset=dataset, **changes)
            return write_package(storage, layout, contents, key_folder=env.home / "keys")

        return World(dataset=dataset, package=package)

    return make


def _contents(
    table: pa.Table,
    weights: np.ndarray,
    *,
    scale: float,
    dataset: DatasetRef,
    holdout_start: str = HOLDOUT_START.isoformat(),
    order: tuple[str, ...] = (*NUMERIC, *CATEGORICAL),
    golden_shift: float = 0.0,
) -> PackageContents:
    import onnxruntime as ort

    encoder = Encoder.fit(table, numeric=NUMERIC, categorical=CATEGORICAL, min_count=1)
    graph = linear_graph(weights * scale, INTERCEPT * scale)
    rows = table.select([*NUMERIC, *CATEGORICAL]).slice(0, 8).to_pylist()
    numeric, categorical = encoder.encode_rows(rows)
    session = ort.InferenceSession(graph, providers=["CPUExecutionProvider"])
    scores = session.run(["score"], {"numeric": numeric, "categorical": categorical})[0]
    batched = table.append_column("batch_id", pa.array(["b"] * len(table)))
    return PackageContents(
        model=graph,
        weights=weights.tobytes(),
        encoder=encoder,
        schema={"order": list(order), "columns": {}},
        reference=build_reference(batched, numeric=NUMERIC, categorical=CATEGORICAL, batch_column="batch_id"),
        golden={"rows": rows, "scores": [float(s) + golden_shift for s in scores]},
        facts={"holdout_start": holdout_start, "dataset": {"digest": dataset.digest}},
    )


def linear_graph(weights: np.ndarray, intercept: float) -> bytes:
    """sigmoid(numeric with missing as zero @ weights + intercept), the package's inputs and output."""
    constants = {
        "zero": np.zeros(1, np.float32),
        "w": weights.astype(np.float32)[:, None],
        "b": np.array([intercept], np.float32),
        "last": np.array([1], np.int64),
        "none": np.array([0], np.int64),
    }
    nodes = [
        helper.make_node("IsNaN", ["numeric"], ["missing"]),
        helper.make_node("Where", ["missing", "zero", "numeric"], ["filled"]),
        helper.make_node("MatMul", ["filled", "w"], ["product"]),
        # The second input has to be used, or the runtime refuses to take it.
        helper.make_node("Cast", ["categorical"], ["codes"], to=TensorProto.FLOAT),
        helper.make_node("ReduceSum", ["codes", "last"], ["sum"], keepdims=0),
        helper.make_node("Mul", ["sum", "zero"], ["nothing"]),
        helper.make_node("Squeeze", ["product", "last"], ["flat"]),
        helper.make_node("Add", ["flat", "nothing"], ["joined"]),
        helper.make_node("Add", ["joined", "b"], ["logit"]),
        helper.make_node("Sigmoid", ["logit"], ["score"]),
    ]
    graph = helper.make_graph(
        nodes,
        "linear",
        [
            helper.make_tensor_value_info("numeric", TensorProto.FLOAT, ["B", len(weights)]),
            helper.make_tensor_value_info("categorical", TensorProto.INT64, ["B", len(CATEGORICAL)]),
        ],
        [helper.make_tensor_value_info("score", TensorProto.FLOAT, ["B"])],
        [numpy_helper.from_array(v, k) for k, v in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    return model.SerializeToString()
