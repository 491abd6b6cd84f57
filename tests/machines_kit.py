"""The machines of one training: processes that know of each other what SageMaker tells them, forked from one that has
loaded torch."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clearway.contracts.codec import to_jsonable
from clearway.infra.environment import Storage
from clearway.packaging.signing import KEY_BYTES, install
from forked_kit import run_code
from serving_kit import free_port
from training_kit import World

# Forks a process per machine and waits for all; `lose` kills one with all that it started, once a file is there.
MACHINES = """
import json, os, pathlib, signal, sys, time
from clearway.contracts.codec import from_jsonable, to_jsonable
from clearway.infra.environment import Environment
from clearway.product import LoadedProduct
from clearway.train import run as stage
from clearway.train.machines import place_of
from clearway.train.spec import Inputs

def machine(message, env):
    inputs, place = from_jsonable(Inputs, message["inputs"]), place_of(env.training)
    product = LoadedProduct.model_validate(message["product"])
    if place is None or place.is_first:
        return to_jsonable(stage.run(inputs, product=product, env=env))
    return stage.assist(inputs, product=product, env=env, place=place)

message, children = json.load(sys.stdin), {}
for number, about in enumerate(message["machines"]):
    child = os.fork()
    if child == 0:
        os.setsid()
        os.environ.update(about["variables"])
        import logging
        logging.basicConfig(level=logging.INFO)
        result, begun = {}, time.monotonic()
        try:
            result["outputs"] = machine(message, Environment.model_validate(about["env"]))
        except BaseException as error:
            result["error"] = f"{type(error).__name__}: {error}"
        result["took_s"] = time.monotonic() - begun
        pathlib.Path(about["result"]).write_text(json.dumps(result))
        os._exit(1 if "error" in result else 0)
    children[child] = number
lose = message["lose"]
if lose is not None:
    while not list(pathlib.Path(lose["below"]).rglob(lose["file"])):
        time.sleep(0.01)
    os.killpg(next(pid for pid, number in children.items() if number == lose["machine"]), signal.SIGKILL)
for child in children:
    os.waitpid(child, 0)
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """How one machine ended. `home`: its own folder."""

    outputs: dict[str, Any] | None
    error: str
    home: Path
    is_lost: bool


def train_on(
    world: World,
    tmp_path: Path,
    *,
    count: int,
    variables: dict[int, dict[str, str]] | None = None,
    lose: dict[str, Any] | None = None,
    own: dict[int, dict[str, Any]] | None = None,
    params: dict[str, float] | None = None,
    release: str = "r1",
    **training: Any,
) -> tuple[list[Machine], str]:
    """Train on `count` machines; how each ended, and what they logged.

    `training`: settings of all; `own`: of one, by its number, as `variables`.
    """
    install(b"k" * KEY_BYTES, key_folder=world.env.home / "keys")
    port, names = free_port(), [f"127.0.0.{number + 1}" for number in range(count)]
    machines = []
    for number, name in enumerate(names):
        home = tmp_path / name
        home.mkdir(exist_ok=True)
        hosts = home / "resourceconfig.json"
        hosts.write_text(json.dumps({"current_host": name, "hosts": names, "network_interface_name": "lo"}))
        asked = {"hosts": str(hosts), "port": port, "join_timeout_s": 120.0} | training | (own or {}).get(number, {})
        update: dict[str, Any] = {"training": world.env.training.model_copy(update=asked)}
        if number:  # folders of its own; store and key are those of all
            install(b"k" * KEY_BYTES, key_folder=home / "keys")
            update |= {"home": home, "storage": Storage(root=world.env.store_root)}
        machines.append(
            {
                "env": world.env.model_copy(update=update).model_dump(mode="json"),
                "variables": (variables or {}).get(number, {}),
                "result": str(home / "result.json"),
            }
        )
        (home / "result.json").unlink(missing_ok=True)
    message = {
        "inputs": to_jsonable(world.inputs(release, **(params or {}))),
        "product": world.product.model_dump(mode="json", by_alias=True),
        "machines": machines,
        "lose": lose,
    }
    done = run_code(MACHINES, json.dumps(message), variables=os.environ)
    return [_ended(tmp_path / name) for name in names], done.stderr


def _ended(home: Path) -> Machine:
    path = home / "result.json"
    if not path.exists():
        return Machine(outputs=None, error="", home=home, is_lost=True)
    found = json.loads(path.read_text(encoding="utf-8"))
    return Machine(outputs=found.get("outputs"), error=found.get("error", ""), home=home, is_lost=False)
