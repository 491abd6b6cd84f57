"""A study in the words of SageMaker's tuning jobs, as far as they can say it: pure functions."""

from collections.abc import Mapping
from typing import Any

from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution

from clearway.contracts.errors import ConfigError
from clearway.product_tune import Tune
from clearway.tune.kinds import Settings
from clearway.tune.proposals import distributions, grid

STRATEGIES = {"tpe": "Bayesian", "random": "Random", "grid": "Grid"}
# Limits of the service's model: parameters of a kind, and values of one that is searched point by point.
MAX_RANGES, MAX_VALUES = 30, 30
_INSTEAD = "or leave the study to Optuna: CLEARWAY__AWS__SERVICES__TUNE=batch"


def check(tune: Tune) -> None:
    """Raises: ConfigError for what a tuning job cannot be asked."""
    if tune.sampler not in STRATEGIES:
        raise _refused(f"tune.sampler {tune.sampler!r} is none of its strategies", f"allowed: {', '.join(STRATEGIES)}")
    if tune.pruner != "none":
        raise _refused(f"tune.pruner {tune.pruner!r} has no like there", "allowed: none")
    if tune.cost != "none":
        raise _refused(f"tune.cost {tune.cost!r} is a second objective, and it has one", "allowed: none")
    if tune.num_trials > tune.refresh_every:
        raise _refused(
            f"tune.refresh_every {tune.refresh_every} changes the days that judge among {tune.num_trials} trials, and "
            "all trials of one job are judged alike",
            f"set tune.refresh_every to {tune.num_trials} or more",
        )
    stepped = sorted(name for name, limits in tune.space.items() if limits.step > 1)
    if stepped and tune.sampler != "grid":
        raise _refused(
            f"tune.space.{stepped[0]} has step {tune.space[stepped[0]].step}, and its ranges have every whole number",
            "allowed: step 1, or tune.sampler grid",
        )
    if len(tune.space) > MAX_RANGES:
        raise _refused(f"tune.space has {len(tune.space)} parameters", f"allowed: {MAX_RANGES}")


def strategy_of(tune: Tune) -> str:
    return STRATEGIES[tune.sampler]


def num_trials_there(tune: Tune, model: Settings, *, num_left: int) -> int:
    """Trials to ask for; 0 where the points of a grid count themselves.

    Raises: ConfigError for a grid that would have to be cut short, which a tuning job cannot be.
    """
    if tune.sampler != "grid":
        return num_left
    points = len(grid(distributions(model, tune.space), tune.space, seed=model.seed))
    if points > num_left:
        raise _refused(
            f"tune.space has {points} points and tune.num_trials leaves {num_left} for them",
            "a grid is tried as a whole",
        )
    return 0


def ranges_of(tune: Tune, model: Settings) -> dict[str, list[dict[str, Any]]]:
    """Ranges of the space. Raises: ConfigError for a parameter with too many points."""
    whole, real, listed = list[dict[str, Any]](), list[dict[str, Any]](), list[dict[str, Any]]()
    for name, found in distributions(model, tune.space).items():
        if tune.sampler == "grid":
            listed.append({"Name": name, "Values": _points(tune, name, found)})
            continue
        assert isinstance(found, IntDistribution | FloatDistribution)
        scale = "Logarithmic" if found.log else "Linear"
        limits = {"Name": name, "MinValue": repr(found.low), "MaxValue": repr(found.high), "ScalingType": scale}
        (whole if isinstance(found, IntDistribution) else real).append(limits)
    return {"IntegerParameterRanges": whole, "ContinuousParameterRanges": real, "CategoricalParameterRanges": listed}


def params_of(texts: Mapping[str, str], space: Mapping[str, BaseDistribution]) -> dict[str, float]:
    """A trial's values as numbers; what else SageMaker tells a trial is left out."""
    return {name: _number(texts[name], found) for name, found in space.items()}


def _number(text: str, found: BaseDistribution) -> float:
    value = float(text.strip('"'))
    return round(value) if isinstance(found, IntDistribution) else value


def _points(tune: Tune, name: str, found: BaseDistribution) -> list[str]:
    points = sorted({point[name] for point in grid({name: found}, tune.space, seed=0)})
    if len(points) > MAX_VALUES:
        raise _refused(f"tune.space.{name} has {len(points)} points", f"allowed: {MAX_VALUES}")
    return [repr(point) for point in points]


def _refused(what: str, allowed: str) -> ConfigError:
    return ConfigError(f"a tuning job of SageMaker cannot do this study: {what}; {allowed}; {_INSTEAD}")
