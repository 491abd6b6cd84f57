"""A small product with a real dataset in a store of its own: 8 days, a rule that a network can learn."""

import json
import os
import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from clearway.contracts.codec import to_jsonable
from clearway.contracts.manifest import canonical_json
from clearway.contracts.refs import DatasetRef
from clearway.infra.datasets import (
    BATCH,
    DAY,
    FEATURES_FILE,
    KEY,
    TIME,
    DatasetDocument,
    Piece,
    open_dataset,
    read_labelled,
    write_dataset,
)
from clearway.infra.environment import Environment
from clearway.infra.layout import Layout
from clearway.infra.snapshots import new_attempt, publish, seal
from clearway.infra.storage import LocalStorage, to_path
from clearway.packaging.split import split_at
from clearway.product import LoadedProduct, Model
from clearway.train.spec import Inputs
from forked_kit import run_code

STORAGE = LocalStorage()
CHILD = """
import json, sys
from clearway.contracts.codec import from_jsonable, to_jsonable
from clearway.infra.environment import Environment
from clearway.product import LoadedProduct
from clearway.release import VERBS, run_in_place
import logging
logging.basicConfig(level=logging.INFO)
message = json.load(sys.stdin)
product, env = LoadedProduct.model_validate(message["product"]), Environment.model_validate(message["env"])
inputs = from_jsonable(VERBS["{stage}"].inputs, message["inputs"])
json.dump(to_jsonable(run_in_place("{stage}", inputs, product=product, env=env)), sys.stdout)
"""
START = datetime(2013, 1, 7, tzinfo=UTC)
NUMERIC, CATEGORICAL = ("a", "b", "c"), ("carrier", "origin")
TINY = Model(
    num_bins=8, numeric_dim=3, embedding_dim=2, hidden=(16, 16), num_members=2, batch_size=128, num_epochs=3, lr=0.02
)


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """Everything a call of the stage needs."""

    env: Environment
    product: LoadedProduct
    layout: Layout
    dataset: DatasetRef

    def inputs(self, release_id: str = "r1", **params: float) -> Inputs:
        uri = self.layout.receipt(self.dataset.digest)
        return Inputs(
            product=self.product.name, release_id=release_id, dataset=self.dataset, receipt_uri=uri, params=params
        )

    def write_receipt(self, **content: object) -> None:
        STORAGE.write(self.layout.receipt(self.dataset.digest), canonical_json(content))

    def training_rows(self) -> pa.Table:
        """What the stage should have trained on."""
        document, label = open_dataset(STORAGE, self.dataset), self.product.spec.label
        rows = read_labelled(
            STORAGE, self.layout, document, table=label.table, key=self.product.spec.features.key, column=label.column
        )
        return split_at(rows, holdout_days=self.product.spec.release.holdout_days).train

    def run_in_child(self, inputs: Inputs, stage: str = "train", **variables: str) -> subprocess.CompletedProcess[str]:
        """The stage as a job of a warm worker: a process of its own, with these environment variables."""
        message = {
            "env": self.env.model_dump(mode="json"),
            "product": self.product.model_dump(mode="json", by_alias=True),
            "inputs": to_jsonable(inputs),
        }
        return run_code(CHILD.format(stage=stage), json.dumps(message), variables=os.environ | variables)


def make_rows(num_rows: int, *, seed: int = 0) -> pa.Table:
    """Feature rows with LABEL: KEY, TIME, DAY, the columns, and a label that depends on three of them."""
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=num_rows), rng.normal(size=num_rows)
    carrier = rng.choice(["AA", "UA", "B6", None], num_rows, p=[0.4, 0.3, 0.25, 0.05])
    logit = 1.5 * np.sin(2 * a) + np.where(carrier == "UA", 1.0, -0.5)
    time = [START + timedelta(minutes=8 * 24 * 60 * i / num_rows) for i in range(num_rows)]
    return pa.table(
        {
            KEY: [f"k{i:06d}" for i in range(num_rows)],
            TIME: pa.array(time, pa.timestamp("us", "UTC")),
            DAY: pa.array([t.date() for t in time], pa.date32()),
            "a": pa.array(a, mask=rng.random(num_rows) < 0.1),
            "b": pa.array(np.round(3 * b).astype(np.int64)),
            "c": pa.array(np.full(num_rows, 7.0)),
            "carrier": pa.array(carrier, pa.string()),
            "origin": pa.array(rng.choice(["JFK", "LGA"], num_rows)),
            "late15": pa.array((rng.random(num_rows) < 1 / (1 + np.exp(-logit))).astype(np.int64)),
        }
    )


def make_world(env: Environment, flights: LoadedProduct, rows: pa.Table | None = None, **changes: Any) -> World:
    """The flights product cut down to five columns, with `changes` to its parts, and a validated dataset."""
    features = flights.spec.features.model_copy(
        update={"numeric": NUMERIC, "categorical": CATEGORICAL, "slices": ("origin",)}
    )
    release = flights.spec.release.model_copy(update={"holdout_days": 2})
    spec = flights.spec.model_copy(update={"features": features, "model": TINY, "release": release} | changes)
    product = flights.model_copy(update={"spec": spec})
    layout = Layout(env.store_root, "flights")
    dataset = store(layout, make_rows(2000) if rows is None else rows, product)
    world = World(env=env, product=product, layout=layout, dataset=dataset)
    world.write_receipt(dataset_digest=dataset.digest, verdict="pass")
    return world


def store(layout: Layout, rows: pa.Table, product: LoadedProduct) -> DatasetRef:
    """Publish the rows as two batches of features, their labels with the second, and name them as one dataset."""
    half = len(rows) // 2
    pieces = [
        _publish(layout.features(name), name, {FEATURES_FILE: part.drop_columns(["late15"])})
        for name, part in (("2013-01-07", rows.slice(0, half)), ("2013-01-11", rows.slice(half)))
    ]
    label = product.spec.label
    labels = pa.table({product.spec.features.key: rows[KEY], label.column: rows["late15"]})
    piece = _publish(layout.batch("2013-01-14"), "2013-01-14", {f"{label.table}.parquet": labels})
    schema = {name: str(rows.schema.field(name).type) for name in rows.column_names if name != BATCH}
    document = DatasetDocument(
        product="flights", as_of="2013-01-21T00:00:00Z", schema=schema, features=tuple(pieces), labels=(piece,)
    )
    return write_dataset(STORAGE, layout, document)


def _publish(base: str, batch_id: str, tables: dict[str, pa.Table]) -> Piece:
    attempt = new_attempt(base)
    to_path(attempt).mkdir(parents=True)
    for name, table in tables.items():
        pq.write_table(table, to_path(attempt) / name)
    snapshot = seal(STORAGE, attempt, num_rows={n: len(t) for n, t in tables.items()}, facts={})
    publish(STORAGE, base, snapshot)
    return Piece(batch_id=batch_id, digest=snapshot.digest, num_rows=snapshot.manifest.num_rows)
