"""A small flights dataset on disk: two weekly batches, every declared column, labels for the first week."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pytest

from clearway.contracts.refs import DatasetRef
from clearway.infra.datasets import DAY, FEATURES_FILE, KEY, TIME, DatasetDocument, Piece, write_dataset
from clearway.infra.environment import Environment
from clearway.infra.layout import Layout
from clearway.infra.parquet import to_parquet
from clearway.infra.snapshots import new_attempt, publish, seal
from clearway.infra.storage import join, open_storage
from clearway.product import LoadedProduct

ROWS_PER_BATCH = 400
BATCHES = ("2012-12-31", "2013-01-07")
Edit = Callable[[dict[str, pa.Array], str], dict[str, pa.Array]]


@pytest.fixture
def product(flights: LoadedProduct) -> LoadedProduct:
    """Flights with a row floor that fits the test."""
    rules = flights.spec.validate_.model_copy(update={"min_rows": 500})
    return flights.model_copy(update={"spec": flights.spec.model_copy(update={"validate_": rules})})


def _columns(product: LoadedProduct, batch_id: str) -> dict[str, pa.Array]:
    rng = np.random.default_rng(int(batch_id[-2:]))
    start = datetime.fromisoformat(batch_id).replace(tzinfo=UTC)
    seconds = rng.integers(0, 7 * 86_400, ROWS_PER_BATCH).tolist()
    times = [start + timedelta(seconds=s) for s in seconds]
    columns = {
        KEY: pa.array([f"{batch_id}-{i}" for i in range(ROWS_PER_BATCH)]),
        TIME: pa.array(times, pa.timestamp("us", tz="UTC")),
        DAY: pa.array([t.date() for t in times], pa.date32()),
    }
    for name in product.spec.features.numeric:
        high = 1.0 if "late" in name else 60.0
        columns[name] = pa.array(rng.uniform(high / 2, high, ROWS_PER_BATCH), pa.float64())
    for name in product.spec.features.categorical:
        columns[name] = pa.array(rng.choice(["EWR", "JFK", "LGA"], ROWS_PER_BATCH).tolist(), pa.string())
    return columns


@pytest.fixture
def make_dataset(env: Environment, product: LoadedProduct) -> Callable[..., DatasetRef]:
    """Write a dataset; `edit(columns, batch_id)` may change a batch's feature columns first."""
    storage, layout = open_storage(env.store_root), Layout(env.store_root, product.name)

    def put(base: str, name: str, table: pa.Table) -> str:
        attempt = new_attempt(base)
        storage.write(join(attempt, name), to_parquet(table))
        snapshot = seal(storage, attempt, num_rows={name: len(table)}, facts={})
        publish(storage, base, snapshot)
        return snapshot.digest

    def make(
        edit: Edit = lambda columns, _: columns, *, labels: tuple[float | None, ...] = (0.0, 1.0, None)
    ) -> DatasetRef:
        features, schema = [], {}
        for batch_id in BATCHES:
            table = pa.table(edit(_columns(product, batch_id), batch_id))
            schema = {f.name: str(f.type) for f in table.schema}
            digest = put(layout.features(batch_id), FEATURES_FILE, table)
            features.append(Piece(batch_id=batch_id, digest=digest, num_rows=len(table)))
        keys = [f"{BATCHES[0]}-{i}" for i in range(ROWS_PER_BATCH)]
        late = [labels[i % len(labels)] if labels else None for i in range(ROWS_PER_BATCH)]
        table = pa.table({"key": keys, "late15": pa.array(late, pa.float64())})
        digest = put(layout.batch(BATCHES[1]), "labels.parquet", table)
        document = DatasetDocument(
            product=product.name,
            as_of="2013-01-14T00:00:00Z",
            schema=schema,
            features=tuple(features),
            labels=(Piece(batch_id=BATCHES[1], digest=digest, num_rows=len(table)),),
        )
        return write_dataset(storage, layout, document)

    return make
