"""A stage process killed without warning, then run again, ends where an undisturbed one ends."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from forked_kit import run_code

PRODUCTS = Path(__file__).parents[2] / "products"
COMMAND = "import runpy, sys; sys.argv[1:] = {words}; runpy.run_module('clearway', run_name='__main__', alter_sys=True)"


def stage(
    name: str, home: Path, inputs: dict[str, Any], *, fault: str = "", is_new: bool = False
) -> tuple[int, dict[str, Any]]:
    """Exit code and outputs of `python -m clearway <stage>`: in a new interpreter, or as a job of a warm worker."""
    variables = {
        **os.environ,
        "CLEARWAY__HOME": str(home),
        "CLEARWAY__PRODUCTS": str(PRODUCTS),
        "CLEARWAY_FAULT": fault,
    }
    words = [name, "--json", "--inputs", json.dumps(inputs)]
    if is_new:
        command = [sys.executable, "-m", "clearway", *words]
        done = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=120, check=False)
    else:
        done = run_code(COMMAND.format(words=words), "", variables=variables)
    return done.returncode, json.loads(done.stdout) if done.returncode == 0 else {}


def both_stages(home: Path, *, fault: str, is_new: bool = False) -> str:
    """Digest of the dataset; a stage that dies is started again, as a scheduler would."""
    inputs: dict[str, Any] = {"product": "seattle_rain", "release_id": "r"}
    died = 0
    for name in ("ingest", "preprocess"):
        extra = {"start": "2012-01-01", "end": "2012-04-01"} if name == "ingest" else {"start": "2012-01-01"}
        code, outputs = stage(name, home, {**inputs, **extra}, fault=fault, is_new=is_new)
        if code == -signal.SIGKILL:
            died += 1
            code, outputs = stage(name, home, {**inputs, **extra})
        assert code == 0
        if name == "ingest":
            inputs["raw"] = outputs["raw"]
    assert died == bool(fault)
    digest: str = outputs["dataset"]["digest"]
    return digest


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Any:
    home = tmp_path_factory.mktemp("undisturbed")
    # A dataset names content, never places: every home gives the same digest.
    return both_stages(home, fault="", is_new=True)


@pytest.mark.slow
@pytest.mark.parametrize(
    "fault",
    [
        "ingest.before_seal=kill@2",
        "ingest.after_ledger=kill@2",
        "preprocess.after_job=kill",
        "preprocess.after_seal=kill@2",
    ],
)
def test_killed_and_run_again_gives_the_undisturbed_digest(undisturbed: str, tmp_path: Path, fault: str) -> None:
    assert both_stages(tmp_path / "home", fault=fault) == undisturbed
