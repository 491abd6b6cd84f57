"""Canary: share by share, each kept until the evidence beside the champion lets it go on."""

from clearway.contracts.codec import to_jsonable
from clearway.contracts.rollout import ALL_TRAFFIC_PCT, PlanStep, Rollout, StepKind
from clearway.evidence.engine import Kind, Metric, Rules
from clearway.product_rollout import Rollout as Settings


def stage(settings: Settings) -> Rollout:
    """Every share but the last asks for evidence; with all traffic there is no control left to compare with."""
    return Rollout(
        strategy="canary",
        plan=tuple(_step(settings, share) for share in settings.steps_pct),
        rules={StepKind.SPLIT.value: to_jsonable(rules_of(settings))},
    )


def rules_of(settings: Settings) -> Rules:
    """What the evidence is judged by."""
    num_judged = sum(share != ALL_TRAFFIC_PCT for share in settings.steps_pct)
    return Rules(alpha=settings.alpha, beta=settings.beta, num_steps=max(1, num_judged), metrics=metrics_of(settings))


def metrics_of(settings: Settings) -> tuple[Metric, ...]:
    """What is compared beside the champion, whatever decides in the end."""
    margins = {
        Kind.ERRORS: settings.error_margin,
        Kind.SLOW: settings.slow_margin,
        Kind.SCORE: settings.score_margin,
    }
    return tuple(
        Metric(
            kind=kind,
            margin=margin,
            above_s=settings.slow_s if kind is Kind.SLOW else 0.0,
            is_decisive=kind.value not in settings.dry_run,
        )
        for kind, margin in margins.items()
    )


def _step(settings: Settings, share: float) -> PlanStep:
    if share == ALL_TRAFFIC_PCT:
        return PlanStep(weight_pct=share)
    return PlanStep(
        weight_pct=share,
        min_requests=settings.min_requests,
        min_s=settings.min_step_s,
        max_s=settings.max_step_s,
        hold_s=settings.hold_s,
    )
