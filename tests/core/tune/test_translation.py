"""A study in SageMaker's words, and what is refused because it has none."""

import pytest

from clearway.contracts.errors import ConfigError
from clearway.product_tune import Range, Tune
from clearway.tune import translation
from clearway.tune.proposals import distributions
from tune_kit import MODEL, SPACE


def tune_of(**changes):
    return Tune(**({"num_trials": 10, "space": SPACE} | changes))


def test_ranges_keep_kind_limits_and_scale():
    found = translation.ranges_of(tune_of(), MODEL)
    assert found["IntegerParameterRanges"] == [
        {"Name": "num_bins", "MinValue": "2", "MaxValue": "16", "ScalingType": "Linear"}
    ]
    assert found["ContinuousParameterRanges"] == [
        {"Name": "dropout", "MinValue": "0.0", "MaxValue": "0.5", "ScalingType": "Linear"},
        {"Name": "lr", "MinValue": "0.001", "MaxValue": "0.1", "ScalingType": "Logarithmic"},
    ]
    assert found["CategoricalParameterRanges"] == []


def test_a_grid_is_its_points():
    grid = tune_of(sampler="grid", num_trials=25, space={"num_bins": SPACE["num_bins"], "lr": SPACE["lr"]})
    found = translation.ranges_of(grid, MODEL)
    values = {one["Name"]: one["Values"] for one in found["CategoricalParameterRanges"]}
    assert values["num_bins"] == ["2", "9", "16"]
    assert [float(text) for text in values["lr"]] == pytest.approx([0.001, 0.01, 0.1])
    assert found["IntegerParameterRanges"] == found["ContinuousParameterRanges"] == []
    assert translation.num_trials_there(grid, MODEL, num_left=9) == 0
    with pytest.raises(ConfigError, match=r"9 points and tune.num_trials leaves 8 for them"):
        translation.num_trials_there(grid, MODEL, num_left=8)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"sampler": "cma_es"}, "'cma_es' is none of its strategies; allowed: tpe, random, grid"),
        ({"pruner": "hyperband"}, "'hyperband' has no like there; allowed: none"),
        ({"cost": "multiply_adds"}, "'multiply_adds' is a second objective"),
        ({"num_trials": 26}, "set tune.refresh_every to 26 or more"),
        ({"space": {f"p{i}": Range(low=0, high=1) for i in range(31)}}, "31 parameters; allowed: 30"),
        ({"space": {"num_bins": Range(low=2, high=16, step=7)}}, "tune.space.num_bins has step 7"),
    ],
    ids=["sampler", "pruner", "cost", "windows", "parameters", "steps"],
)
def test_what_a_tuning_job_cannot_say_is_refused(changes, said):
    with pytest.raises(ConfigError, match="cannot do this study") as refused:
        translation.check(tune_of(**changes))
    assert said in str(refused.value)
    assert "CLEARWAY__AWS__SERVICES__TUNE=batch" in str(refused.value)


def test_too_many_points_of_one_parameter_are_refused():
    space = {"lr": Range(low=1e-3, high=0.1, num_points=31)}
    with pytest.raises(ConfigError, match=r"tune.space.lr has 31 points; allowed: 30"):
        translation.ranges_of(tune_of(sampler="grid", space=space), MODEL)


def test_steps_are_points_of_a_grid():
    grid = tune_of(sampler="grid", space={"num_bins": Range(low=2, high=16, step=7)})
    translation.check(grid)
    (one,) = translation.ranges_of(grid, MODEL)["CategoricalParameterRanges"]
    assert one == {"Name": "num_bins", "Values": ["2", "9", "16"]}


@pytest.mark.parametrize("sampler", ["tpe", "random", "grid"])
def test_what_it_can_say_is_not_refused(sampler):
    translation.check(tune_of(sampler=sampler, num_trials=25))
    assert translation.strategy_of(tune_of(sampler=sampler)) in {"Bayesian", "Random", "Grid"}


def test_values_come_back_as_the_numbers_they_are():
    space = distributions(MODEL, SPACE)
    told = {"lr": "0.012345678901234567", "num_bins": '"7"', "dropout": "0.25", "study": "s3://b/s"}
    found = translation.params_of(told, space)
    assert found == {"lr": 0.012345678901234567, "num_bins": 7, "dropout": 0.25}
    assert isinstance(found["num_bins"], int)
