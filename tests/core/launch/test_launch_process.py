"""Children are stopped in order, and nothing that they started is left behind."""

import os
import signal
import sys
import time
from pathlib import Path

import psutil
import pytest

from clearway.launch import process
from clearway.launch.memory import pss_bytes

STUBBORN = "import signal,time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"
POLITE = "import time; print('up', flush=True); time.sleep(60)"
SLEEPER = "import subprocess,sys,time; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])"
PARENT = SLEEPER + "; print('up', flush=True); time.sleep(60)"


def start(code: str, tmp_path: Path) -> "process.subprocess.Popen[bytes]":
    log = tmp_path / "log"
    child = process.start((sys.executable, "-c", code), env=os.environ, log=log, cwd=tmp_path)
    deadline = time.monotonic() + 60
    while not log.read_text(encoding="utf-8") and time.monotonic() < deadline:
        time.sleep(0.02)
    return child


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["term", "int"])
def test_a_polite_child_leaves_at_the_first_signal(tmp_path: Path, number: signal.Signals) -> None:
    child = start(POLITE, tmp_path)
    child.send_signal(number)
    assert process.wait_or_kill(child, timeout_s=60)


def test_a_stubborn_child_is_killed(tmp_path: Path) -> None:
    child = start(STUBBORN, tmp_path)
    child.send_signal(signal.SIGTERM)
    assert not process.wait_or_kill(child, timeout_s=0.3)
    assert child.returncode == -signal.SIGKILL


def test_grandchildren_go_with_their_group(tmp_path: Path) -> None:
    child = start(PARENT, tmp_path)
    (grandchild,) = psutil.Process(child.pid).children()
    child.terminate()
    process.wait_or_kill(child, timeout_s=60)
    grandchild.wait(timeout=60)
    assert not grandchild.is_running()


def test_end_all_counts_those_that_had_to_be_killed(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    polite = start(POLITE, tmp_path)
    stubborn = start(STUBBORN, tmp_path / "b")
    assert process.end_all([psutil.Process(polite.pid), psutil.Process(stubborn.pid)], timeout_s=3.0) == 1
    for child in (polite, stubborn):
        child.wait(60)
        assert not psutil.pid_exists(child.pid)


def test_a_reused_number_is_not_the_same_process() -> None:
    mine = process.created_s(os.getpid())
    assert process.is_same_process(os.getpid(), mine)
    assert not process.is_same_process(os.getpid(), mine - 3600)
    assert not process.is_same_process(0, 0.0)


def test_memory_counts_living_processes_only(tmp_path: Path) -> None:
    one = pss_bytes([os.getpid()])
    assert 5_000_000 < one < 5_000_000_000
    assert pss_bytes([2**22 + 1]) == 0
    (tmp_path / "7").mkdir()
    (tmp_path / "7" / "smaps_rollup").write_text("Rss: 100 kB\nPss:    40 kB\nPss_Dirty: 9 kB\n", encoding="ascii")
    assert pss_bytes([7, 8], proc=tmp_path) == 40 * 1024
