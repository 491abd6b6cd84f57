"""Tags on all that is made by a call, for the bill: Cost Explorer groups what is spent by them."""

import re

from clearway.infra.environment import Environment

TEAM, PRODUCT, ENVIRONMENT = "clearway:team", "clearway:product", "clearway:environment"
RELEASE, STAGE, JOB = "clearway:release", "clearway:stage", "clearway:job"
MAX_VALUE = 256
_FOREIGN = re.compile(r"[^A-Za-z0-9 _.:/=+@-]")  # what all of our services take


def tags_of(
    env: Environment, *, team: str = "", product: str = "", release: str = "", stage: str = "", job: str = ""
) -> dict[str, str]:
    """The account's own tags and ours; what is not known has none."""
    ours = {TEAM: team, PRODUCT: product, ENVIRONMENT: env.name, RELEASE: release, STAGE: stage, JOB: job}
    return env.aws.tags | {name: _FOREIGN.sub("-", value)[:MAX_VALUE] for name, value in ours.items() if value}


def tagged(env: Environment, *, team: str, product: str, release: str, stage: str) -> Environment:
    """`env` of a process that does this and nothing else: what it makes carries these tags."""
    if env.endpoint.kind != "sagemaker" and not env.aws.model_registry:  # all else that stages make lies in the store
        return env
    tags = tags_of(env, team=team, product=product, release=release, stage=stage)
    return env.model_copy(update={"aws": env.aws.model_copy(update={"tags": tags})})
