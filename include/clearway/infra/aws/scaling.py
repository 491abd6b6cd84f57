"""Instances of an endpoint's variants, as many as their callers need: target tracking by Application Auto Scaling.

A variant is put under it once it is there, and taken out before it goes: SageMaker refuses to remove a variant that is
still scaled.
"""

from collections.abc import Iterable

from clearway.infra.aws.client import client, excused, explained
from clearway.infra.environment import SageMaker

NAMESPACE, DIMENSION = "sagemaker", "sagemaker:variant:DesiredInstanceCount"
METRIC = "SageMakerVariantInvocationsPerInstance"  # per minute
SCALE_OUT_S, SCALE_IN_S = 60, 300  # a machine takes minutes to come, so none goes at once
_UNKNOWN = "ObjectNotFoundException"


class Scaling:
    """Of one endpoint. Every call may be repeated, and does nothing where the settings ask for none."""

    def __init__(self, settings: SageMaker) -> None:
        self._settings = settings

    def put(self, variants: Iterable[str]) -> None:
        """Scale these, which are there. Raises: ConfigError, Unavailable."""
        settings = self._settings
        for variant in variants if settings.max_count else ():
            about = self._about(variant)
            with explained(f"scaling of {variant} of endpoint {settings.endpoint}"):
                client("application-autoscaling").register_scalable_target(
                    **about, MinCapacity=settings.instance_count, MaxCapacity=settings.max_count
                )
                client("application-autoscaling").put_scaling_policy(
                    **about,
                    PolicyName=f"{settings.endpoint}-{variant}",
                    PolicyType="TargetTrackingScaling",
                    TargetTrackingScalingPolicyConfiguration={
                        "TargetValue": settings.calls_per_minute,
                        "PredefinedMetricSpecification": {"PredefinedMetricType": METRIC},
                        "ScaleOutCooldown": SCALE_OUT_S,
                        "ScaleInCooldown": SCALE_IN_S,
                    },
                )

    def drop(self, variant: str) -> None:
        """Scale it no more; one that is not scaled is left alone. Raises: ConfigError, Unavailable."""
        if not self._settings.max_count:
            return
        with explained(f"scaling of {variant} of endpoint {self._settings.endpoint}"), excused(_UNKNOWN):
            client("application-autoscaling").deregister_scalable_target(**self._about(variant))

    def _about(self, variant: str) -> dict[str, str]:
        return {
            "ServiceNamespace": NAMESPACE,
            "ScalableDimension": DIMENSION,
            "ResourceId": f"endpoint/{self._settings.endpoint}/variant/{variant}",
        }
