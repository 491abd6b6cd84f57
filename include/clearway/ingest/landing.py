"""Land one batch after another. Safe to kill anywhere: what is published is whole, what is not is done again.

Order of effects: files and manifest of a fresh attempt, the ledger's line (put if absent), the pointer. A crash before
the line leaves garbage, one after it is finished by the next run, which makes the same bytes.
"""

import logging
from dataclasses import dataclass, field, replace
from datetime import datetime

import pyarrow as pa

from clearway.contracts.manifest import canonical_json, sha256_of
from clearway.contracts.verdict import Verdict
from clearway.infra.clock import format_instant
from clearway.infra.environment import Environment
from clearway.infra.faults import fault
from clearway.infra.layout import Layout
from clearway.infra.parquet import to_parquet
from clearway.infra.snapshots import Snapshot, current, new_attempt, publish, seal
from clearway.infra.storage import Storage, join, open_storage
from clearway.ingest.cut import Conformed, Cut, conform_all, cut
from clearway.ingest.ledger import Entry, Step, landed_batches, newer_outside, next_step, read_entry, write_entry
from clearway.ingest.plant import Plant, apply_plant, plant_facts, read_plant
from clearway.ingest.quarantine import set_aside
from clearway.ingest.schema import Problem, ProblemKind
from clearway.ingest.sources import NotDelivered, Source, open_source
from clearway.product import LoadedProduct
from clearway.product_source import FilesSource

LOG = logging.getLogger("clearway.ingest")
# Raised when the same tables would be landed as other bytes; part of every fingerprint.
FORMAT = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Landed:
    """What became of one batch; `digest` is None if it is not landed."""

    batch_id: str
    verdict: Verdict
    digest: str | None
    is_new: bool = False
    reason: str = ""


@dataclass(slots=True, kw_only=True)
class Landing:
    """One run over a window of batches."""

    product: LoadedProduct
    storage: Storage
    layout: Layout
    source: Source
    plant: Plant | None
    window: list[str]
    # Tables of the delivery read last, by the fingerprint of its bytes: one package file serves many batches.
    _conformed: dict[str, Conformed] = field(default_factory=dict)
    # What the ledger held when it was first asked for: what this run adds lies in its window.
    _landed: list[str] | None = None

    @classmethod
    def open(cls, product: LoadedProduct, env: Environment, *, window: list[str]) -> "Landing":
        storage = open_storage(env.store_root)
        return cls(
            product=product,
            storage=storage,
            layout=Layout(env.store_root, product.name),
            source=open_source(product),
            plant=read_plant(storage, product, env),
            window=window,
        )

    def land(self, *, start: datetime, end: datetime) -> Landed:
        """Land [start, end), or say why not. Raises: BatchConflict."""
        batch_id = self.product.spec.batch.batch_id(start)
        try:
            delivery = self.source.fingerprint(batch_id)
        except NotDelivered as error:
            return Landed(batch_id=batch_id, verdict=Verdict.INCONCLUSIVE, digest=None, reason=str(error))
        entry = read_entry(self.storage, self.layout, batch_id)
        published = current(self.storage, self.layout.batch(batch_id))
        fingerprint = self._fingerprint(batch_id, delivery)
        if (
            entry is not None
            and published is not None
            and (fingerprint, published.digest)
            == (
                entry.fingerprint,
                entry.digest,
            )
        ):
            return Landed(batch_id=batch_id, verdict=Verdict.PASS, digest=entry.digest)
        delivered = self._tables(batch_id, delivery)
        batch = cut(self.product.spec, delivered, start=start, end=end)
        problems = [*batch.problems, *(self._lateness(batch_id) if entry is None else [])]
        left_out = self._left_out(delivered, batch)
        if problems:
            return self._refuse(batch_id, problems, batch, left_out=left_out)
        landed = self._write(batch_id, batch, entry, fingerprint=fingerprint, start=start, end=end)
        if not left_out:
            return landed
        LOG.warning("batch %s: %s", batch_id, left_out)
        return replace(landed, reason=f"batch {batch_id}: {left_out}")

    def _tables(self, batch_id: str, delivery: str) -> Conformed:
        if delivery not in self._conformed:
            self._conformed = {delivery: self._read(batch_id)}
        return self._conformed[delivery]

    def _read(self, batch_id: str) -> Conformed:
        """Delivered tables in declared form. A delivery that cannot be read or shaped is refused, not crashed on."""
        shape = self.product.spec.shape
        try:
            raw = self.source.read(batch_id)
            shaped = self.product.function(shape)(raw) if shape else raw
        except (pa.ArrowInvalid, pa.ArrowTypeError, KeyError) as error:
            problem = Problem(kind=ProblemKind.UNREADABLE, table="delivery", text=f"{type(error).__name__}: {error}")
            return Conformed(tables={}, problems=(problem,))
        return conform_all(self.product.spec, shaped)

    def _fingerprint(self, batch_id: str, delivery: str) -> str:
        """Everything that decides the bytes of a batch."""
        spec = self.product.spec
        shape = spec.shape and sha256_of((self.product.folder / spec.shape.partition(":")[0]).read_bytes())
        parts = {
            "format": FORMAT,
            "batch_id": batch_id,
            "delivery": delivery,
            "shape": [spec.shape, shape],
            "tables": {name: table.model_dump(mode="json") for name, table in spec.tables.items()},
            "plant": plant_facts(self.plant, batch_id),
        }
        return sha256_of(canonical_json(parts))

    def _lateness(self, batch_id: str) -> list[Problem]:
        if self._landed is None:
            self._landed = landed_batches(self.storage, self.layout)
        newer = newer_outside(self._landed, batch_id, window=self.window)
        if not newer:
            return []
        text = f"newer batches up to {newer[-1]} are landed already; land it in one window with all of them"
        return [Problem(kind=ProblemKind.LATE, table="batch", text=text)]

    def _left_out(self, delivered: Conformed, batch: Cut) -> str:
        """Rows that no batch will ever hold, in words: of a file of this batch's own, and outside its interval."""
        source, has_shape = self.product.spec.source, self.product.spec.shape is not None
        if not isinstance(source, FilesSource) or has_shape:
            return ""
        said = []
        for name, table in batch.tables.items():
            num = len(delivered.tables[name]) - len(table)
            if num and source.is_per_batch(name):
                total = len(delivered.tables[name])
                said.append(f"{num} of {total} rows of {name} lie outside its interval (UTC) and are left out")
        return "; ".join(said)

    def _refuse(self, batch_id: str, problems: list[Problem], batch: Cut, *, left_out: str) -> Landed:
        uri = set_aside(self.storage, self.layout, batch_id, problems=problems, tables=batch.tables)
        reason = f"batch {batch_id} quarantined: {'; '.join(filter(None, (*map(str, problems), left_out)))}; see {uri}"
        LOG.warning("%s", reason)
        return Landed(batch_id=batch_id, verdict=Verdict.FAIL, digest=None, reason=reason)

    def _write(
        self, batch_id: str, batch: Cut, entry: Entry | None, *, fingerprint: str, start: datetime, end: datetime
    ) -> Landed:
        tables = apply_plant(self.product, self.plant, batch_id, batch.tables)
        facts = {
            "product": self.product.name,
            "batch_id": batch_id,
            "start": format_instant(start),
            "end": format_instant(end),
            **plant_facts(self.plant, batch_id),
        }
        snapshot = self._attempt(batch_id, tables, facts)
        fault("ingest.after_seal")
        num_rows = {name: len(table) for name, table in tables.items()}
        line = entry or write_entry(
            self.storage,
            self.layout,
            Entry(batch_id=batch_id, digest=snapshot.digest, fingerprint=fingerprint, num_rows=num_rows),
        )
        fault("ingest.after_ledger")
        published = current(self.storage, self.layout.batch(batch_id))
        # A conflict is raised here, also when another process wrote the line since we looked.
        step = next_step(line, digest=snapshot.digest, published=published.digest if published else None)
        if step is Step.SKIP:
            self.storage.delete_tree(snapshot.uri)
        else:
            publish(self.storage, self.layout.batch(batch_id), snapshot)
        LOG.info("batch %s landed: %s", batch_id, num_rows)
        return Landed(batch_id=batch_id, verdict=Verdict.PASS, digest=snapshot.digest, is_new=entry is None)

    def _attempt(self, batch_id: str, tables: dict[str, pa.Table], facts: dict[str, str]) -> Snapshot:
        attempt = new_attempt(self.layout.batch(batch_id))
        for name, table in sorted(tables.items()):
            self.storage.write(join(attempt, f"{name}.parquet"), to_parquet(table))
        fault("ingest.before_seal")
        num_rows = {f"{name}.parquet": len(table) for name, table in tables.items()}
        return seal(self.storage, attempt, num_rows=num_rows, facts=facts)
