"""A/B test: callers stay with their version, and what becomes of its answers decides once the horizon has passed.

Errors and slow answers are watched beside the champion meanwhile, as in a canary: harm ends the test at any time.
"""

from clearway.contracts.codec import to_jsonable
from clearway.contracts.rollout import ALL_TRAFFIC_PCT, PlanStep, Rollout, StepKind
from clearway.deploy.strategies.canary import metrics_of
from clearway.evidence.engine import Kind, Metric, Rules
from clearway.product_rollout import Rollout as Settings


def stage(settings: Settings) -> Rollout:
    """One split; outcomes decide, and a test they leave open at `horizon_s` + `max_step_s` becomes a person's."""
    test = settings.ab_test
    outcome = Metric(kind=Kind.OUTCOME, margin=test.margin)
    rules = Rules(alpha=settings.alpha, beta=settings.beta, num_steps=1, metrics=(outcome, *metrics_of(settings)))
    split = PlanStep(
        weight_pct=test.share_pct,
        min_requests=settings.min_requests,
        min_s=test.horizon_s,
        max_s=test.horizon_s + settings.max_step_s,
        hold_s=settings.hold_s,
    )
    return Rollout(
        strategy="ab_test",
        plan=(split, PlanStep(weight_pct=ALL_TRAFFIC_PCT)),
        rules={StepKind.SPLIT.value: to_jsonable(rules)},
    )
