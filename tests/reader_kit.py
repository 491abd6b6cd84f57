"""The small product with text beside a live server: batches that land, are read by the champion, and are watched."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa

from clearway.contracts.refs import DatasetRef, ModelRef
from clearway.contracts.release_document import Version, begin_deploy, promote, take_lease
from clearway.infra.datasets import DAY, KEY, TIME, DatasetDocument, open_dataset, write_dataset
from clearway.infra.release_store import open_release_store
from clearway.monitor import run as monitor_run
from clearway.monitor.spec import Inputs, Outputs
from clearway.product_monitor import Monitor
from clearway.serve.run import score_batch
from clearway.serve.sending import sending_for
from clearway.serve.spec import Outputs as Scored
from language_kit import STORAGE, World, publish_batch, text_of
from serving_kit import InProcessEndpoint

POLICY = Monitor(min_rows=50, persistence=(2, 3), cooldown_batches=2, report_rows=100)
QUARTERS = ("2024-07-01", "2024-10-01", "2025-01-01", "2025-04-01", "2025-07-01")
NUM_TEXTS = 96


def shuffled(text: str, rng: np.random.Generator) -> str:
    """The same letters in another order: no count of them sees it, a reader does."""
    return "".join(rng.permutation(list(text)))


def marked_up(text: str, _: np.random.Generator) -> str:
    """The same words with tags around them."""
    return " ".join(f"<b>{word}</b>" for word in text.split())


def cut(text: str, _: np.random.Generator) -> str:
    """As much of it as a narrow column takes."""
    return text[:45]


def repeated(text: str, _: np.random.Generator) -> str:
    """Two in one."""
    return f"{text} {text}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Library:
    """One product with its champion; `endpoint` is the real server core."""

    world: World
    endpoint: InProcessEndpoint

    def serve(self, ref: ModelRef, *, epoch: int = 1) -> None:
        """Make a package the champion, on record and at the endpoint."""
        store = open_release_store(self.world.env)
        name = self.world.product.name
        document, version = store.read(name)
        document = take_lease(document, holder="test", now_s=0.0, ttl_s=60.0)
        candidate = Version(uri=ref.uri, digest=ref.digest, release_id="r")
        document = begin_deploy(document, candidate, epoch=document.epoch)
        store.swap(promote(document, epoch=document.epoch, now_s=1.0, reason="test"), expected_version=version)
        self.endpoint.load(uri=ref.uri, digest=ref.digest, epoch=epoch)
        self.endpoint.set_weights({ref.digest: 100.0}, epoch=epoch)

    def texts(self, quarter: str, change: Callable[[str, np.random.Generator], str] | None = None) -> list[str]:
        """What is written in a quarter, each changed by `change`."""
        rng = np.random.default_rng(int(quarter.replace("-", "")))
        found = [text_of(rng) for _ in range(NUM_TEXTS)]
        return [change(text, rng) for text in found] if change else found

    def land(self, quarter: str, texts: list[str]) -> DatasetRef:
        """Publish a batch of these texts, and the dataset of it alone."""
        start = datetime.fromisoformat(f"{quarter}T00:00:00+00:00")
        times = [start + timedelta(hours=12 * i) for i in range(len(texts))]
        rows = pa.table(
            {
                KEY: [f"{quarter}/{i}" for i in range(len(texts))],
                TIME: pa.array(times, pa.timestamp("us", "UTC")),
                DAY: pa.array([t.date() for t in times], pa.date32()),
                "num_bytes": [float(len(text.encode())) for text in texts],
                "share_capital": [0.02] * len(texts),
                "share_digit": [0.05] * len(texts),
                "service": [f"service-{i % 8}" for i in range(len(texts))],
                "protocol": ["rest"] * len(texts),
                "kind": ["operation" if i % 4 else "service" for i in range(len(texts))],
                "text": texts,
            }
        )
        piece = publish_batch(self.world.layout.features(quarter), quarter, rows)
        end = self.world.product.spec.batch.end_of(start)
        as_of = end.strftime("%Y-%m-%dT%H:%M:%SZ")
        document = DatasetDocument(product="api_docs", as_of=as_of, schema={}, features=(piece,), labels=())
        return write_dataset(STORAGE, self.world.layout, document)

    def score(self, quarter: str, dataset: DatasetRef) -> Scored:
        """As the stage does, by the server core in this process."""
        from clearway.infra.datasets import read_features

        sending = sending_for(self.world.product, self.world.env)
        document = open_dataset(STORAGE, dataset)
        table = read_features(STORAGE, self.world.layout, document, columns=[KEY, TIME, *sending.columns])
        return score_batch(
            table,
            sending,
            batch_id=quarter,
            endpoint=self.endpoint,
            storage=STORAGE,
            layout=self.world.layout,
        )

    def watch(self, quarter: str, texts: list[str], *, is_scored: bool = True) -> Outputs:
        """Land, score, monitor."""
        dataset = self.land(quarter, texts)
        if is_scored:
            self.score(quarter, dataset)
        inputs = Inputs(product="api_docs", release_id=f"m{quarter}", dataset=dataset, batch_id=quarter)
        return monitor_run.run(inputs, product=self.world.product, env=self.world.env)

    def summary(self, quarter: str) -> dict[str, Any]:
        return json.loads(STORAGE.read(self.world.layout.monitor(quarter, "summary.json")))  # type: ignore[no-any-return]
