"""A small product with text in a store of its own: some days of sentences made of a few words."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

import training_kit
from clearway.contracts.manifest import canonical_json
from clearway.contracts.refs import DatasetRef, ModelRef
from clearway.engine.keeping import Keeping
from clearway.engine.world import World as Peers
from clearway.infra.datasets import DAY, FEATURES_FILE, KEY, TIME, TOKENS_FILE, DatasetDocument, Piece, write_dataset
from clearway.infra.environment import Environment
from clearway.infra.layout import Layout
from clearway.infra.snapshots import new_attempt, publish, seal
from clearway.infra.storage import LocalStorage, to_path
from clearway.kinds.kind import kind_named
from clearway.language.tokens import STORED, tokens_of
from clearway.packaging.package import Package, PackageContents, open_package, write_package
from clearway.product import LoadedProduct
from clearway.product_language import Language
from clearway.product_yaml import load_product

STORAGE = LocalStorage()
START = datetime(2024, 1, 1, tzinfo=UTC)
NUM_DAYS, PER_DAY, HOLDOUT_DAYS = 24, 10, 8
NUM_LEARNED = (NUM_DAYS - HOLDOUT_DAYS) * PER_DAY
HOLDOUT_START = (START + timedelta(days=NUM_DAYS - HOLDOUT_DAYS)).date()
TINY = Language(
    kind="language",
    context_length=64,
    num_layers=1,
    dim=32,
    num_heads=2,
    num_kv_heads=1,
    hidden_dim=64,
    batch_size=8,
    num_epochs=14,
    lr=0.03,
    max_text_bytes=400,
)
# Few words in any order: a network learns to spell them, a compressor pays for where each one stood.
WORDS = [
    "a",
    "the",
    "this",
    "all",
    "queue",
    "table",
    "volume",
    "key",
    "tags",
    "account",
    "creates",
    "deletes",
    "lists",
    "describes",
    "region",
    "policy",
    "from",
    "for",
]


@cache
def api_docs() -> LoadedProduct:
    return load_product(Path(__file__).parent / "products" / "api_docs")


@dataclass(frozen=True, slots=True, kw_only=True)
class World(training_kit.World):
    """A dataset of documents."""

    def open(self, ref: ModelRef) -> Package:
        return open_package(STORAGE, ref.uri, ref.digest, key_folder=self.env.home / "keys")

    def package(self, folder: Path, *, facts: dict[str, Any] | None = None, **params: float) -> ModelRef:
        """A model trained here and now, without workers; `facts` and `params` differ from the product's."""
        kind = kind_named("language")
        prepared = kind.prepare(self.dataset, params, product=self.product, env=self.env, storage=STORAGE)
        folder.mkdir(parents=True)
        prepared.write(folder)
        kind.fit(
            folder,
            settings=prepared.settings.model_dump(mode="json"),
            sizes={},
            is_bfloat16=False,
            world=Peers(),
            keeping=lambda every_s: Keeping(folder=folder, job="j", every_s=every_s),
            should_stop=lambda: False,
        )
        known = {"holdout_start": str(prepared.holdout_start), "dataset": {"digest": self.dataset.digest}}
        contents = prepared.contents(folder, job="j", facts=known | (facts or {}))
        return self.write(contents)

    def write(self, contents: PackageContents) -> ModelRef:
        return write_package(STORAGE, self.layout, contents, key_folder=self.env.home / "keys")


def text_of(rng: np.random.Generator) -> str:
    """A sentence of a dozen words."""
    return " ".join(rng.choice(WORDS, 12)).capitalize() + "."


def make_rows(*, seed: int = 0, num_days: int = NUM_DAYS) -> pa.Table:
    """Feature rows of the product, oldest first."""
    rng = np.random.default_rng(seed)
    times = [START + timedelta(days=i // PER_DAY, minutes=i % PER_DAY) for i in range(num_days * PER_DAY)]
    texts = [text_of(rng) for _ in times]
    return pa.table(
        {
            KEY: [f"k{i:05d}" for i in range(len(times))],
            TIME: pa.array(times, pa.timestamp("us", "UTC")),
            DAY: pa.array([t.date() for t in times], pa.date32()),
            "num_bytes": [float(len(text.encode())) for text in texts],
            "share_capital": [0.02 for _ in texts],
            "share_digit": [0.05 for _ in texts],
            "service": [f"service-{i % 8}" for i in range(len(texts))],
            "protocol": ["rest" for _ in texts],
            "kind": ["operation" if i % 4 else "service" for i in range(len(texts))],
            "text": texts,
        }
    )


def make_world(env: Environment, rows: pa.Table | None = None, **changes: Any) -> World:
    """The product with a tiny model, `changes` to its parts, and a validated dataset of these rows."""
    product = api_docs()
    release = product.spec.release.model_copy(update={"holdout_days": HOLDOUT_DAYS})
    product = product.model_copy(
        update={"spec": product.spec.model_copy(update={"model": TINY, "release": release} | changes)}
    )
    layout = Layout(env.store_root, product.name)
    dataset = store(layout, make_rows() if rows is None else rows)
    receipt = canonical_json({"dataset_digest": dataset.digest, "verdict": "pass"})
    STORAGE.write(layout.receipt(dataset.digest), receipt)
    return World(env=env, product=product, layout=layout, dataset=dataset)


def store(layout: Layout, rows: pa.Table) -> DatasetRef:
    """Publish the rows as two batches, the second of which holds the end of the training part, as one dataset."""
    cut = len(rows) // 2
    parts = (("2024-01-01", rows.slice(0, cut)), ("2024-04-01", rows.slice(cut)))
    pieces = tuple(publish_batch(layout.features(name), name, part) for name, part in parts)
    schema = {field.name: str(field.type) for field in rows.schema}
    document = DatasetDocument(
        product="api_docs", as_of="2024-07-01T00:00:00Z", schema=schema, features=pieces, labels=()
    )
    return write_dataset(STORAGE, layout, document)


def publish_batch(base: str, batch_id: str, table: pa.Table) -> Piece:
    attempt = new_attempt(base)
    to_path(attempt).mkdir(parents=True)
    pq.write_table(table, to_path(attempt) / FEATURES_FILE)
    tokens = np.concatenate([tokens_of(text) for text in table["text"].to_pylist()])
    (to_path(attempt) / TOKENS_FILE).write_bytes(tokens.astype(STORED).tobytes())
    snapshot = seal(STORAGE, attempt, num_rows={FEATURES_FILE: len(table)}, facts={})
    publish(STORAGE, base, snapshot)
    return Piece(batch_id=batch_id, digest=snapshot.digest, num_rows=snapshot.manifest.num_rows)
