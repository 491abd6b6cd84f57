"""What the server keeps on its own disk, so that it restarts and serves with storage, registry and Airflow all down."""

import hmac
import json
import os
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clearway.contracts.errors import ConfigError, IntegrityError
from clearway.contracts.manifest import canonical_json
from clearway.infra.endpoint import DeadMan, Mirror
from clearway.infra.storage import LocalStorage, join, open_storage
from clearway.packaging.package import Package, copy_package, open_package

_DIGEST = re.compile(r"[0-9a-f]{64}", re.ASCII)
STATE_FILE = "traffic.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedState:
    """Last good state.

    Args:
        loaded: digest → package address.
        in_process: those of them that live in the gateway's own process.
        weights_pct: the traffic table.
        epoch: newest epoch seen.
        dead_man: who takes over if the controller falls silent.
        mirror: who is given copies of requests.
        broken: digest → why the server took it out of service.
    """

    loaded: Mapping[str, str]
    weights_pct: Mapping[str, float]
    epoch: int
    in_process: tuple[str, ...] = ()
    dead_man: DeadMan | None = None
    mirror: Mirror | None = None
    broken: Mapping[str, str] = field(default_factory=dict)


class LocalCopy:
    """One product's folder `<home>/serving/<product>`: verified packages and the traffic table.

    Args:
        folder: made if absent.
        key_folder: where the signature's public key lies.
    """

    def __init__(self, folder: Path, *, key_folder: Path) -> None:
        self._root, self._key_folder = folder.resolve().as_uri(), key_folder
        self._storage = LocalStorage()

    def fetch(self, uri: str, digest: str) -> Package:
        """The verified package, from this disk if a whole copy is here, else copied from `uri` first.

        Raises: IntegrityError, FileNotFoundError-free by construction; OSError if the source cannot be read.
        """
        try:
            return self.open(digest)
        except IntegrityError:
            self.drop(digest)
        copy_package(open_storage(uri), uri, digest, target=self._storage, folder=self._package(digest))
        return self.open(digest)

    def open(self, digest: str) -> Package:
        """The local copy, verified anew. Raises: IntegrityError if it is absent, incomplete or changed."""
        return open_package(self._storage, self._package(digest), digest, key_folder=self._key_folder)

    def drop(self, digest: str) -> None:
        """Forget one package; absent is fine."""
        self._storage.delete_tree(self._package(digest))

    def save(self, state: SavedState) -> None:
        """Replace the saved state atomically and durably."""
        values = {
            "loaded": dict(state.loaded),
            "in_process": list(state.in_process),
            "weights_pct": list(state.weights_pct.items()),
            "epoch": state.epoch,
            "dead_man": [state.dead_man.stable, state.dead_man.after_s] if state.dead_man else None,
            "mirror": [state.mirror.digest, list(state.mirror.columns)] if state.mirror else None,
            "broken": dict(state.broken),
        }
        self._storage.write(join(self._root, STATE_FILE), canonical_json(values))

    def read(self) -> SavedState:
        """The last good state; empty on a first start. Raises: IntegrityError if the file is not one of ours."""
        try:
            data = self._storage.read(join(self._root, STATE_FILE))
        except FileNotFoundError:
            return SavedState(loaded={}, weights_pct={}, epoch=0)
        try:
            return _state_of(json.loads(data))
        except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
            raise IntegrityError(
                f"{self._root}/{STATE_FILE} is damaged: {error}; delete it and run the reconciler to restore traffic"
            ) from error

    def _package(self, digest: str) -> str:
        if not _DIGEST.fullmatch(digest):
            raise ConfigError("digest is not 64 lowercase hex characters; pass the model package's digest")
        return join(self._root, "packages", digest)


def _state_of(raw: dict[str, Any]) -> SavedState:
    armed, mirror = raw.get("dead_man"), raw.get("mirror")
    return SavedState(
        loaded=dict(raw["loaded"]),
        in_process=tuple(raw.get("in_process", raw["loaded"])),
        weights_pct={str(d): float(w) for d, w in raw["weights_pct"]},
        epoch=int(raw["epoch"]),
        dead_man=DeadMan(stable=str(armed[0]), after_s=float(armed[1])) if armed else None,
        mirror=Mirror(digest=str(mirror[0]), columns=tuple(mirror[1])) if mirror else None,
        broken={str(d): str(reason) for d, reason in raw.get("broken", {}).items()},
    )


def ensure_token(path: Path) -> str:
    """The admin token, made on first use: 256 random bits, readable by this user only. Raises: ConfigError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return _read_token(path)
    with os.fdopen(handle, "w", encoding="ascii") as file:
        file.write(secrets.token_urlsafe(32))
    return _read_token(path)


def _read_token(path: Path) -> str:
    if path.stat().st_mode & 0o077:
        raise ConfigError(f"admin token {path} can be read by others; run chmod 600 on it, or delete it for a new one")
    token = path.read_text(encoding="ascii").strip()
    if not token:
        raise ConfigError(f"admin token {path} is empty; delete it, the server then makes a new one")
    return token


def is_token(header: bytes, token: str) -> bool:
    """Whether an Authorization header carries exactly this bearer token; compared in constant time."""
    return hmac.compare_digest(header, b"Bearer " + token.encode("ascii"))
