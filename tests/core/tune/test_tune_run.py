"""A small study on a small product: resumable, never worse than what was written, skipped where none is asked for."""

import json
import subprocess
import sys

import pytest

from clearway.contracts.errors import IntegrityError
from clearway.infra.storage import to_path
from clearway.product_tune import Range, Tune
from clearway.train.produce import settings_of
from clearway.tune.run import run
from clearway.tune.spec import Inputs
from training_kit import STORAGE, TINY, World, make_world

SPACE = {
    "lr": Range(low=1e-4, high=0.1, log=True),
    "num_bins": Range(low=2, high=16),
    "dropout": Range(low=0, high=0.5),
}


def inputs_of(world: World) -> Inputs:
    given = world.inputs()
    return Inputs(product="flights", release_id="r1", dataset=given.dataset, receipt_uri=given.receipt_uri)


def searching(env, flights, num_trials: int) -> World:
    slow = TINY.model_copy(update={"lr": 1e-3})  # far too small for 30 steps: there is something to find
    return make_world(env, flights, model=slow, tune=Tune(num_trials=num_trials, max_rows=1200, space=SPACE))


def test_no_study_asked_for_is_no_work(world: World):
    code = """
import sys, json
from clearway.tune import run
assert not {"torch", "optuna", "pandas", "mlflow"} & set(sys.modules), "heavy import"
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
    outputs = run(inputs_of(world), product=world.product, env=world.env)
    assert (outputs.num_trials, outputs.params) == (0, {})
    assert not STORAGE.list(world.layout.release("r1"))


def test_no_study_without_a_receipt(world: World):
    to_path(world.inputs().receipt_uri).unlink()
    with pytest.raises(IntegrityError, match="receipt"):
        run(inputs_of(world), product=world.product, env=world.env)


@pytest.mark.slow
def test_a_study_finds_parameters_that_training_accepts(env, flights):
    world = searching(env, flights, num_trials=6)
    outputs = run(inputs_of(world), product=world.product, env=env)
    assert outputs.num_trials == 6
    assert set(outputs.params) == set(SPACE)
    settings = settings_of(world.product, outputs.params)
    assert settings.lr > 2e-3
    assert run(inputs_of(world), product=world.product, env=env) == outputs


@pytest.mark.slow
def test_a_killed_study_goes_on_and_ends_with_the_same_number_of_trials(env, flights):
    world = searching(env, flights, num_trials=5)
    killed = world.run_in_child(inputs_of(world), "tune", CLEARWAY_FAULT="tune.after_trial=kill@2")
    assert killed.returncode == -9, killed.stderr[-2000:]
    done = world.run_in_child(inputs_of(world), "tune")
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(done.stdout)["num_trials"] == 5
    assert "3 of 5 trials to go" in done.stderr
    assert "4 of 5" not in done.stderr
