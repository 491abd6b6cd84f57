"""Each sampler and pruner proposes and ends by what a trial may know, and by nothing else."""

import itertools
import math

import pytest
from optuna.trial import TrialState, create_trial

from clearway.product import Model
from clearway.product_tune import Range, Tune
from clearway.tune.agenda import Pace
from clearway.tune.proposals import distributions, from_unit, grid, proposed, to_unit, view

MODEL = Model()
RANGES = {"lr": Range(low=1e-4, high=1e-1, log=True), "num_bins": Range(low=4, high=64)}
SPACE = distributions(MODEL, RANGES)
PACE = Pace(num_seeds=1, lag=1, population=6)


def tune(**changes) -> Tune:
    return Tune(**({"num_trials": 40, "space": RANGES} | changes))


def loss(params) -> float:
    return (math.log10(params["lr"]) + 2) ** 2 + (params["num_bins"] - 20) ** 2 / 400


def known(num_trials: int, asked: Tune):
    """Trials as a study of one worker would have made them."""
    found = []
    for index in range(num_trials):
        given = {"lr": 3e-3, "num_bins": 48} if index == 0 else None
        trial = proposed(view(found, asked, seed=index), asked, model=MODEL, pace=PACE, index=index, given=given)
        found.append(create_trial(values=[loss(trial.params)], params=trial.params, distributions=SPACE))
    return found


@pytest.mark.parametrize("sampler", ["tpe", "cma_es", "grid", "random"])
def test_a_proposal_follows_from_the_known_trials_and_its_number(sampler: str) -> None:
    asked = tune(sampler=sampler)
    assert [t.params for t in known(9, asked)] == [t.params for t in known(9, asked)]
    assert len({str(t.params) for t in known(9, asked)}) == 9


@pytest.mark.parametrize("sampler", ["tpe", "cma_es"])
def test_samplers_that_learn_end_closer_than_chance(sampler: str) -> None:
    late = [t.values[0] for t in known(40, tune(sampler=sampler))[25:]]
    chance = [t.values[0] for t in known(40, tune(sampler="random"))[25:]]
    assert sum(late) / len(late) < 0.5 * sum(chance) / len(chance)


def test_a_grid_holds_every_combination_once_in_a_shuffled_order() -> None:
    found = grid(SPACE, RANGES, seed=1)
    rounded = {(round(math.log10(p["lr"]), 6), p["num_bins"]) for p in found}
    assert rounded == set(itertools.product((-4, -2.5, -1), (4, 34, 64))) and len(found) == 9
    assert found != grid(SPACE, RANGES, seed=2)


@pytest.mark.parametrize("place", [0.0, 0.2, 0.5, 1.0])
def test_places_in_the_unit_cube_and_values_are_inverse(place: float) -> None:
    assert to_unit(SPACE["lr"], from_unit(SPACE["lr"], place)) == pytest.approx(place)
    assert isinstance(from_unit(SPACE["num_bins"], place), int)
    assert from_unit(SPACE["lr"], 1.0) <= 0.1


@pytest.mark.parametrize("pruner", ["median", "hyperband", "successive_halving"])
def test_a_pruner_ends_what_is_worse_and_lets_the_best_go_on(pruner: str) -> None:
    asked, earlier = tune(pruner=pruner), []
    for index, level in enumerate([0.5, 0.52, 0.54, 0.56, 0.58, 0.6, 0.62, 0.64, 0.66]):
        earlier.append(_curve(view(earlier, asked, seed=index), asked, index, level)[1])
    assert _curve(view(earlier, asked, seed=50), asked, 9, 0.45)[0] is None, "the best so far"
    pruned = [_curve(view(earlier, asked, seed=50 + i), asked, 9, 0.9)[0] for i in range(3)]
    assert any(pct is not None and pct < 100 for pct in pruned)


def _curve(study, asked: Tune, index: int, level: float):
    """Percent at which a trial that stays at `level` is ended (None: never), and the trial as a journal keeps it."""
    trial = proposed(study, asked, model=MODEL, pace=PACE, index=index, given=None)
    ended = None
    for pct in range(10, 100, 10):
        trial.report(level, pct)
        if trial.should_prune():
            ended = pct
            break
    frozen = study.get_trials(deepcopy=False)[-1]
    kept = create_trial(
        state=TrialState.COMPLETE if ended is None else TrialState.PRUNED,
        values=[level],
        params=frozen.params,
        distributions=frozen.distributions,
        system_attrs=frozen.system_attrs,
        intermediate_values=frozen.intermediate_values,
    )
    return ended, kept


def test_two_objectives_are_searched_together() -> None:
    asked, found = tune(cost="multiply_adds"), []
    for index in range(30):
        trial = proposed(view(found, asked, seed=index), asked, model=MODEL, pace=PACE, index=index, given=None)
        values = [loss(trial.params), float(trial.params["num_bins"])]
        found.append(create_trial(values=values, params=trial.params, distributions=SPACE))
    front = view(found, asked, seed=0).best_trials
    assert len(front) > 3 and min(t.values[0] for t in front) < 0.3
