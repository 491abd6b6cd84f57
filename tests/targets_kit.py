"""Who serves a product of an account, to be written down for other targets."""

from typing import Any

from clearway.contracts.release_document import Phase, ReleaseDocument, Version
from clearway.deploy.targets.standing import Standing, stand
from clearway.infra.environment import Environment

CHAMPION, CANDIDATE = "1" * 64, "2" * 64
IMAGE = "123456789012.dkr.ecr.us-east-1.amazonaws.com/clearway-serving@sha256:" + "a" * 64
SETTINGS = {
    "CLEARWAY_ENV": "aws",
    "CLEARWAY__STORAGE__ROOT": "s3://bucket/store",
    "CLEARWAY__AWS__SIGNING_SECRET": "clearway-key",
    "CLEARWAY__AWS__SUBNETS": "subnet-0123456789abcdef0 subnet-0123456789abcdef1",
    "CLEARWAY__AWS__SECURITY_GROUPS": "sg-0123456789abcdef0",
    "CLEARWAY__CONTAINERS__IMAGE": IMAGE,
    "CLEARWAY__CONTAINERS__ROLE": "arn:aws:iam::123456789012:role/clearway-serving",
    "CLEARWAY__CONTAINERS__EXECUTION_ROLE": "arn:aws:iam::123456789012:role/clearway-container",
    "CLEARWAY__CONTAINERS__CLUSTER": "models",
    "CLEARWAY__CONTAINERS__VPC": "vpc-0123456789abcdef0",
    "CLEARWAY__CONTAINERS__LISTENER": (
        "arn:aws:elasticloadbalancing:us-east-1:123456789012:listener/app/models/50dc6c495c0c9188/f2f7dc8efc522ab2"
    ),
    "CLEARWAY__CONTAINERS__GATEWAY": "edge/public",
    "CLEARWAY__CONTAINERS__HOST": "models.example.com",
}


def cloud(**changes: Any) -> Environment:
    """Settings of an account. `changes`: of section containers."""
    env = Environment.load(SETTINGS)
    return env.model_copy(update={"containers": env.containers.model_copy(update=changes)})


def version(digest: str) -> Version:
    return Version(uri=f"s3://bucket/store/seattle_rain/models/{digest}", digest=digest, release_id="r")


def document(weight_pct: float | None = None, *, phase: Phase = Phase.DEPLOYING) -> ReleaseDocument:
    """At rest, or with a candidate that has this share."""
    resting = ReleaseDocument(product="seattle_rain", champion=version(CHAMPION))
    if weight_pct is None:
        return resting
    return ReleaseDocument(
        product="seattle_rain",
        champion=version(CHAMPION),
        candidate=version(CANDIDATE),
        weight_pct=weight_pct,
        phase=phase,
    )


def standing(weight_pct: float | None = None, *, phase: Phase = Phase.DEPLOYING, **changes: Any) -> Standing:
    """Of that product in that account."""
    return stand(document(weight_pct, phase=phase), env=cloud(**changes), team="weather", needs=())
