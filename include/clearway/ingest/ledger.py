"""The ledger: which batches were landed, with which bytes. Every line is written once and never changed."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from clearway.contracts.codec import from_jsonable, to_jsonable
from clearway.contracts.errors import BatchConflict
from clearway.contracts.manifest import canonical_json
from clearway.infra.layout import Layout
from clearway.infra.storage import Storage


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One line.

    Args:
        digest: of the batch's snapshot.
        fingerprint: of everything the batch was made from; equal means the same batch again, without reading it.
        num_rows: per table.
    """

    batch_id: str
    digest: str
    fingerprint: str
    num_rows: dict[str, int]


class Step(StrEnum):
    """What to do with a batch whose content is known."""

    SKIP = "skip"  # landed, with these bytes
    LAND = "land"  # new
    FINISH = "finish"  # in the ledger, but a crash came before it was published


def next_step(entry: Entry | None, *, digest: str, published: str | None) -> Step:
    """Decide by digests alone. Raises: BatchConflict if the ledger names other bytes for this batch."""
    if entry is None:
        return Step.LAND
    if entry.digest != digest:
        raise BatchConflict(
            f"batch {entry.batch_id} came back with digest {digest}, the ledger holds {entry.digest}; "
            "a landed batch never changes: deliver the correction as rows of a new batch, or start a new store"
        )
    return Step.SKIP if published == digest else Step.FINISH


def newer_outside(landed: Iterable[str], batch_id: str, *, window: Iterable[str]) -> list[str]:
    """Landed batches after `batch_id` that the present window does not hold; any makes `batch_id` late."""
    return sorted(b for b in set(landed) - set(window) if b > batch_id)


def read_entry(storage: Storage, layout: Layout, batch_id: str) -> Entry | None:
    """The ledger's line for a batch, or None."""
    try:
        return from_jsonable(Entry, json.loads(storage.read(layout.ledger_entry(batch_id))))
    except FileNotFoundError:
        return None


def write_entry(storage: Storage, layout: Layout, entry: Entry) -> Entry:
    """Add a line unless there is one; returns the line that counts, which may be another writer's."""
    if storage.create(layout.ledger_entry(entry.batch_id), canonical_json(to_jsonable(entry))):
        return entry
    return from_jsonable(Entry, json.loads(storage.read(layout.ledger_entry(entry.batch_id))))


def landed_batches(storage: Storage, layout: Layout) -> list[str]:
    """Ids of all batches in the ledger, oldest first."""
    folder = layout.ledger_entry("").removesuffix("/.json")
    return [uri.rsplit("/", 1)[1].removesuffix(".json") for uri in storage.list(folder)]
