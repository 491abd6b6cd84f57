"""Files of an installed package as one table: a pattern gives a row per file."""

from pathlib import Path

import pytest

from clearway.contracts.errors import ConfigError
from clearway.ingest.sources.package import PackageTables


def a_source(folder: Path, pattern: str) -> PackageTables:
    for name in ("b/one.gz", "a/one.gz", "a/two.txt"):
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"\x00" + name.encode())
    return PackageTables(folder=folder, files={"notes": pattern}, null_values=("",))


def test_a_pattern_is_a_row_per_file_in_a_fixed_order(tmp_path):
    table = a_source(tmp_path, "*/*.gz").read("2024-01-01")["notes"]
    assert table.to_pylist() == [
        {"path": "a/one.gz", "content": b"\x00a/one.gz"},
        {"path": "b/one.gz", "content": b"\x00b/one.gz"},
    ]


def test_a_new_file_or_other_bytes_are_another_delivery(tmp_path):
    first = a_source(tmp_path, "*/*.gz").fingerprint("x")
    assert a_source(tmp_path, "*/*.gz").fingerprint("x") == first
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "one.gz").write_bytes(b"")
    second = a_source(tmp_path, "*/*.gz").fingerprint("x")
    (tmp_path / "c" / "one.gz").rename(tmp_path / "c" / "two.gz")
    assert len({first, second, a_source(tmp_path, "*/*.gz").fingerprint("x")}) == 3


def test_a_pattern_without_files_is_a_mistake(tmp_path):
    with pytest.raises(ConfigError, match=r"no file of package folder .* is '\*\.csv'"):
        a_source(tmp_path, "*.csv").fingerprint("x")
