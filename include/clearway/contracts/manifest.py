"""The list that makes a folder of files one immutable thing: written last, named by its own digest."""

import hashlib
import json
from dataclasses import dataclass, field
from typing import Any


def canonical_json(value: Any) -> bytes:
    """The one byte form of a JSON value: sorted keys, no spaces, no NaN (ValueError)."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=True).encode()


def sha256_of(data: bytes) -> str:
    """SHA-256, lowercase hex."""
    return hashlib.sha256(data).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class FileEntry:
    """One file: `name` relative to the folder, `num_rows` for tables (0 otherwise), `num_bytes`, SHA-256."""

    name: str
    num_rows: int
    num_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """Files of one snapshot plus facts about them.

    Args:
        files: sorted by name.
        facts: JSON values that belong to the content (schema, interval, parents). Addresses, hosts and clock times
            do not: same input must give the same digest anywhere.
    """

    files: tuple[FileEntry, ...]
    facts: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        names = [entry.name for entry in self.files]
        if names != sorted(set(names)):
            raise ValueError(f"manifest files {names} must be sorted and unique")

    def to_json(self) -> bytes:
        files = [[e.name, e.num_rows, e.num_bytes, e.sha256] for e in self.files]
        return canonical_json({"facts": self.facts, "files": files})

    @classmethod
    def from_json(cls, data: bytes) -> "Manifest":
        raw = json.loads(data)
        files = tuple(FileEntry(name=n, num_rows=r, num_bytes=b, sha256=s) for n, r, b, s in raw["files"])
        return cls(files=files, facts=raw["facts"])

    @property
    def digest(self) -> str:
        return sha256_of(self.to_json())

    @property
    def num_rows(self) -> int:
        return sum(entry.num_rows for entry in self.files)
