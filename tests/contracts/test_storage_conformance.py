"""What every Storage owes its callers. Add an implementation to STORAGES and all of this must hold for it."""

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from aws_kit import make_bucket
from clearway.infra.storage import Storage, join, open_storage


def local_root(tmp_path: Path) -> str:
    return (tmp_path / "a store with spaces é").as_uri()


def s3_root(_: Path) -> str:
    return f"s3://{make_bucket()}/a prefix with spaces é"


STORAGES: dict[str, Callable[[Path], str]] = {"local": local_root, "s3": s3_root}
NEEDS = {"s3": "aws"}


@pytest.fixture(params=["local", pytest.param("s3", marks=pytest.mark.slow)])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param in NEEDS:
        request.getfixturevalue(NEEDS[request.param])
    return STORAGES[request.param](tmp_path)


@pytest.fixture
def storage(root: str) -> Storage:
    return open_storage(root)


def test_bytes_come_back_as_written(storage: Storage, root: str) -> None:
    data = bytes(range(256)) * 10
    storage.write(join(root, "deep/er/a.bin"), data)
    assert storage.read(join(root, "deep/er/a.bin")) == data


def test_an_empty_blob_is_a_blob(storage: Storage, root: str) -> None:
    storage.write(join(root, "empty"), b"")
    assert storage.read(join(root, "empty")) == b""
    assert storage.exists(join(root, "empty"))


def test_write_replaces(storage: Storage, root: str) -> None:
    storage.write(join(root, "a"), b"old and longer")
    storage.write(join(root, "a"), b"new")
    assert storage.read(join(root, "a")) == b"new"


def test_reading_nothing_is_file_not_found(storage: Storage, root: str) -> None:
    with pytest.raises(FileNotFoundError):
        storage.read(join(root, "nothing"))


def test_create_only_writes_where_nothing_is(storage: Storage, root: str) -> None:
    assert storage.create(join(root, "a"), b"first") is True
    assert storage.create(join(root, "a"), b"second") is False
    assert storage.read(join(root, "a")) == b"first"
    storage.write(join(root, "b"), b"written")
    assert storage.create(join(root, "b"), b"created") is False


def test_of_racing_creators_exactly_one_wins(storage: Storage, root: str) -> None:
    num_racers = 8
    barrier = threading.Barrier(num_racers)
    won: list[int] = []

    def race(number: int) -> None:
        barrier.wait(timeout=30)
        if storage.create(join(root, "prize"), str(number).encode()):
            won.append(number)

    racers = [threading.Thread(target=race, args=(number,)) for number in range(num_racers)]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join(timeout=30)
    assert len(won) == 1
    assert storage.read(join(root, "prize")) == str(won[0]).encode()


def test_a_reader_never_sees_half_a_write(storage: Storage, root: str) -> None:
    uri, is_done = join(root, "a"), threading.Event()
    versions = {letter * 20_000 for letter in (b"a", b"b", b"c")}
    storage.write(uri, b"a" * 20_000)

    def write() -> None:
        for _ in range(10):
            for data in sorted(versions):
                storage.write(uri, data)
        is_done.set()

    writer = threading.Thread(target=write)
    writer.start()
    seen = {storage.read(uri)}
    while not is_done.is_set():
        seen.add(storage.read(uri))
    writer.join(timeout=30)
    assert seen <= versions


def test_exists_is_about_exactly_one_address(storage: Storage, root: str) -> None:
    storage.write(join(root, "folder/a"), b"x")
    assert storage.exists(join(root, "folder/a"))
    assert not storage.exists(join(root, "folder"))
    assert not storage.exists(join(root, "folder/ab"))


def test_list_is_sorted_deep_and_readable_again(storage: Storage, root: str) -> None:
    names = ["b", "a/z", "a/b/c", "a b", "é"]
    for name in names:
        storage.write(join(root, "listed", name), name.encode())
    storage.write(join(root, "listed-not", "x"), b"x")
    found = storage.list(join(root, "listed"))
    assert found == sorted(found)
    assert sorted(storage.read(uri).decode() for uri in found) == sorted(names)


def test_listing_nothing_is_empty(storage: Storage, root: str) -> None:
    assert storage.list(join(root, "nothing")) == []


def test_delete_tree_removes_all_below_and_nothing_beside(storage: Storage, root: str) -> None:
    for name in ("gone/a", "gone/b/c", "gone-not/a"):
        storage.write(join(root, name), b"x")
    storage.delete_tree(join(root, "gone"))
    storage.delete_tree(join(root, "gone"))
    assert storage.list(join(root, "gone")) == []
    assert storage.exists(join(root, "gone-not/a"))
