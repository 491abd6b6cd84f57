"""How a new version takes traffic: one file per strategy, each a stage of a plan for the state machine."""

import dataclasses

from clearway.contracts.rollout import Rollout, StepKind
from clearway.deploy.strategies import ab_test, blue_green, canary, shadow, watch
from clearway.product_rollout import Rollout as Settings

_STAGES = {
    "shadow": shadow.stage,
    "blue_green": blue_green.stage,
    "canary": canary.stage,
    "ab_test": ab_test.stage,
    "watch": watch.stage,
}


def begin(settings: Settings) -> Rollout:
    """The plan of a new rollout, frozen from here on. The stages that judge share alpha."""
    shared = settings.model_copy(update={"alpha": settings.alpha / max(1, settings.num_judging)})
    stages = [_STAGES[name](shared) for name in settings.chain]
    plan = tuple(step for stage in stages for step in stage.plan)
    if plan[-1].kind is StepKind.WATCH:  # it has the share that the stage before it ends with
        plan = (*plan[:-2], plan[-1])
    rules = {name: rule for stage in stages for name, rule in stage.rules.items()}
    return dataclasses.replace(stages[0], strategy=" → ".join(settings.chain), plan=plan, rules=rules)
