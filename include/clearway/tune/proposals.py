"""What a trial tries: Optuna's samplers and pruners, and two small ones of our own, over what the trial may know.

Every trial asks a study in memory that holds the trials it may know, in order, with a sampler seeded by its own number.
So nothing it decides depends on who else runs, and a trial begun again after a crash tries the same.
"""

import itertools
import math
import warnings
from collections.abc import Mapping, Sequence

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, NopPruner, SuccessiveHalvingPruner
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, Trial, TrialState

from clearway.product_tune import Range, Tune
from clearway.tune import cma_es
from clearway.tune.agenda import Pace
from clearway.tune.kinds import Settings

# Resource of pruners: percent of a whole trial. Reports come at each tenth (epochs) or at 11, 33 and 100 (rows), so the
# first rung is a tenth; a third of the trials go on at each. Source: Li et al. 2018, Hyperband, with eta 3.
FIRST_RUNG_PCT, WHOLE_PCT, REDUCTION = 10, 100, 3
# A median of fewer is noise, and so is a loss in the first fifth, while the learning rate still warms up.
MEDIAN_TRIALS, MEDIAN_WARMUP_PCT = 5, 20


def distributions(model: Settings, space: Mapping[str, Range]) -> dict[str, BaseDistribution]:
    """Optuna's names for the space, sorted."""
    return {name: _distribution(getattr(model, name), space[name]) for name in sorted(space)}


def _distribution(written: float, limits: Range) -> BaseDistribution:
    if isinstance(written, int):
        return IntDistribution(math.ceil(limits.low), math.floor(limits.high), log=limits.log, step=limits.step)
    return FloatDistribution(limits.low, limits.high, log=limits.log)


def view(known: Sequence[FrozenTrial], tune: Tune, *, seed: int) -> Study:
    """A study in memory of what a trial may know."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)  # of `multivariate`, once per sampler
        study = optuna.create_study(
            study_name="view",  # enters Hyperband's choice of a bracket
            sampler=_sampler(tune, seed),
            pruner=_pruner(tune),
            directions=[StudyDirection.MINIMIZE] * num_values(tune),
        )
    study.add_trials(known)
    return study


def num_values(tune: Tune) -> int:
    """Objectives: the loss, and the cost where one is asked for."""
    return 1 if tune.cost == "none" else 2


def proposed(
    study: Study, tune: Tune, *, model: Settings, pace: Pace, index: int, given: Mapping[str, float] | None
) -> Trial:
    """The next trial of a view, with its values chosen; `given`: of a seed."""
    space = distributions(model, tune.space)
    if given is None and tune.sampler == "grid":
        given = grid(space, tune.space, seed=model.seed)[index - pace.num_seeds]
    if given is None and tune.sampler == "cma_es":
        given = _evolved(study, space, model=model, pace=pace, index=index)
    if given is not None:
        study.enqueue_trial(dict(given))
    return study.ask(space)


def grid(space: Mapping[str, BaseDistribution], ranges: Mapping[str, Range], *, seed: int) -> list[dict[str, float]]:
    """Every combination once, shuffled: a budget that ends early has then seen all of the space, thinly."""
    points = [sorted({from_unit(space[n], u) for u in np.linspace(0, 1, ranges[n].num_points)}) for n in space]
    combined = [dict(zip(space, values, strict=True)) for values in itertools.product(*points)]
    return [combined[i] for i in np.random.default_rng(seed).permutation(len(combined))]


def to_unit(distribution: BaseDistribution, value: float) -> float:
    """Place of a value in its range, 0 to 1, on the scale it is searched on."""
    low, high, is_log = _limits(distribution)
    if is_log:
        low, high, value = math.log(low), math.log(high), math.log(value)
    return (value - low) / (high - low) if high > low else 0.0


def from_unit(distribution: BaseDistribution, place: float) -> float:
    """Inverse of `to_unit`, never outside the range; whole numbers are rounded, to a step where there are any."""
    low, high, is_log = _limits(distribution)
    value = math.exp(math.log(low) + place * math.log(high / low)) if is_log else low + place * (high - low)
    value = min(high, max(low, value))
    if not isinstance(distribution, IntDistribution):
        return value
    step = distribution.step
    return round(value) if step == 1 else round(low + round((value - low) / step) * step)


def _limits(distribution: BaseDistribution) -> tuple[float, float, bool]:
    assert isinstance(distribution, IntDistribution | FloatDistribution)
    return distribution.low, distribution.high, distribution.log


def _evolved(
    study: Study, space: Mapping[str, BaseDistribution], *, model: Settings, pace: Pace, index: int
) -> dict[str, float]:
    known = study.get_trials(deepcopy=False)[pace.num_seeds :]
    start = np.array([to_unit(space[name], getattr(model, name)) for name in space])
    state = cma_es.State.start(start)
    for first in range(0, len(known) - pace.population + 1, pace.population):
        generation = known[first : first + pace.population]
        points = [np.array([to_unit(space[name], t.params[name]) for name in space]) for t in generation]
        state = cma_es.advanced(state, points, [_value(t) for t in generation])
    drawn = cma_es.draw(state, seed=model.seed + index)
    return {name: from_unit(space[name], place) for name, place in zip(space, drawn.tolist(), strict=True)}


def _value(trial: FrozenTrial) -> float:
    return float(trial.values[0]) if trial.state is TrialState.COMPLETE else math.inf


def _sampler(tune: Tune, seed: int) -> BaseSampler:
    return TPESampler(seed=seed, multivariate=True) if tune.sampler == "tpe" else RandomSampler(seed=seed)


def _pruner(tune: Tune) -> BasePruner:
    match tune.pruner:
        case "none":
            return NopPruner()
        case "median":
            return MedianPruner(n_startup_trials=MEDIAN_TRIALS, n_warmup_steps=MEDIAN_WARMUP_PCT)
        case "successive_halving":
            return SuccessiveHalvingPruner(min_resource=FIRST_RUNG_PCT, reduction_factor=REDUCTION)
        case "hyperband":
            return HyperbandPruner(min_resource=FIRST_RUNG_PCT, max_resource=WHOLE_PCT, reduction_factor=REDUCTION)
