"""The list of landed batches that a raw reference names, and the tables of one of them."""

import json
from dataclasses import dataclass

from clearway.contracts.codec import from_jsonable, to_jsonable
from clearway.contracts.errors import IntegrityError
from clearway.contracts.manifest import canonical_json, sha256_of
from clearway.contracts.refs import RawRef
from clearway.infra.layout import Layout
from clearway.infra.snapshots import Snapshot, current
from clearway.infra.storage import Storage


@dataclass(frozen=True, slots=True, kw_only=True)
class LandedBatch:
    """One batch and the digest of its snapshot."""

    batch_id: str
    digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RawWindow:
    """Landed batches inside [start, end), ISO 8601 UTC, oldest first."""

    product: str
    start: str
    end: str
    batches: tuple[LandedBatch, ...]


def write_window(storage: Storage, layout: Layout, window: RawWindow) -> RawRef:
    """Store the list under its own digest; writing it again changes nothing."""
    data = canonical_json(to_jsonable(window))
    digest = sha256_of(data)
    uri = layout.raw_window(digest)
    storage.create(uri, data)
    return RawRef(uri=uri, digest=digest)


def open_window(storage: Storage, ref: RawRef) -> RawWindow:
    """Raises: IntegrityError if the bytes are not the ones `ref` names."""
    data = storage.read(ref.uri)
    if sha256_of(data) != ref.digest:
        raise IntegrityError(f"raw window {ref.uri} has digest {sha256_of(data)}, expected {ref.digest}; ingest again")
    return from_jsonable(RawWindow, json.loads(data))


def open_batch(storage: Storage, layout: Layout, batch: LandedBatch) -> Snapshot:
    """The snapshot of a landed batch. Raises: IntegrityError if another one is published, or none."""
    snapshot = current(storage, layout.batch(batch.batch_id))
    if snapshot is None or snapshot.digest != batch.digest:
        found = snapshot.digest if snapshot else "nothing"
        raise IntegrityError(f"batch {batch.batch_id} holds {found}, the window names {batch.digest}; ingest it again")
    return snapshot
