"""The tune section of product.yaml: what does not fit together is refused where it is written."""

import pytest

from clearway.contracts.errors import ConfigError
from clearway.infra.environment import project_root
from clearway.product_yaml import parse_product

PATH = project_root() / "include" / "products" / "flights" / "product.yaml"
TEXT = PATH.read_text(encoding="utf-8")
SPACE = "space: {lr: {low: 0.001, high: 0.1, log: true}}"


def refused(*lines: str) -> str:
    with pytest.raises(ConfigError) as caught:
        parsed(*lines)
    return str(caught.value)


def parsed(*lines: str):
    section = "\ntune:\n" + "".join(f"  {line}\n" for line in lines)
    assert "\ntune:\n  num_trials: 0\n" in TEXT
    return parse_product(TEXT.replace("\ntune:\n  num_trials: 0\n", section).encode(), path=PATH).tune


def test_everything_that_can_be_said_is_read() -> None:
    found = parsed(
        "num_trials: 60", "sampler: cma_es", "pruner: hyperband", "fidelity: rows", "refresh_every: 20",
        "max_seconds: 3600", "max_money: 12.5", SPACE,
    )  # fmt: skip
    assert (found.sampler, found.pruner, found.fidelity, found.max_money) == ("cma_es", "hyperband", "rows", 12.5)


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (["num_trials: 5"], "space is empty; name a field of model"),
        (["num_trials: 5", "sampler: annealing", SPACE], "allowed: 'tpe', 'cma_es', 'grid' or 'random'"),
        (["num_trials: 5", "cost: multiply_adds", "pruner: median", SPACE], "compares one value and cost adds another"),
        (["num_trials: 5", "cost: multiply_adds", "sampler: cma_es", SPACE], "follows one value"),
        (["space: {lr: {low: 0.1, high: 0.001}}"], "low 0.1 must be less than high 0.001"),
        (["space: {dropout: {low: 0, high: 0.5, log: true}}"], "has no logarithm; allowed with log: above 0"),
        (["space: {rate: {low: 0.1, high: 0.2}}"], "'rate', which is no number of model; allowed: ['batch_size',"),
        (["space: {hidden: {low: 16, high: 64}}"], "'hidden', which is no number of model"),
        (["space: {seed: {low: 1, high: 9999}}"], "'seed', which is no number of model"),
        (["space: {lr: {low: 0.01, high: 0.1}}"], "model.lr is 0.006; the first trial is the model as written"),
        (["space: {num_bins: {low: 16, high: 1000}}"], "reaches 1000, which model refuses: Input should be less than"),
        (["refresh_every: 1"], "greater than or equal to 2"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_with_its_reason(lines: list[str], said: str) -> None:
    text = refused(*lines)
    assert said in text and f"{PATH}:" in text
