"""The part of product.yaml that says how better model parameters are searched."""

import math
from typing import Literal, Self

import pydantic

from clearway.product_part import Part

# Numbers of the model section that a study must not search: luck is no parameter, checkpoints decide nothing, and how
# long a text may be is for callers.
UNSEARCHED = frozenset({"seed", "checkpoint_s", "max_text_bytes"})


class Range(Part):
    """A search range for one field of the model section; `log` samples its exponent; `step`: of a whole number, only
    `low`, `low + step` and so on to `high`; `num_points` of it on a grid, ends included.

    Three points: the fewest that show a bend.
    """

    low: float
    high: float
    log: bool = False
    step: int = pydantic.Field(1, ge=1)
    num_points: int = pydantic.Field(3, ge=1, le=100)

    @pydantic.model_validator(mode="after")
    def _rises(self) -> Self:
        if not self.low < self.high:
            raise ValueError(f"low {self.low} must be less than high {self.high}")
        if self.log and self.low <= 0:
            raise ValueError(f"low {self.low} has no logarithm; allowed with log: above 0")
        if self.step > 1 and (self.log or self.nearest(self.high) != self.high):
            raise ValueError(f"step {self.step} does not lead from low {self.low} to high {self.high}, or beside log")
        return self

    def nearest(self, value: float) -> float:
        """The value of the range that is nearest."""
        inside = min(self.high, max(self.low, value))
        return inside if self.step == 1 else self.low + round((inside - self.low) / self.step) * self.step


class Tune(Part):
    """An Optuna study before training; `num_trials: 0` skips it and uses `model` as written.

    `max_rows`: newest training rows a trial uses. `sampler`, `pruner`: what is tried next, and which trials end early;
    `fidelity`: what a trial starts small on where there is a pruner, `epochs` of one training or `rows` (a ninth, a
    third, all). `cost`: a second objective, the multiply-adds of one row, or of one byte of text; then the cheapest
    model is chosen whose loss (log-loss in nats, or bits per byte) is within `slack` of the best. `refresh_every`:
    trials judged on one validation window before the next is taken. `max_seconds`, `max_money`: no trial starts after
    so much; 0 is no limit.

    Sources: multivariate TPE is Optuna's advice for related parameters (Falkner et al. 2018). A pruner pays where
    trials are long; most studies here last minutes. Slack: the smallest difference the gates care about. The best of k
    equal models looks sqrt(2 ln k) standard errors better than it is: 2.5 at 25, and not much less with fewer trials.
    """

    num_trials: int = pydantic.Field(0, ge=0, le=1000)
    max_rows: int = pydantic.Field(40_000, ge=1)
    space: dict[str, Range] = pydantic.Field(default_factory=dict)
    sampler: Literal["tpe", "cma_es", "grid", "random"] = "tpe"
    pruner: Literal["none", "median", "hyperband", "successive_halving"] = "none"
    fidelity: Literal["epochs", "rows"] = "epochs"
    cost: Literal["none", "multiply_adds"] = "none"
    slack: float = pydantic.Field(0.001, ge=0)
    refresh_every: int = pydantic.Field(25, ge=2)
    max_seconds: float = pydantic.Field(0.0, ge=0)
    max_money: float = pydantic.Field(0.0, ge=0)

    @pydantic.model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.num_trials and not self.space:
            raise ValueError(f"num_trials is {self.num_trials} and space is empty; name a field of model, or ask for 0")
        if self.cost != "none" and self.pruner != "none":
            raise ValueError(f"pruner {self.pruner!r} compares one value and cost adds another; drop one of them")
        if self.cost != "none" and self.sampler == "cma_es":
            raise ValueError("sampler 'cma_es' follows one value and cost adds another; allowed: tpe, grid, random")
        return self


def check_space(tune: Tune, model: Part) -> None:
    """Whether every range belongs to a number of `model`, holds its value, and ends where `model` accepts it.

    Raises: ValueError.
    """
    written = {name: value for name, value in model if _is_number(value) and name not in UNSEARCHED}
    for name, limits in tune.space.items():
        if name not in written:
            raise ValueError(f"tune.space names {name!r}, which is no number of model; allowed: {sorted(written)}")
        if not limits.low <= written[name] <= limits.high:
            raise ValueError(
                f"tune.space.{name} goes from {limits.low} to {limits.high} and model.{name} is {written[name]}; the "
                "first trial is the model as written, so widen the range or write another value"
            )
        is_whole = isinstance(written[name], int)
        if limits.step > 1 and not (is_whole and limits.nearest(written[name]) == written[name]):
            raise ValueError(
                f"tune.space.{name} goes from {limits.low} in steps of {limits.step} and model.{name} is "
                f"{written[name]}; the model as written, a whole number, must be one of them"
            )
        for end in (math.ceil(limits.low), math.floor(limits.high)) if is_whole else (limits.low, limits.high):
            try:
                type(model).model_validate(model.model_dump() | {name: end})
            except pydantic.ValidationError as error:
                raise ValueError(
                    f"tune.space.{name} reaches {end}, which model refuses: {error.errors()[0]['msg']}"
                ) from error


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
