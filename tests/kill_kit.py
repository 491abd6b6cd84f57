"""Kill a stage at a named fault point, then run it again, as a scheduler would. For tests of what is left behind."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from clearway.contracts.codec import to_jsonable
from clearway.infra.environment import Environment
from clearway.infra.storage import open_storage
from clearway.product import LoadedProduct
from forked_kit import run_code
from training_kit import CHILD

STAGES = Path(__file__).parents[1] / "include" / "clearway"
TIMEOUT_S = 240
LIGHT = ("approve",)  # quicker as a new interpreter than its first fork is


def points_of(stage: str) -> list[str]:
    """Fault points in a stage's own source, so that a new one is killed as soon as it exists."""
    sources = (file.read_text(encoding="utf-8") for file in sorted((STAGES / stage).glob("*.py")))
    return [point for source in sources for point in re.findall(r'\bfault\("([a-z_.]+)"\)', source)]


def run_child(
    stage: str, inputs: Any, *, product: LoadedProduct, env: Environment, fault: str = ""
) -> subprocess.CompletedProcess[str]:
    """The stage in a process of its own; `fault` as in clearway.infra.faults."""
    message = {
        "env": env.model_dump(mode="json"),
        "product": product.model_dump(mode="json", by_alias=True),
        "inputs": to_jsonable(inputs),
    }
    code, text, variables = CHILD.format(stage=stage), json.dumps(message), os.environ | {"CLEARWAY_FAULT": fault}
    if stage not in LIGHT:
        return run_code(code, text, variables=variables)
    command = [sys.executable, "-c", code]
    return subprocess.run(
        command, input=text, env=variables, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )


def killed_then_again(
    stage: str, inputs: Any, *, product: LoadedProduct, env: Environment, fault: str
) -> dict[str, Any]:
    """Outputs of the retry. The first attempt must have died at the fault, or nothing was tested."""
    killed = run_child(stage, inputs, product=product, env=env, fault=fault)
    assert killed.returncode == -signal.SIGKILL, f"{fault} was never reached: {killed.stderr[-2000:]}"
    done = run_child(stage, inputs, product=product, env=env)
    assert done.returncode == 0, done.stderr[-2000:]
    outputs: dict[str, Any] = json.loads(done.stdout)
    return outputs


def contents(env: Environment, folder: str, *, but: Callable[[str], bool] = lambda _: False) -> Mapping[str, bytes]:
    """Every file below `folder` but those whose name is excused, by address."""
    storage = open_storage(env.store_root)
    return {uri: storage.read(uri) for uri in storage.list(folder) if not but(uri)}
