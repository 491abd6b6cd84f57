import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from clearway.contracts.errors import IntegrityError
from clearway.infra.snapshots import MANIFEST, POINTER, Snapshot, current, new_attempt, publish, seal, verify_files
from clearway.infra.storage import LocalStorage, join, to_path

STORAGE = LocalStorage()


def make(base: str, data: bytes = b"rows", *, facts: dict[str, object] | None = None) -> Snapshot:
    attempt = new_attempt(base)
    STORAGE.write(join(attempt, "part/a.parquet"), data)
    STORAGE.write(join(attempt, "b.json"), b"{}")
    return seal(STORAGE, attempt, num_rows={"part/a.parquet": 3}, facts=facts or {})


@pytest.fixture
def base(tmp_path: Path) -> str:
    return (tmp_path / "things").as_uri()


def test_nothing_is_current_before_the_first_publication(base: str) -> None:
    make(base)
    assert current(STORAGE, base) is None


def test_the_published_snapshot_is_read_back(base: str) -> None:
    snapshot = make(base, facts={"interval": "2013-01-07"})
    publish(STORAGE, base, snapshot)
    assert current(STORAGE, base) == snapshot
    assert [(e.name, e.num_rows, e.num_bytes) for e in snapshot.manifest.files] == [
        ("b.json", 0, 2),
        ("part/a.parquet", 3, 4),
    ]
    assert STORAGE.read(snapshot.file_uri("part/a.parquet")) == b"rows"
    verify_files(STORAGE, snapshot)


def test_the_same_content_has_the_same_digest_wherever_it_lies(tmp_path: Path) -> None:
    digests = {make((tmp_path / place).as_uri(), facts={"a": 1}).digest for place in ("here", "there")}
    assert len(digests) == 1


def test_a_new_publication_replaces_the_old_in_one_step(base: str) -> None:
    old, new = make(base, b"old"), make(base, b"new")
    publish(STORAGE, base, old)
    publish(STORAGE, base, new)
    found = current(STORAGE, base)
    assert found is not None
    assert found.digest == new.digest
    verify_files(STORAGE, old)  # readers of the old one are not disturbed


def test_a_changed_manifest_is_noticed(base: str) -> None:
    snapshot = make(base)
    publish(STORAGE, base, snapshot)
    manifest = json.loads(STORAGE.read(join(snapshot.uri, MANIFEST)))
    manifest["facts"]["planted"] = True
    STORAGE.write(join(snapshot.uri, MANIFEST), json.dumps(manifest).encode())
    with pytest.raises(IntegrityError, match=f"expected {snapshot.digest}"):
        current(STORAGE, base)


@pytest.mark.parametrize("data", [b"rowz", b"rows and more"], ids=["flipped", "longer"])
def test_changed_bytes_are_noticed(base: str, data: bytes) -> None:
    snapshot = make(base)
    to_path(snapshot.file_uri("part/a.parquet")).write_bytes(data)
    with pytest.raises(IntegrityError, match=r"'part/a.parquet'"):
        verify_files(STORAGE, snapshot)


def test_only_listed_files_have_an_address(base: str) -> None:
    with pytest.raises(IntegrityError, match=r"'c\.json' is not in snapshot"):
        make(base).file_uri("c.json")


SCRIPT = """
import sys
from clearway.infra.snapshots import new_attempt, publish, seal
from clearway.infra.storage import LocalStorage, join
storage, base = LocalStorage(), sys.argv[1]
attempt = new_attempt(base)
storage.write(join(attempt, "part/a.parquet"), b"new")
storage.write(join(attempt, "b.json"), b"{}")
publish(storage, base, seal(storage, attempt, num_rows={"part/a.parquet": 3}, facts={}))
"""


@pytest.mark.parametrize(
    "fault",
    [
        "storage.before_rename=kill@1",  # first file
        "storage.before_rename=kill@2",  # second file
        "snapshots.before_manifest=kill",
        "storage.before_rename=kill@3",  # manifest written, not renamed
        "snapshots.before_pointer=kill",
        "storage.before_rename=kill@4",  # pointer written, not renamed
    ],
)
def test_a_kill_leaves_the_old_snapshot_and_the_retry_reaches_the_same_digest(base: str, fault: str) -> None:
    old = make(base, b"old")
    publish(STORAGE, base, old)
    command = [sys.executable, "-c", SCRIPT, base]
    died = subprocess.run(command, env={**os.environ, "CLEARWAY_FAULT": fault}, timeout=60, check=False)
    assert died.returncode == -signal.SIGKILL
    assert current(STORAGE, base) == old
    verify_files(STORAGE, old)

    subprocess.run(command, timeout=60, check=True)
    found = current(STORAGE, base)
    assert found is not None
    verify_files(STORAGE, found)
    assert found.digest == make(base, b"new").digest


def test_the_pointer_holds_no_absolute_address(base: str) -> None:
    snapshot = make(base)
    publish(STORAGE, base, snapshot)
    pointer = json.loads(STORAGE.read(join(base, POINTER)))
    assert pointer == {"folder": snapshot.uri.rsplit("/", 1)[1], "digest": snapshot.digest}
