"""What one run of the stage reads and writes: raw batches in, feature snapshots and a dataset out."""

import logging
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow.compute as pc

from clearway.contracts.manifest import canonical_json, sha256_of
from clearway.contracts.refs import DatasetRef
from clearway.infra.datasets import KEY, DatasetDocument, Piece, read_features, read_labels, write_dataset
from clearway.infra.environment import Environment
from clearway.infra.faults import fault
from clearway.infra.layout import Layout
from clearway.infra.raw_windows import RawWindow, open_batch, open_window
from clearway.infra.snapshots import Snapshot
from clearway.infra.spark import spark_session
from clearway.infra.storage import Storage, join, open_storage
from clearway.preprocess.plan import Need, Stretch, needs_of, rows_table, stretches_of
from clearway.preprocess.sealing import feature_schema, known, seal_batch
from clearway.preprocess.spec import Inputs
from clearway.product import LoadedProduct

# The feature function is built of these; a change in either changes what it computes.
BLOCKS = Path(__file__).with_name("history.py")
# … and the tokens of a text of this.
TOKENISER = Path(__file__).with_name("text.py")
LOG = logging.getLogger("clearway.preprocess")


@dataclass(frozen=True, slots=True, kw_only=True)
class Workspace:
    """One run over one raw window.

    Args:
        batches: snapshots of the window's batches, by batch id, digests checked.
        function: digest of the feature function and the building blocks it uses.
    """

    product: LoadedProduct
    env: Environment
    storage: Storage
    layout: Layout
    window: RawWindow
    batches: Mapping[str, Snapshot]
    function: str

    @classmethod
    def open(cls, inputs: Inputs, *, product: LoadedProduct, env: Environment) -> "Workspace":
        """Raises: IntegrityError if the window or one of its batches is not what its reference names."""
        storage, layout = open_storage(env.store_root), Layout(env.store_root, product.name)
        window = open_window(storage, inputs.raw)
        files = [product.folder / product.spec.features.function.partition(":")[0], BLOCKS]
        if product.spec.features.text is not None:
            files.append(TOKENISER)
        return cls(
            product=product,
            env=env,
            storage=storage,
            layout=layout,
            window=window,
            batches={b.batch_id: open_batch(storage, layout, b) for b in window.batches},
            function=sha256_of(canonical_json([sha256_of(file.read_bytes()) for file in files])),
        )

    def needs(self, *, start: datetime) -> list[Need]:
        """Batches from `start` on with the history they depend on."""
        folder = self.layout.ledger_entry("").removesuffix("/.json")
        landed = [uri.rsplit("/", 1)[1].removesuffix(".json") for uri in self.storage.list(folder)]
        return needs_of(self.product.spec, self.window.batches, start=start, landed=landed)

    def known(self, need: Need) -> Snapshot | None:
        """The published features of a batch if they need not be computed again."""
        return known(self.storage, self.layout, need, self._facts(need))

    def compute(self, needs: Sequence[Need], *, release_id: str) -> dict[str, Snapshot]:
        """Features of `needs`, published; one engine session for all of them."""
        from clearway.preprocess.job import write_features  # noqa: PLC0415 - pyspark, only when there is work

        stretches = stretches_of(self.product.spec, needs, references=self._references(needs))
        sealed: dict[str, Snapshot] = {}
        with spark_session(self.env) as session:
            for stretch in stretches:
                target = join(self.layout.release(release_id, "preprocess"), f"attempt-{uuid.uuid4().hex[:12]}")
                write_features(session, self.product, stretch, batches=self.batches, target=target)
                fault("preprocess.after_job")
                sealed |= self._seal(stretch, target)
                self.storage.delete_tree(target)
        return sealed

    def describe(self, needs: Sequence[Need], features: Mapping[str, Snapshot | None]) -> tuple[DatasetRef, int, int]:
        """The dataset, its rows, and how many of them have a label."""
        pieces = tuple(_piece(n.batch.batch_id, features[n.batch.batch_id]) for n in needs)
        label = self.product.spec.label
        document = DatasetDocument(
            product=self.product.name,
            as_of=self.window.end,
            schema={field.name: str(field.type) for field in feature_schema(self.product.spec)},
            features=pieces,
            labels=tuple(
                Piece(
                    batch_id=n.batch.batch_id,
                    digest=n.batch.digest,
                    num_rows=_num_rows(self.batches[n.batch.batch_id], label.table if label else ""),
                )
                for n in (needs if label else ())
            ),
        )
        fault("preprocess.before_dataset")
        ref = write_dataset(self.storage, self.layout, document)
        keys = read_features(self.storage, self.layout, document, columns=[KEY])[KEY]
        if label is None:
            return ref, len(keys), 0
        labels = read_labels(
            self.storage,
            self.layout,
            document,
            table=label.table,
            key=self.product.spec.features.key,
            column=label.column,
        )
        return ref, len(keys), int(pc.sum(pc.is_in(keys, value_set=labels[KEY].combine_chunks())).as_py() or 0)

    def _seal(self, stretch: Stretch, target: str) -> dict[str, Snapshot]:
        """One snapshot per batch; a crash in between loses nothing that is sealed."""
        spec = self.product.spec
        sealed = {}
        for need in stretch.needs:
            batch_id = need.batch.batch_id
            sealed[batch_id] = seal_batch(
                self.storage,
                self.layout,
                spec,
                need,
                written=join(target, f"batch_id={batch_id}"),
                num_expected=_num_rows(self.batches[batch_id], rows_table(spec)),
                facts=self._facts(need),
            )
        return sealed

    def _facts(self, need: Need) -> dict[str, Any]:
        return need.facts(function=self.function, spec=self.product.spec)

    def _references(self, needs: Sequence[Need]) -> dict[str, str]:
        names = {f"{name}.parquet" for name, table in self.product.spec.tables.items() if table.time is None}
        digests = {}
        for need in needs:
            files = self.batches[need.batch.batch_id].manifest.files
            digests[need.batch.batch_id] = sha256_of(
                canonical_json({f.name: f.sha256 for f in files if f.name in names})
            )
        return digests


def _num_rows(snapshot: Snapshot, table: str) -> int:
    return next(f.num_rows for f in snapshot.manifest.files if f.name == f"{table}.parquet")


def _piece(batch_id: str, snapshot: Snapshot | None) -> Piece:
    assert snapshot is not None, batch_id  # every batch was known or has just been computed
    return Piece(batch_id=batch_id, digest=snapshot.digest, num_rows=snapshot.manifest.num_rows)
