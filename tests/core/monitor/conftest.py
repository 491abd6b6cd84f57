"""A small product with features, labels, a prediction log and champions, all in the real store formats."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from clearway.contracts.refs import DatasetRef, ModelRef
from clearway.contracts.release_document import Version, begin_deploy, promote, take_lease
from clearway.infra import datasets
from clearway.infra.environment import Environment
from clearway.infra.layout import Layout
from clearway.infra.parquet import to_parquet
from clearway.infra.release_store import open_release_store
from clearway.infra.snapshots import Snapshot, new_attempt, publish, seal
from clearway.infra.storage import join, open_storage
from clearway.measures.distance import build_reference
from clearway.monitor import run as monitor_run
from clearway.monitor.spec import Inputs, Outputs
from clearway.packaging.encoder import Encoder
from clearway.packaging.package import PackageContents, write_package
from clearway.product import LoadedProduct
from town_kit import FIRST, town_product

NUMERIC = tuple(f"x{i}" for i in range(8))
ROWS_PER_BATCH = 400
NUM_TRAINING = 8
# What champions are made of, by number of weeks: the same in every test, and slow to describe.
TRAINED = dict[int, tuple[pa.Table, dict[str, Any]]]()


def batch_id(week: int) -> str:
    return (FIRST + timedelta(weeks=week)).strftime("%Y-%m-%d")


def log_bytes(rows: pa.Table, batch: str, digest: str, scores: Sequence[float], *, at_s: float) -> bytes:
    """A file of the prediction log, with the columns the model server writes."""
    num_rows = len(rows)
    return to_parquet(
        pa.table(
            {
                "request_id": ["r"] * num_rows,
                "key": rows[datasets.KEY],
                "batch_id": [batch] * num_rows,
                "event_time": rows[datasets.TIME],
                "score": pa.array(scores, pa.float64()),
                "model_digest": [digest] * num_rows,
                "epoch": [1] * num_rows,
                "logged_at": pa.array([int(at_s * 1e6)] * num_rows, pa.timestamp("us", tz="UTC")),
            }
        )
    )


@dataclass
class Town:
    """`rows(week)` are what happened; the methods put them where the stages would."""

    env: Environment
    product: LoadedProduct

    def __post_init__(self) -> None:
        self.storage = open_storage(self.env.store_root)
        self.layout = Layout(self.env.store_root, "town")
        self.store = open_release_store(self.env)

    def rows(
        self,
        week: int,
        *,
        shift: float = 0.0,
        num_rows: int = ROWS_PER_BATCH,
        lost: Sequence[str] = (),
        lost_share: float = 1.0,
    ) -> pa.Table:
        rng = np.random.default_rng(100 + week)
        start = FIRST + timedelta(weeks=week)
        minutes = np.sort(rng.integers(0, 7 * 24 * 60, num_rows))
        times = [start + timedelta(minutes=int(m)) for m in minutes]
        columns = {
            datasets.KEY: [f"{batch_id(week)}/{i}" for i in range(num_rows)],
            datasets.TIME: pa.array(times, pa.timestamp("us", tz="UTC")),
            datasets.DAY: [t.date() for t in times],
        }
        week_effect = rng.normal(0, 0.1, len(NUMERIC))
        for i, name in enumerate(NUMERIC):
            values = rng.normal(week_effect[i] + shift, 1, num_rows)
            is_missing = np.arange(num_rows) < lost_share * num_rows if name in lost else None
            columns[name] = pa.array(values, pa.float64(), mask=is_missing)
        return pa.table(columns | {"c": rng.choice(["u", "v", "w"], num_rows)})

    def truth(self, week: int, num_rows: int = ROWS_PER_BATCH) -> tuple[np.ndarray, np.ndarray]:  # type: ignore[type-arg]
        """Scores a calibrated model gives, and labels drawn from them."""
        rng = np.random.default_rng(7_000 + week)
        scores = rng.uniform(0.05, 0.6, num_rows)
        return scores, (rng.random(num_rows) < scores).astype(np.int64)

    def release(self, seed: int = 0, *, through: int = NUM_TRAINING) -> str:
        """Promote a champion trained on the first `through` weeks; returns its digest."""
        table, reference = self._trained(through)
        contents = PackageContents(
            model=b"not opened here",
            weights=b"",
            encoder=Encoder.fit(table, numeric=NUMERIC, categorical=["c"], min_count=1),
            schema={},
            reference=reference,
            golden={"rows": [{}], "scores": [0.5]},
            facts={"seed": seed},
        )
        ref = write_package(self.storage, self.layout, contents, key_folder=self.env.home / "keys")
        self._promote(ref)
        return ref.digest

    def _trained(self, through: int) -> tuple[pa.Table, dict[str, Any]]:
        if through in TRAINED:
            return TRAINED[through]
        weeks = [self.rows(w) for w in range(through)]
        table = pa.concat_tables(
            t.append_column("batch_id", pa.array([batch_id(w)] * len(t))) for w, t in enumerate(weeks)
        )
        table = table.append_column("score", pa.array(np.concatenate([self.truth(w)[0] for w in range(through)])))
        TRAINED[through] = (
            table,
            build_reference(table, numeric=NUMERIC, categorical=["c"], batch_column="batch_id", score_column="score"),
        )
        return TRAINED[through]

    def _promote(self, ref: ModelRef) -> None:
        document, version = self.store.read("town")
        document = take_lease(document, holder="test", now_s=0.0, ttl_s=60.0)
        candidate = Version(uri=ref.uri, digest=ref.digest, release_id="r")
        document = begin_deploy(document, candidate, epoch=document.epoch)
        document = promote(document, epoch=document.epoch, now_s=1.0, reason="test")
        self.store.swap(document, expected_version=version)

    def land(self, week: int, table: pa.Table, *, labelled_week: int | None) -> DatasetRef:
        """Publish a batch's features, and the labels that came with it; make the dataset of both."""
        features = self._publish(self.layout.features(batch_id(week)), datasets.FEATURES_FILE, table)
        labels = pa.table({"key": pa.array([], pa.string()), "late": pa.array([], pa.int64())})
        if labelled_week is not None:
            keys = self.rows(labelled_week)[datasets.KEY]
            late = self.truth(labelled_week)[1]
            labels = pa.table({"key": keys, "late": late})
        landed = self._publish(self.layout.batch(batch_id(week)), "labels.parquet", labels)
        document = datasets.DatasetDocument(
            product="town",
            as_of=(FIRST + timedelta(weeks=week + 1)).strftime("%Y-%m-%dT%H:%M:%SZ"),
            schema={},
            features=(datasets.Piece(batch_id=batch_id(week), digest=features.digest, num_rows=len(table)),),
            labels=(datasets.Piece(batch_id=batch_id(week), digest=landed.digest, num_rows=len(labels)),),
        )
        return datasets.write_dataset(self.storage, self.layout, document)

    def _publish(self, base: str, name: str, table: pa.Table) -> Snapshot:
        attempt = new_attempt(base)
        self.storage.write(join(attempt, name), to_parquet(table))
        snapshot = seal(self.storage, attempt, num_rows={name: len(table)}, facts={})
        publish(self.storage, base, snapshot)
        return snapshot

    def serve(self, week: int, digest: str, *, at_s: float = 1_000.0, file: str = "a", shift: float = 0.0) -> None:
        """Log one prediction per row of a week, as the model server writes them."""
        rows = self.rows(week)
        scores = np.clip(self.truth(week)[0] + shift, 0, 1).tolist()
        uri = join(self.layout.predictions(batch_id(week)), f"{file}.parquet")
        self.storage.write(uri, log_bytes(rows, batch_id(week), digest, scores, at_s=at_s))

    def monitor(self, week: int, dataset: DatasetRef) -> Outputs:
        inputs = Inputs(product="town", release_id=f"m{week}", dataset=dataset, batch_id=batch_id(week))
        return monitor_run.run(inputs, product=self.product, env=self.env)

    def summary(self, week: int) -> dict:  # type: ignore[type-arg]
        return json.loads(self.storage.read(self.layout.monitor(batch_id(week), "summary.json")))


@pytest.fixture
def town(env: Environment, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Town:
    """A town whose drift pages leave Evidently out, unless the test is marked slow: importing it costs 4 s."""
    if request.node.get_closest_marker("slow") is None:
        monkeypatch.setattr("clearway.monitor.report.drift_page", lambda *_, **__: "<html><body></body></html>")
    policy = {"cooldown_batches": 2, "persistence": [2, 3], "min_rows": 100, "report_rows": 200}
    return Town(env=env, product=town_product(NUMERIC, num_training=NUM_TRAINING, monitor=policy))
