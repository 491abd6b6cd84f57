"""Watch: all callers are the candidate's, the champion stays loaded one switch away, and objectives must hold."""

from clearway.contracts.codec import to_jsonable
from clearway.contracts.rollout import ALL_TRAFFIC_PCT, PlanStep, Rollout, StepKind
from clearway.evidence.engine import Kind
from clearway.evidence.slo import Objective, Rules
from clearway.product_rollout import Rollout as Settings


def stage(settings: Settings) -> Rollout:
    """The last step; the candidate is promoted when it has passed."""
    watch = settings.watch
    rules = Rules(
        alpha=settings.alpha,
        objectives=(
            Objective(kind=Kind.ERRORS, limit=watch.error_limit),
            Objective(kind=Kind.SLOW, limit=watch.slow_limit, above_s=settings.slow_s),
        ),
    )
    step = PlanStep(
        kind=StepKind.WATCH,
        weight_pct=ALL_TRAFFIC_PCT,
        min_requests=watch.min_requests,
        min_s=watch.min_s,
        max_s=watch.min_s + settings.max_step_s,
        hold_s=settings.hold_s,
    )
    return Rollout(strategy="watch", plan=(step,), rules={StepKind.WATCH.value: to_jsonable(rules)})
