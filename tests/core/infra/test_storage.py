import errno
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clearway.contracts.errors import ConfigError
from clearway.infra.storage import LocalStorage, join, open_storage, to_path


@pytest.mark.parametrize("part", ["..", "a/../b", "/etc/passwd", "../x"])
def test_a_child_address_may_not_climb_out(part: str) -> None:
    with pytest.raises(ConfigError, match="may not be absolute"):
        join("file:///store", part)


@given(st.lists(st.text("ab.-_", min_size=1, max_size=5).filter(lambda p: p != ".."), min_size=1, max_size=3))
def test_a_child_address_stays_below_its_parent(parts: list[str]) -> None:
    assert join("s3://bucket/store/", *parts).startswith("s3://bucket/store/")


@pytest.mark.parametrize("name", ["plain", "with space", "ümläut", "per%cent", "plus+sign", "hash#mark"])
def test_a_local_address_leads_back_to_its_path(tmp_path: Path, name: str) -> None:
    assert to_path((tmp_path / name).as_uri()) == tmp_path / name


def test_other_schemes_are_refused_by_name() -> None:
    with pytest.raises(ConfigError, match="allowed: file:///"):
        to_path("s3://bucket/key")
    with pytest.raises(ConfigError, match="ftp://host"):
        open_storage("ftp://host/x")


def test_a_write_killed_before_the_rename_leaves_the_old_bytes_and_no_listed_rest(tmp_path: Path) -> None:
    uri, storage = (tmp_path / "a").as_uri(), LocalStorage()
    storage.write(uri, b"old")
    script = f"from clearway.infra.storage import LocalStorage; LocalStorage().write({uri!r}, b'new')"
    variables = {**os.environ, "CLEARWAY_FAULT": "storage.before_rename=kill"}
    died = subprocess.run([sys.executable, "-c", script], env=variables, timeout=60, check=False)
    assert died.returncode == -signal.SIGKILL
    assert storage.read(uri) == b"old"
    assert storage.list(tmp_path.as_uri()) == [uri]


@pytest.mark.parametrize("verb", ["write", "create"])
def test_a_write_that_the_disk_refuses_leaves_nothing_and_names_the_file(tmp_path: Path, verb: str) -> None:
    """A limit on the size of files stands for the full disk: a part of the bytes is written before it shows."""
    uri, limits = (tmp_path / "a").as_uri(), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
    try:
        with pytest.raises(OSError, match=f"{tmp_path}/a") as caught:
            getattr(LocalStorage(), verb)(uri, b"x" * 1000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert caught.value.errno == errno.EFBIG
    assert list(tmp_path.iterdir()) == []
