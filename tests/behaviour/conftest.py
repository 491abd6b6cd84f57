"""Real flights of January to March, the honest model a release would train on them, and models with planted faults.

Made once for all behaviour tests, by the loop's own ingest, preprocess and train code.
"""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from onnx import helper, numpy_helper

from clearway.contracts.refs import DatasetRef, ModelRef
from clearway.infra.clock import SystemClock
from clearway.infra.datasets import (
    BATCH,
    FEATURES_FILE,
    KEY,
    DatasetDocument,
    Piece,
    open_dataset,
    read_features,
    write_dataset,
)
from clearway.infra.environment import Environment
from clearway.infra.layout import Layout
from clearway.infra.parquet import to_parquet
from clearway.infra.snapshots import current, new_attempt, publish, seal
from clearway.infra.storage import join, open_storage, to_path
from clearway.packaging.package import MODEL, WEIGHTS, Package, PackageContents, open_package, write_package
from clearway.product import LoadedProduct


@dataclass(frozen=True, slots=True, kw_only=True)
class Flights:
    """A store with the first quarter in it."""

    env: Environment
    product: LoadedProduct
    dataset: DatasetRef

    @property
    def layout(self) -> Layout:
        return Layout(self.env.store_root, self.product.name)

    def document(self) -> DatasetDocument:
        """What the dataset is made of."""
        return open_dataset(open_storage(self.env.store_root), self.dataset)

    def train(self, dataset: DatasetRef, name: str, *, params: dict[str, float]) -> ModelRef:
        """Train on a dataset, without asking for a receipt or leaving an MLflow record."""
        from clearway.train.produce import produce
        from clearway.train.spec import Inputs

        inputs = Inputs(product="flights", release_id=name, dataset=dataset, receipt_uri="file:///none", params=params)
        trained = produce(
            inputs,
            product=self.product,
            env=self.env,
            storage=open_storage(self.env.store_root),
            folder=to_path(self.layout.release(name, "train")),
            clock=SystemClock(),
            can_fork=False,
        )
        return trained.model

    def open(self, model: ModelRef) -> Package:
        """A verified package."""
        return open_package(
            open_storage(self.env.store_root), model.uri, model.digest, key_folder=self.env.home / "keys"
        )


@pytest.fixture(scope="session")
def quarter(flights: LoadedProduct, tmp_path_factory: pytest.TempPathFactory) -> Flights:
    """January to March, landed and prepared by the loop's own code."""
    from clearway.ingest.run import run as ingest
    from clearway.ingest.spec import Inputs as IngestInputs
    from clearway.preprocess.run import run as preprocess
    from clearway.preprocess.spec import Inputs as PreprocessInputs

    home = tmp_path_factory.mktemp("quarter")
    env = Environment.load({"CLEARWAY__HOME": str(home), "CLEARWAY__STORAGE__ROOT": (home / "store").as_uri()})
    start, end = "2012-12-31T00:00:00Z", "2013-04-01T00:00:00Z"
    landed = ingest(IngestInputs(product="flights", release_id="q", start=start, end=end), product=flights, env=env)
    prepared = preprocess(
        PreprocessInputs(product="flights", release_id="q", raw=landed.raw, start=start), product=flights, env=env
    )
    return Flights(env=env, product=flights, dataset=prepared.dataset)


@pytest.fixture(scope="session")
def honest(quarter: Flights) -> ModelRef:
    """Trained exactly as a release trains."""
    return quarter.train(quarter.dataset, "honest", params={})


def republish(quarter: Flights, base: str, name: str, table: pa.Table) -> Piece:
    """Another snapshot of one batch; the published one stays readable by its own digest only through its pointer."""
    storage = open_storage(quarter.env.store_root)
    attempt = new_attempt(base)
    storage.write(join(attempt, name), to_parquet(table))
    snapshot = seal(storage, attempt, num_rows={name: len(table)}, facts={})
    publish(storage, base, snapshot)
    return Piece(batch_id=base.rpartition("/")[2], digest=snapshot.digest, num_rows=len(table))


@pytest.fixture
def planted_copy(quarter: Flights, honest: ModelRef, tmp_path: Path) -> Callable[..., Flights]:
    """The same store under another root, with labels or features changed by functions of a table."""
    assert honest, "its training made the keys that the copy takes along"

    def make(
        *,
        labels: Callable[[pa.Table], pa.Table] | None = None,
        features: Callable[[pa.Table], pa.Table] | None = None,
    ) -> Flights:
        home = tmp_path / "planted"
        shutil.copytree(to_path(quarter.env.store_root), home / "store")
        shutil.copytree(quarter.env.home / "keys", home / "keys")
        env = Environment.load({"CLEARWAY__HOME": str(home), "CLEARWAY__STORAGE__ROOT": (home / "store").as_uri()})
        copy = Flights(env=env, product=quarter.product, dataset=quarter.dataset)
        storage, layout = open_storage(env.store_root), copy.layout
        document = open_dataset(
            storage, DatasetRef(uri=layout.dataset(quarter.dataset.digest), digest=quarter.dataset.digest)
        )
        label_pieces, feature_pieces = document.labels, document.features
        if labels is not None:
            label_pieces = tuple(_relabelled(copy, p, labels) for p in document.labels)
        if features is not None:
            feature_pieces = tuple(
                republish(
                    copy,
                    layout.features(p.batch_id),
                    FEATURES_FILE,
                    features(
                        pq.read_table(to_path(current(storage, layout.features(p.batch_id)).file_uri(FEATURES_FILE)))
                    ),
                )
                for p in document.features
            )
        changed = DatasetDocument(
            product=document.product,
            as_of=document.as_of,
            schema=document.schema,
            features=feature_pieces,
            labels=label_pieces,
        )
        return Flights(env=env, product=quarter.product, dataset=write_dataset(storage, layout, changed))

    return make


def _relabelled(copy: Flights, piece: Piece, change: Callable[[pa.Table], pa.Table]) -> Piece:
    base = copy.layout.batch(piece.batch_id)
    snapshot = current(open_storage(copy.env.store_root), base)
    return republish(copy, base, "labels.parquet", change(pq.read_table(to_path(snapshot.file_uri("labels.parquet")))))


@pytest.fixture(scope="session")
def doctored(quarter: Flights, honest: ModelRef) -> Callable[..., ModelRef]:
    """The honest package with its log-odds changed: `scale`, `noise` (deterministic), `shift` for one carrier."""

    def make(*, scale: float = 1.0, noise: float = 0.0, shift: float = 0.0, carrier: str = "MQ") -> ModelRef:
        package = quarter.open(honest)
        code = package.encoder.vocabulary["carrier"].index(carrier) + 1
        graph = doctor(
            package.read(MODEL),
            scale=scale,
            noise=noise,
            shift=shift,
            columns=[package.encoder.numeric.index(n) for n in ("dep_minute", "distance", "block_min")],
            carrier=(package.encoder.categorical.index("carrier"), code),
        )
        scores = run_graph(graph, *package.encoder.encode_rows(package.golden["rows"]))
        contents = PackageContents(
            model=graph,
            weights=package.read(WEIGHTS),
            encoder=package.encoder,
            schema=package.schema,
            reference=package.reference,
            golden={"rows": package.golden["rows"], "scores": [float(s) for s in scores]},
            facts=package.facts,
        )
        storage = open_storage(quarter.env.store_root)
        return write_package(storage, quarter.layout, contents, key_folder=quarter.env.home / "keys")

    return make


def doctor(
    model: bytes, *, scale: float, noise: float, shift: float, columns: list[int], carrier: tuple[int, int]
) -> bytes:
    """score -> sigmoid(scale x logit(score) + noise x sqrt(2) x sin(hash of the row) + shift for one carrier)."""
    proto = onnx.load_from_string(model)
    graph = proto.graph
    for node in graph.node:
        node.output[:] = ["honest_score" if o == "score" else o for o in node.output]
        node.input[:] = ["honest_score" if i == "score" else i for i in node.input]
    constants = {
        "d_low": np.float32(1e-6),
        "d_high": np.float32(1 - 1e-6),
        "d_one": np.float32(1),
        "d_scale": np.float32(scale),
        "d_noise": np.float32(noise * np.sqrt(2)),
        "d_shift": np.float32(shift),
        "d_columns": np.array(columns, np.int64),
        "d_mix": np.array([[12.9898], [78.233], [37.719]], np.float32),
        "d_last": np.array([1], np.int64),
        "d_column": np.array(carrier[0], np.int64),
        "d_code": np.array(carrier[1], np.int64),
    }
    graph.initializer.extend(numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items())
    steps = [
        ("Clip", ["honest_score", "d_low", "d_high"], "d_p", {}),
        ("Sub", ["d_one", "d_p"], "d_q", {}),
        ("Div", ["d_p", "d_q"], "d_odds", {}),
        ("Log", ["d_odds"], "d_logit", {}),
        ("Mul", ["d_logit", "d_scale"], "d_scaled", {}),
        ("Gather", ["numeric", "d_columns"], "d_taken", {"axis": 1}),
        ("MatMul", ["d_taken", "d_mix"], "d_mixed", {}),
        ("Squeeze", ["d_mixed", "d_last"], "d_flat", {}),
        ("Sin", ["d_flat"], "d_wave", {}),
        ("Mul", ["d_wave", "d_noise"], "d_noisy", {}),
        ("Gather", ["categorical", "d_column"], "d_carrier", {"axis": 1}),
        ("Equal", ["d_carrier", "d_code"], "d_is", {}),
        ("Cast", ["d_is"], "d_is_float", {"to": onnx.TensorProto.FLOAT}),
        ("Mul", ["d_is_float", "d_shift"], "d_shifted", {}),
        ("Add", ["d_scaled", "d_noisy"], "d_sum", {}),
        ("Add", ["d_sum", "d_shifted"], "d_total", {}),
        ("Sigmoid", ["d_total"], "score", {}),
    ]
    graph.node.extend(helper.make_node(op, inputs, [output], **options) for op, inputs, output, options in steps)
    return proto.SerializeToString()


def run_graph(graph: bytes, numeric: np.ndarray, categorical: np.ndarray) -> np.ndarray:
    """Scores of a graph on encoded rows."""
    import onnxruntime as ort

    session = ort.InferenceSession(graph, providers=["CPUExecutionProvider"])
    return session.run(["score"], {"numeric": numeric, "categorical": categorical})[0]


@pytest.fixture(scope="session")
def sample(quarter: Flights) -> pa.Table:
    """3,000 real rows, evenly spaced."""
    table = read_features(open_storage(quarter.env.store_root), quarter.layout, quarter.document()).drop_columns(
        [BATCH, KEY]
    )
    return table.take(pa.array(np.linspace(0, len(table) - 1, 3_000).astype(np.int64)))
