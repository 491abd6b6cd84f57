"""Small studies on a small product: as one calm process, as workers, and with somebody who kills them at random."""

import json
import os
import random
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from optuna.trial import FrozenTrial, TrialState

import language_kit
from clearway.contracts.codec import to_jsonable
from clearway.infra.environment import Environment
from clearway.infra.storage import to_path
from clearway.product import LoadedProduct, Model
from clearway.product_language import Language
from clearway.product_tune import Range, Tune
from clearway.tune.agenda import Kind, Task
from clearway.tune.brief import Brief, read_brief
from clearway.tune.journal import Journal
from clearway.tune.spec import Inputs
from clearway.tune.study import prepared
from clearway.tune.worker import work
from forked_kit import run_code
from training_kit import TINY, World, make_rows, make_world

SPACE = {
    "lr": Range(low=1e-3, high=0.1, log=True),
    "num_bins": Range(low=2, high=16),
    "dropout": Range(low=0, high=0.5),
}
# As written, the learning rate is far too small for this few steps: there is something to find.
MODEL = TINY.model_copy(update={"lr": 1.1e-3, "num_epochs": 2})
SPACE_OF_TEXTS = {
    "lr": Range(low=1e-4, high=0.1, log=True),
    "num_layers": Range(low=1, high=2),
    "dim": Range(low=16, high=48, step=16),
    "batch_size": Range(low=4, high=16, step=4),
}
READER = language_kit.TINY.model_copy(update={"lr": 2e-4, "num_epochs": 2})
WORKER = "clearway.tune.worker"
TIMEOUT_S = 300
STAGE_SHARE = 1 / 6  # of the kills, that hit the whole stage
CHILD = """
import json, logging, sys
from pathlib import Path
from clearway.contracts.codec import from_jsonable
from clearway.infra.environment import Environment
from clearway.product import LoadedProduct
from clearway.tune.spec import Inputs
from clearway.tune.study import search
logging.basicConfig(level=logging.INFO)
message = json.load(sys.stdin)
product, env = LoadedProduct.model_validate(message["product"]), Environment.model_validate(message["env"])
found = search(from_jsonable(Inputs, message["inputs"]), product=product, env=env, folder=Path(message["folder"]))
json.dump({"params": found.params, "num_trials": len(found.trials), "num_deaths": found.num_deaths}, sys.stdout)
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """What a call of `search` needs, in a folder of its own."""

    inputs: Inputs
    product: LoadedProduct
    env: Environment
    folder: Path

    def calmly(self) -> dict[int, FrozenTrial]:
        """All of it in this process, one task after another; what ended, by task."""
        prepared(self.inputs, product=self.product, env=self.env, folder=self.folder)
        work(self.folder)
        return self.ended()

    def ended(self) -> dict[int, FrozenTrial]:
        return Journal(self.folder).ended()

    def brief(self) -> Brief:
        return read_brief(self.folder)

    def tasks(self) -> tuple[Task, ...]:
        return self.brief().tasks()

    def beside(self, name: str) -> "Study":
        """The same study in another folder."""
        return Study(inputs=self.inputs, product=self.product, env=self.env, folder=self.folder.with_name(name))

    def run(self, **variables: str) -> "subprocess.CompletedProcess[str]":
        """`search` as a process of its own, to its end."""
        return run_code(CHILD, self._message(), variables=os.environ | variables)

    def start(self) -> "subprocess.Popen[str]":
        """`search` as a new interpreter."""
        with (self.folder.parent / f"{self.folder.name}.log").open("a") as log:
            child = subprocess.Popen(
                [sys.executable, "-c", CHILD],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        assert child.stdin is not None
        child.stdin.write(self._message())
        child.stdin.close()
        child.stdin = None
        return child

    def _message(self) -> str:
        message = {
            "env": self.env.model_dump(mode="json"),
            "product": self.product.model_dump(mode="json", by_alias=True),
            "inputs": to_jsonable(self.inputs),
            "folder": str(self.folder),
        }
        return json.dumps(message)

    def log(self) -> str:
        return (self.folder.parent / f"{self.folder.name}.log").read_text()


def make_study(
    env: Environment,
    flights: LoadedProduct,
    *,
    num_workers: int = 1,
    num_rows: int = 2000,
    model: Model = MODEL,
    **tune: Any,
) -> Study:
    """A study of a few short trials, with these changes to the product's `tune` section."""
    asked = Tune(**({"num_trials": 4, "max_rows": 600, "space": SPACE} | tune))
    env = _with_workers(env, num_workers)
    return _of(make_world(env, flights, rows=make_rows(num_rows), model=model, tune=asked))


def make_study_of_texts(env: Environment, *, model: Language = READER, **tune: Any) -> Study:
    """The same for a model that reads text."""
    asked = Tune(**({"num_trials": 4, "max_rows": 150, "space": SPACE_OF_TEXTS} | tune))
    one = _with_workers(env, 1, num_threads=1)
    return _of(language_kit.make_world(one, model=model, tune=asked))


def _with_workers(env: Environment, number: int, **others: Any) -> Environment:
    return env.model_copy(update={"jobs": env.jobs.model_copy(update={"num_tune_workers": number} | others)})


def _of(world: World) -> Study:
    given = world.inputs()
    inputs = Inputs(product=given.product, release_id="r1", dataset=given.dataset, receipt_uri=given.receipt_uri)
    folder = to_path(world.layout.release("r1", "tune", "study"))
    folder.mkdir(parents=True)
    return Study(inputs=inputs, product=world.product, env=world.env, folder=folder)


def told(ended: dict[int, FrozenTrial]) -> dict[int, tuple[TrialState, dict[str, Any], Any, dict[int, float]]]:
    """What may not depend on who ran it, when, or who was killed: state, values tried, losses, curve."""
    return {number: (e.state, e.params, e.values, e.intermediate_values) for number, e in sorted(ended.items())}


def trials_of(study: Study) -> list[FrozenTrial]:
    """New trials, in order."""
    ended = study.ended()
    return [ended[t.number] for t in study.tasks() if t.kind is Kind.TRIAL]


@dataclass(frozen=True, slots=True, kw_only=True)
class Struck:
    """How often a worker and the whole stage were killed, and what the last attempt said."""

    workers: int
    stages: int
    said: dict[str, Any]


def run_under_fire(study: Study, *, seed: int, num_kills: int) -> Struck:
    """Start the stage again until it ends, with this many kills on the way: mostly of a worker, at times of the stage.

    Each comes a random moment after one to three more tasks were begun, so it strikes workers at work on any machine.
    """
    rng = random.Random(seed)  # noqa: S311 - moments, not secrets
    workers, stages, target = 0, 0, rng.randint(1, 3)
    begun_s, child = time.monotonic(), study.start()
    while child.poll() is None:
        assert time.monotonic() - begun_s < TIMEOUT_S, study.log()[-3000:]
        time.sleep(0.01)
        if workers + stages == num_kills or _num_begun(study.folder) < target:
            continue
        time.sleep(rng.uniform(0, 0.3))
        if rng.random() < STAGE_SHARE:
            child.kill()
            child.communicate()
            child, stages = study.start(), stages + 1
        elif alive := _workers_of(child):
            rng.choice(alive).kill()
            workers += 1
        else:
            continue  # those at work have ended, the next are not there yet
        target = _num_begun(study.folder) + rng.randint(1, 3)
    said, _ = child.communicate()
    assert child.returncode == 0, study.log()[-3000:]
    return Struck(workers=workers, stages=stages, said=json.loads(said))


def _num_begun(folder: Path) -> int:
    """Attempts at tasks so far: a byte each."""
    return sum(file.stat().st_size for file in (folder / "tasks").glob("*.lock"))


def _workers_of(child: "subprocess.Popen[str]") -> list[psutil.Process]:
    found = []
    for process in psutil.Process(child.pid).children():
        try:
            if WORKER in process.cmdline():
                found.append(process)
        except psutil.Error:
            continue  # it ended meanwhile
    return found
