"""Publish a folder of files as one immutable thing.

Every attempt writes its own unique folder; the manifest is written last; one pointer change makes it current. A reader
sees the old snapshot or the new one, never a mix, and a killed attempt is never swept into the next.
"""

import hashlib
import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from clearway.contracts.errors import IntegrityError
from clearway.contracts.manifest import FileEntry, Manifest
from clearway.infra.faults import fault
from clearway.infra.storage import Storage, join

MANIFEST = "manifest.json"
POINTER = "current.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """A published folder: its address and manifest."""

    uri: str
    manifest: Manifest

    @property
    def digest(self) -> str:
        return self.manifest.digest

    def file_uri(self, name: str) -> str:
        """Address of one file. Raises: IntegrityError for a name the manifest does not list."""
        if name not in {entry.name for entry in self.manifest.files}:
            raise IntegrityError(
                f"file {name!r} is not in snapshot {self.uri}; listed: {[e.name for e in self.manifest.files]}"
            )
        return join(self.uri, name)


def new_attempt(base: str) -> str:
    """A unique folder address for one attempt at `base`."""
    return join(base, f"attempt-{uuid.uuid4().hex[:12]}")


def seal(storage: Storage, attempt: str, *, num_rows: Mapping[str, int], facts: dict[str, Any]) -> Snapshot:
    """Write the manifest of a finished attempt folder; `num_rows` per file name, 0 for files that are no tables."""
    prefix = attempt.rstrip("/") + "/"
    entries = []
    for uri in storage.list(attempt):
        name = uri.removeprefix(prefix)
        data = storage.read(uri)
        entries.append(
            FileEntry(
                name=name, num_rows=num_rows.get(name, 0), num_bytes=len(data), sha256=hashlib.sha256(data).hexdigest()
            )
        )
    manifest = Manifest(files=tuple(sorted(entries, key=lambda e: e.name)), facts=facts)
    fault("snapshots.before_manifest")
    storage.write(join(attempt, MANIFEST), manifest.to_json())
    return Snapshot(uri=attempt, manifest=manifest)


def publish(storage: Storage, base: str, snapshot: Snapshot) -> None:
    """Make `snapshot` the current one of `base`, in one write."""
    folder = snapshot.uri.removeprefix(base.rstrip("/") + "/")
    fault("snapshots.before_pointer")
    storage.write(join(base, POINTER), json.dumps({"folder": folder, "digest": snapshot.digest}).encode())


def current(storage: Storage, base: str) -> Snapshot | None:
    """The published snapshot of `base`, or None. Raises: IntegrityError if its manifest is not the one published."""
    try:
        pointer = json.loads(storage.read(join(base, POINTER)))
    except FileNotFoundError:
        return None
    return open_snapshot(storage, join(base, pointer["folder"]), digest=pointer["digest"])


def open_snapshot(storage: Storage, uri: str, *, digest: str) -> Snapshot:
    """A snapshot by address and digest. Raises: IntegrityError if the manifest there has another digest."""
    manifest = Manifest.from_json(storage.read(join(uri, MANIFEST)))
    if manifest.digest != digest:
        raise IntegrityError(
            f"manifest at {uri} has digest {manifest.digest}, expected {digest}; "
            "the snapshot was changed, make it again"
        )
    return Snapshot(uri=uri, manifest=manifest)


def verify_files(storage: Storage, snapshot: Snapshot) -> None:
    """Hash every file again. Raises: IntegrityError naming the first that differs."""
    for entry in snapshot.manifest.files:
        data = storage.read(join(snapshot.uri, entry.name))
        if len(data) != entry.num_bytes or hashlib.sha256(data).hexdigest() != entry.sha256:
            raise IntegrityError(
                f"file {entry.name!r} of {snapshot.uri} has other bytes than its manifest says; make the snapshot again"
            )
