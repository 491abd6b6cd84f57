"""Shadow: the candidate scores copies of the champion's requests, unheard; row by row, over all rows and per slice."""

from clearway.contracts.codec import to_jsonable
from clearway.contracts.rollout import PlanStep, Rollout, StepKind
from clearway.evidence.shadow import ALL, Direction, Group, Rules
from clearway.product_rollout import Rollout as Settings


def stage(settings: Settings) -> Rollout:
    """One step in which no caller meets the candidate."""
    slices = [f"{column}={value}" for column, values in settings.shadow.slices.items() for value in values]
    rules = Rules(
        alpha=settings.alpha,
        beta=settings.beta,
        direction=Direction.SHIFTED,
        margin=settings.shadow.margin,
        groups=tuple(Group(name=name) for name in (ALL, *slices)),
    )
    mirror = PlanStep(
        kind=StepKind.MIRROR,
        weight_pct=0.0,
        min_requests=settings.shadow.min_rows,
        min_s=settings.min_step_s,
        max_s=settings.max_step_s,
        hold_s=settings.hold_s,
    )
    return Rollout(strategy="shadow", plan=(mirror,), rules={StepKind.MIRROR.value: to_jsonable(rules)})
