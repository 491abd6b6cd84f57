"""Blobs under URIs. Small objects (manifests, pointers, reports) go through here; tables are read by their engines."""

import os
import shutil
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote, urlparse

from clearway.contracts.errors import ConfigError
from clearway.infra.durable import sync_folder, write_temporary
from clearway.infra.faults import fault


class Storage(Protocol):
    """What a store of blobs owes its callers; every implementation passes the same conformance suite."""

    def read(self, uri: str) -> bytes:
        """All bytes. Raises: FileNotFoundError."""
        ...

    def write(self, uri: str, data: bytes) -> None:
        """Replace atomically: a reader sees the old bytes or the new ones."""
        ...

    def create(self, uri: str, data: bytes) -> bool:
        """Write only if nothing is there; False if something is. Of two racing callers exactly one gets True."""
        ...

    def exists(self, uri: str) -> bool:
        """Whether a blob lies at exactly this address."""
        ...

    def list(self, prefix: str) -> list[str]:
        """Addresses of all blobs below `prefix`, sorted; empty if there are none."""
        ...

    def delete_tree(self, prefix: str) -> None:
        """Remove everything below `prefix`; nothing there is not an error."""
        ...


def read_if_there(storage: Storage, uri: str) -> bytes | None:
    """All bytes, or None where nothing lies."""
    try:
        return storage.read(uri)
    except FileNotFoundError:
        return None


def join(uri: str, *parts: str) -> str:
    """Child address. Parts may not climb out (ConfigError)."""
    for part in parts:
        if ".." in part.split("/") or part.startswith("/"):
            raise ConfigError(f"path part {part!r} may not be absolute or contain '..'")
    return "/".join([uri.rstrip("/"), *parts])


def to_path(uri: str) -> Path:
    """Local path of a `file://` URI. Raises: ConfigError for any other scheme."""
    parsed = urlparse(uri)
    if parsed.scheme != "file":
        raise ConfigError(f"uri {uri!r} is not local; allowed: file:///…")
    return Path(unquote(parsed.path))


def scratch_of(uri: str, *, root: str, scratch: Path) -> Path:
    """The folder of this machine for what only its own jobs keep for `uri`: checkpoints, the journal of a study.

    In a local store it is `uri` itself, else the same place below `scratch`. `root`: of the store.
    """
    return to_path(uri) if uri.startswith("file://") else scratch / uri.removeprefix(root).strip("/")


def open_storage(root: str) -> Storage:
    """The implementation that serves `root`, by its scheme. Raises: ConfigError."""
    if root.startswith("file://"):
        return LocalStorage()
    if root.startswith("s3://"):
        from clearway.infra.aws.s3_storage import S3Storage  # noqa: PLC0415 - what one machine never needs

        return S3Storage()
    raise ConfigError(f"storage root {root!r} is not supported here; allowed: file:///…, s3://bucket/prefix")


class LocalStorage:
    """A folder of this machine. Durable: data and folder are fsynced before a name appears."""

    def read(self, uri: str) -> bytes:
        return to_path(uri).read_bytes()

    def write(self, uri: str, data: bytes) -> None:
        path = to_path(uri)
        temporary = write_temporary(path, data)
        fault("storage.before_rename")
        temporary.replace(path)
        sync_folder(path.parent)

    def create(self, uri: str, data: bytes) -> bool:
        path = to_path(uri)
        temporary = write_temporary(path, data)
        try:
            os.link(temporary, path)  # fails if the name is taken: the atomic put-if-absent of a file system
        except FileExistsError:
            return False
        finally:
            temporary.unlink()
        sync_folder(path.parent)
        return True

    def exists(self, uri: str) -> bool:
        return to_path(uri).is_file()

    def list(self, prefix: str) -> list[str]:
        found = (p for p in to_path(prefix).rglob("*") if p.is_file() and not p.name.startswith(".tmp-"))
        return sorted(p.as_uri() for p in found)

    def delete_tree(self, prefix: str) -> None:
        shutil.rmtree(to_path(prefix), ignore_errors=True)
