"""The part of product.yaml that says how a new version takes traffic."""

from typing import Annotated, Literal, Self

import pydantic

from clearway.contracts.rollout import ALL_TRAFFIC_PCT
from clearway.product_part import Part

Strategy = Literal["blue_green", "canary", "ab_test", "shadow", "watch"]
Fraction = Annotated[float, pydantic.Field(gt=0, lt=1)]


class Shadow(Part):
    """Mirrored requests before any caller is answered by the new version.

    `min_rows`: compared row by row before anything is decided; `margin`: mean difference of scores that is too much,
    either way, over all rows and within each of `slices` (column → values).
    """

    min_rows: int = pydantic.Field(1000, ge=1)
    margin: Fraction = 0.1
    slices: dict[str, Annotated[tuple[str, ...], pydantic.Field(min_length=1)]] = pydantic.Field(default_factory=dict)


class AbTest(Part):
    """Callers split by their sticky key, and a decision on what they report back (`/outcomes`, 0 to 1, larger better).

    `share_pct`: callers of the new version; `horizon_s`: how long outcomes are gathered at least; `margin`: loss in the
    mean outcome that is accepted; 0: the new version must be shown to be better.
    """

    share_pct: float = pydantic.Field(50.0, gt=0, lt=100)
    horizon_s: float = pydantic.Field(7 * 86_400.0, gt=0)
    margin: float = pydantic.Field(0.0, ge=0, lt=1)


class Watch(Part):
    """All callers, while the version before stays one switch away.

    `min_s`, `min_requests`: how long it lasts at least; `error_limit`, `slow_limit`: shares of failed and of slow
    answers that the service is allowed to have.
    """

    min_s: float = pydantic.Field(300.0, gt=0)
    min_requests: int = pydantic.Field(100, ge=1)
    error_limit: Fraction = 0.02
    slow_limit: Fraction = 0.05


class Rollout(Part):
    """How a new version takes traffic.

    `strategy`: one of `blue_green` (all at once), `canary` (share by share), `ab_test`; or a chain that has `shadow`
    before it, `watch` after it, or both: `[shadow, canary, watch]`.

    `steps_pct`: shares of `canary`. For every stage that gathers evidence: what a step asks for before the next
    (`min_requests` of the new version, `min_step_s`); when missing evidence becomes a question for a person
    (`max_step_s`) and silence a no (`hold_s`); `alpha`, the chance that a harmless version is ever taken back, shared
    by the stages of a chain; `beta`, the chance that one worse by a margin goes through; margins for the share of
    failed answers, of answers slower than `slow_s`, and for the mean score; `dry_run`: metrics that are shown and never
    decide.
    """

    strategy: Strategy | tuple[Strategy, ...] = "blue_green"
    steps_pct: tuple[Annotated[float, pydantic.Field(gt=0, le=100)], ...] = (1.0, 5.0, 25.0, 50.0, 100.0)
    min_requests: int = pydantic.Field(100, ge=1)
    min_step_s: float = pydantic.Field(10.0, ge=0)
    max_step_s: float = pydantic.Field(3600.0, gt=0)
    hold_s: float = pydantic.Field(86_400.0, ge=0)
    alpha: float = pydantic.Field(0.01, gt=0, lt=0.5)
    beta: float = pydantic.Field(0.05, gt=0, lt=0.5)
    error_margin: Fraction = 0.01
    slow_s: float = pydantic.Field(0.1, gt=0, le=10)
    slow_margin: Fraction = 0.02
    score_margin: Fraction = 0.05
    dry_run: tuple[Literal["errors", "slow", "score"], ...] = ("score",)
    shadow: Shadow = Shadow()
    ab_test: AbTest = AbTest()
    watch: Watch = Watch()

    @property
    def chain(self) -> tuple[Strategy, ...]:
        """The stages in order."""
        return (self.strategy,) if isinstance(self.strategy, str) else self.strategy

    @property
    def num_judging(self) -> int:
        """Stages that gather evidence; 0: a bad model is found by its proofs alone."""
        return sum(stage != "blue_green" for stage in self.chain)

    @pydantic.field_validator("steps_pct")
    @classmethod
    def _rises_to_all(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if not value or list(value) != sorted(set(value)) or value[-1] != ALL_TRAFFIC_PCT:
            raise ValueError(f"steps_pct {list(value)} must rise and end with 100")
        return value

    @pydantic.field_validator("dry_run")
    @classmethod
    def _something_decides(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if {"errors", "slow", "score"} <= set(value):
            raise ValueError("dry_run names every metric; at least one must decide")
        return value

    @pydantic.model_validator(mode="after")
    def _steps_can_end(self) -> Self:
        if self.min_step_s >= self.max_step_s:
            text = f"min_step_s {self.min_step_s:g} is not below max_step_s {self.max_step_s:g}"
            raise ValueError(f"{text}, so every step ends as a question for a person; lower the one or raise the other")
        return self

    @pydantic.model_validator(mode="after")
    def _is_a_chain(self) -> Self:
        chain = self.chain
        before, middle = chain[:1] == ("shadow",), [s for s in chain if s in {"blue_green", "canary", "ab_test"}]
        after = chain[-1:] == ("watch",)
        if len(middle) != 1 or len(chain) != before + len(middle) + after:
            text = "allowed: one of blue_green, canary, ab_test; shadow may come before it, watch after it"
            raise ValueError(f"strategy {list(chain)} is no chain; {text}")
        return self
