import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from clearway.contracts.errors import ConfigError
from clearway.infra import faults
from clearway.infra.faults import InjectedFault, fault


@pytest.fixture(autouse=True)
def fresh_visits(monkeypatch: pytest.MonkeyPatch) -> None:
    faults._visits.clear()
    monkeypatch.delenv("CLEARWAY_FAULT", raising=False)
    monkeypatch.setenv("CLEARWAY_ENV", "local")


def test_without_a_plan_nothing_happens() -> None:
    fault("any.point")


def test_another_point_does_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLEARWAY_FAULT", "train.start=raise")
    fault("train.started")


def test_the_nth_visit_acts_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLEARWAY_FAULT", "train.step=raise@3")
    fault("train.step")
    fault("train.step")
    with pytest.raises(InjectedFault, match=r"train\.step"):
        fault("train.step")
    fault("train.step")


def test_sleep_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLEARWAY_FAULT", "a.b=sleep:0.05")
    start = time.perf_counter()
    fault("a.b")
    assert time.perf_counter() - start >= 0.05


def test_an_unknown_action_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLEARWAY_FAULT", "a.b=explode")
    with pytest.raises(ConfigError, match="'explode' is unknown; allowed: kill, raise, stop, sleep:SECONDS"):
        fault("a.b")


def test_faults_are_refused_outside_the_local_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLEARWAY_FAULT", "a.b=kill")
    monkeypatch.setenv("CLEARWAY_ENV", "aws")
    with pytest.raises(ConfigError, match="outside the local environment"):
        fault("a.b")


def test_a_kill_runs_no_cleanup() -> None:
    script = (
        "import atexit; atexit.register(print, 'cleaned'); from clearway.infra.faults import fault; "
        "print('before', flush=True); fault('a.b'); print('after')"
    )
    variables = {**os.environ, "CLEARWAY_FAULT": "a.b=kill"}
    died = subprocess.run(
        [sys.executable, "-c", script], env=variables, capture_output=True, text=True, timeout=60, check=False
    )
    assert (died.returncode, died.stdout) == (-signal.SIGKILL, "before\n")


def test_a_stopped_process_goes_on_when_it_is_told_to() -> None:
    script = "from clearway.infra.faults import fault; fault('a.b'); print('after')"
    variables = {**os.environ, "CLEARWAY_FAULT": "a.b=stop"}
    with subprocess.Popen([sys.executable, "-c", script], env=variables, stdout=subprocess.PIPE, text=True) as process:
        while psutil.Process(process.pid).status() != psutil.STATUS_STOPPED:
            time.sleep(0.02)
        process.send_signal(signal.SIGCONT)
        assert process.communicate(timeout=60)[0] == "after\n"
