"""A study killed anywhere ends with the parameters of an undisturbed one."""

import shutil
from pathlib import Path

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from clearway.infra.environment import Environment
from clearway.infra.storage import to_path
from clearway.product import LoadedProduct, Range, Tune
from clearway.tune.run import run
from clearway.tune.spec import Inputs
from kill_kit import killed_then_again
from training_kit import TINY, make_world

pytestmark = pytest.mark.slow
NUM_TRIALS = 4
SPACE = {"lr": Range(low=1e-3, high=0.1, log=True), "num_bins": Range(low=2, high=16)}
FAULTS = (
    "tune.inside_trial=kill",  # the one that tries product.yaml as written
    "tune.inside_trial=kill@3",
    "tune.after_trial=kill@1",
    "tune.after_trial=kill@2",
    f"tune.after_trial=kill@{NUM_TRIALS}",
    "storage.before_rename=kill",
)


@pytest.mark.parametrize("fault", FAULTS)
def test_killed_and_run_again_finds_the_undisturbed_parameters(
    env: Environment, flights: LoadedProduct, fault: str
) -> None:
    # As written, the learning rate is far too small for this few steps: there is something to find.
    slow = TINY.model_copy(update={"lr": 1.1e-3, "num_epochs": 2})
    world = make_world(env, flights, model=slow, tune=Tune(num_trials=NUM_TRIALS, max_rows=600, space=SPACE))
    given = world.inputs()
    inputs = Inputs(product="flights", release_id="r1", dataset=given.dataset, receipt_uri=given.receipt_uri)
    calm = run(inputs, product=world.product, env=env)
    assert set(calm.params) == set(SPACE), "a study that finds nothing compares nothing"
    folder = to_path(world.layout.release("r1", "tune"))
    tried = _tried(folder)
    shutil.rmtree(folder)
    again = killed_then_again("tune", inputs, product=world.product, env=env, fault=fault)
    assert (again["num_trials"], again["params"], again["reason"]) == (NUM_TRIALS, calm.params, calm.reason)
    assert _tried(folder) == tried


def _tried(folder: Path) -> list[tuple[dict[str, float], float | None]]:
    """Parameters and value of every judged trial, in order."""
    (journal,) = folder.rglob("journal.log")
    study = optuna.load_study(study_name="tune", storage=JournalStorage(JournalFileBackend(str(journal))))
    return [(t.params, t.value) for t in study.get_trials(states=(TrialState.COMPLETE,))]
