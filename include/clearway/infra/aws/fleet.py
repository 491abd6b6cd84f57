"""One SageMaker endpoint as it is and as it shall be: variants, the models in them, their weights.

Nothing is believed because a call was accepted. An update is done when the endpoint has come to rest *and* runs the
configuration that was asked for with the models that were asked for: SageMaker may take the configuration before back,
and then says "InService" as if nothing had been asked.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from clearway.contracts.errors import ConfigError, IntegrityError, Unavailable
from clearway.contracts.manifest import canonical_json, sha256_of
from clearway.infra.aws import guardrail
from clearway.infra.aws.client import (
    MAX_ATTEMPTS,
    REFUSED,
    broke_off,
    client,
    code_of,
    complete,
    explained,
    is_refusal,
)
from clearway.infra.aws.container import DIGEST_VARIABLE, model_variables
from clearway.infra.clock import Clock
from clearway.infra.environment import SageMaker
from clearway.infra.faults import fault

IN_SERVICE = "InService"
# On its way somewhere: no call that changes it is taken, and what it is says little about what it will be.
MOVING = frozenset({"Creating", "Updating", "SystemUpdating", "RollingBack", "Deleting"})
_SERVING = frozenset({IN_SERVICE, "Updating", "SystemUpdating", "RollingBack", "UpdateRollbackFailed"})
WEIGHT_TOLERANCE = 1e-3  # of percent: SageMaker keeps weights as 32-bit floats


class RolledBack(IntegrityError):
    """The endpoint does not serve what it was told to: SageMaker took an update back, silently or not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """A production variant, or a shadow of one.

    `weight_pct`: of all callers, of a shadow: of their requests that it gets copies of; `count`: instances, 0 for what
    the settings say; `given`: variables of its container besides those that all have.
    """

    name: str
    digest: str
    uri: str = ""
    weight_pct: float = 0.0
    count: int = 0
    given: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Live:
    """What the endpoint is.

    `pending`: the configuration that an update under way leads to; `shadow`: who gets copies of requests; beside it
    there is one production variant.
    """

    status: str
    config: str
    variants: tuple[Variant, ...]
    reason: str = ""
    pending: str = ""
    shadow: Variant | None = None

    @property
    def is_moving(self) -> bool:
        return self.status in MOVING

    def holds(self, variant: str, digest: str) -> bool:
        """Whether that variant runs that model."""
        return any((v.name, v.digest) == (variant, digest) for v in self.variants)

    def copies_to(self, variant: str, digest: str) -> bool:
        """Whether that shadow variant runs that model."""
        return self.shadow is not None and (self.shadow.name, self.shadow.digest) == (variant, digest)

    @property
    def weights_pct(self) -> dict[str, float]:
        """Of each production variant."""
        return {variant.name: variant.weight_pct for variant in self.variants}


class Fleet:
    """Calls about one endpoint.

    Args:
        variables: what every container is given, besides its model.
        network: VpcConfig of the containers; empty for SageMaker's own network.
        capture_uri: folder in S3 for captured answers; "" for none.
    `on_wait` is called between two looks at an endpoint that moves.
    """

    def __init__(
        self,
        settings: SageMaker,
        *,
        variables: Mapping[str, str],
        network: Mapping[str, Any],
        tags: Mapping[str, str],
        capture_uri: str,
        clock: Clock,
    ) -> None:
        self._settings, self._variables, self._clock = settings, dict(variables), clock
        self._network = network
        self._capture_uri = capture_uri if settings.capture_pct else ""
        self._tags = [{"Key": key, "Value": value} for key, value in tags.items()]
        self._known: dict[str, tuple[tuple[str, str, int], ...]] = {}
        self._digests: dict[str, str] = {}
        self._refusal = ""  # SageMaker's last one
        self.on_wait: Callable[[], None] = lambda: None

    @property
    def name(self) -> str:
        return self._settings.endpoint

    def live(self) -> Live | None:
        """What the endpoint is now; None while there is none. Raises: Unavailable."""
        found = self._described(client("sagemaker").describe_endpoint, "EndpointStatus", EndpointName=self.name)
        if found is None:
            return None
        status, config = found["EndpointStatus"], found.get("EndpointConfigName", "")
        is_serving = status in _SERVING and bool(found.get("ProductionVariants"))
        placed = {name: (digest, count) for name, digest, count in self._placed(config)} if is_serving else {}
        shadows = found.get("ShadowProductionVariants", ()) if is_serving else ()
        return Live(
            status=status,
            config=config,
            variants=tuple(_seen(summary, placed) for summary in found["ProductionVariants"]) if is_serving else (),
            reason=found.get("FailureReason", ""),
            pending=found.get("PendingDeploymentSummary", {}).get("EndpointConfigName", ""),
            shadow=next((_seen(summary, placed) for summary in shadows), None),
        )

    def settled(self) -> Live | None:
        """What it is once it has come to rest. Raises: Unavailable if that takes too long, or it rests in ruins."""
        deadline_s = self._clock.now_s() + self._settings.update_timeout_s
        while (live := self.live()) is not None and live.is_moving:
            if self._clock.now_s() >= deadline_s:
                raise Unavailable(
                    f"endpoint {self.name} is {live.status} for more than {self._settings.update_timeout_s:g} s; look "
                    "at it, then run the task again: it goes on waiting"
                )
            self.on_wait()
            self._clock.sleep(self._settings.poll_s)
        if live is not None and live.status != IN_SERVICE:
            raise Unavailable(
                f"endpoint {self.name} is {live.status}: {live.reason or 'no reason given'}; nothing can change until "
                f"a person has repaired it, or deleted it (aws sagemaker delete-endpoint --endpoint-name {self.name})"
            )
        return live

    def become(self, variants: Sequence[Variant], *, shadow: Variant | None = None) -> Live:
        """Move to these variants, one of them where there is a shadow; whoever was killed meanwhile and asks again is
        told the same.

        Raises: RolledBack with SageMaker's reason; ConfigError for a name that is taken, or what guardrails ignore.
        """
        self._refusal, live = "", self.settled()
        self._check_ours(live)
        guardrail.check(
            self._settings,
            before=[v.name for v in (live.variants if live else variants)],
            after=[v.name for v in variants],
        )
        config = self._make_config(variants, shadow)
        for _ in range(MAX_ATTEMPTS):
            if live is not None and live.config == config:
                break
            fault("sagemaker.before_update")
            is_taken = self._order(live, config)
            fault("sagemaker.after_update")
            live = self._result(config, is_first=live is None) if is_taken else self.settled()
            if is_taken:
                break
        else:
            raise Unavailable(f"endpoint {self.name} refuses configuration {config}: {self._refusal}; retry")
        return self._verified(live, config, variants, shadow)

    def weigh(self, weights_pct: Mapping[str, float]) -> Live:
        """Give these shares to variants by their names, all others nothing. Raises: Unavailable with the reason."""
        self._refusal, live = "", self.settled()
        for _ in range(MAX_ATTEMPTS):
            if live is None:
                raise Unavailable(f"endpoint {self.name} is gone; run the reconciler, or release again")
            wanted = {variant.name: weights_pct.get(variant.name, 0.0) for variant in live.variants}
            if gone := sorted(set(weights_pct) - set(wanted)):
                raise Unavailable(
                    f"endpoint {self.name} went back by itself to configuration {live.config}, which is without {gone} "
                    f"({live.reason or 'no reason given'}); run the task again, it ends the release"
                )
            if is_close(live.weights_pct, wanted):
                return live
            fault("sagemaker.before_weights")
            is_taken = self._accepts(
                client("sagemaker").update_endpoint_weights_and_capacities,
                EndpointName=self.name,
                DesiredWeightsAndCapacities=[{"VariantName": n, "DesiredWeight": w} for n, w in wanted.items()],
            )
            fault("sagemaker.after_weights")
            live = self.settled()
            if is_taken:
                break
        if live is None or not is_close(live.weights_pct, wanted):
            why = (live.reason if live else "") or self._refusal or "no reason given"
            found = f"{live.weights_pct} ({why})" if live else "nothing"
            raise Unavailable(f"endpoint {self.name} was told weights {wanted} and has {found}; retry")
        return live

    def delete(self) -> None:
        """End the endpoint; models and configurations cost nothing and stay."""
        if self.settled() is not None:
            self._accepts(client("sagemaker").delete_endpoint, EndpointName=self.name)
            self.settled()

    def _result(self, config: str, *, is_first: bool) -> Live | None:
        """What an accepted order came to. A first endpoint that does not start is removed: nothing else is possible."""
        try:
            return self.settled()
        except Unavailable:
            live = self.live()
            if not is_first or live is None or live.status != "Failed":
                raise
            self._accepts(client("sagemaker").delete_endpoint, EndpointName=self.name)
            self.settled()
            raise RolledBack(
                f"endpoint {self.name} could not be created with {config}: {live.reason or 'no reason given'}; look at "
                f"the container's log, group /aws/sagemaker/Endpoints/{self.name}"
            ) from None

    def _verified(self, live: Live | None, config: str, variants: Sequence[Variant], shadow: Variant | None) -> Live:
        self._known.clear()  # a model that was made anew under its old name must not pass
        self._digests.clear()
        live, wrong = (self.live() if live else None), "it is gone"
        if live is not None:
            missing = [v for v in variants if not live.holds(v.name, v.digest)]
            if shadow is not None and not live.copies_to(shadow.name, shadow.digest):
                missing.append(shadow)
            if live.config == config and not missing:
                return live
            wrong = f"it is {live.status} with configuration {live.config}"
            if live.config == config:
                there = [*live.variants, *([live.shadow] if live.shadow else [])]
                models = {v.name: v.digest[:12] or "a stranger" for v in there}
                wrong += f", whose variants run {models}, not {missing[0].digest[:12]} in {missing[0].name}"
            wrong += f"; SageMaker's reason: {live.reason or 'none given'}"
        raise RolledBack(
            f"endpoint {self.name} was told configuration {config} and the update was taken back: {wrong}; look at the "
            f"alarms and at the container's log, group /aws/sagemaker/Endpoints/{self.name}, then release again"
        )

    def _order(self, live: Live | None, config: str) -> bool:
        sagemaker, names = client("sagemaker"), {"EndpointName": self.name, "EndpointConfigName": config}
        if live is None:
            return self._accepts(sagemaker.create_endpoint, pending=config, **names, Tags=self._tags)
        shifting = guardrail.deployment_config(self._settings)
        return self._accepts(
            sagemaker.update_endpoint, pending=config, **names, **({"DeploymentConfig": shifting} if shifting else {})
        )

    def _accepts(self, call: Callable[..., Any], *, pending: str = "", **asked: Any) -> bool:
        """Whether the order stands. One that is refused may have been taken a moment before, its answer lost."""
        from botocore import exceptions as botocore  # noqa: PLC0415

        with explained(f"endpoint {self.name}"):
            try:
                call(**asked)
            except botocore.ClientError as error:
                self._check_quota(error)
                if not is_refusal(error):
                    raise
                self._refusal, now = str(error), self.live()
                return now is not None and bool(pending) and pending in {now.pending, now.config}
        return True

    def _make_config(self, variants: Sequence[Variant], shadow: Variant | None) -> str:
        """Models and configuration of these variants; their names follow from what is in them."""
        asked: dict[str, Any] = {"ProductionVariants": [self._as_asked(variant) for variant in variants]}
        if shadow is not None:
            asked["ShadowProductionVariants"] = [self._as_asked(shadow)]
        if self._capture_uri:
            modes = ["Output"] if shadow is None else ["Input", "Output"]  # answers are paired by what was asked
            asked["DataCaptureConfig"] = {
                "EnableCapture": True,
                "InitialSamplingPercentage": self._settings.capture_pct if shadow is None else 100,
                "DestinationS3Uri": self._capture_uri,
                "CaptureOptions": [{"CaptureMode": mode} for mode in modes],
                "CaptureContentTypeHeader": {"JsonContentTypes": ["application/json"]},
            }
        name = f"clearway-{sha256_of(canonical_json({'endpoint': self.name, **asked}))[:40]}"
        self._create(client("sagemaker").create_endpoint_config, EndpointConfigName=name, **asked, Tags=self._tags)
        wanted = [*variants, *([shadow] if shadow else [])]
        if self._placed(name) != tuple((v.name, v.digest, v.count or self._settings.instance_count) for v in wanted):
            raise ConfigError(
                f"endpoint configuration {name} exists and holds something else; it is not ours, delete or rename it"
            )
        return name

    def _as_asked(self, variant: Variant) -> dict[str, Any]:
        return {
            "VariantName": variant.name,
            "ModelName": self._make_model(variant),
            "InitialInstanceCount": variant.count or self._settings.instance_count,
            "InstanceType": self._settings.instance,
            "InitialVariantWeight": variant.weight_pct,
        }

    def _make_model(self, variant: Variant) -> str:
        if not variant.uri:
            raise ConfigError(
                f"variant {variant.name} runs {variant.digest}, of which no address is known; load it again"
            )
        settings = self._settings
        given = {**self._variables, **model_variables(variant.uri, variant.digest), **dict(variant.given)}
        container = {"Image": settings.image, "Environment": given}
        made_of = canonical_json({"container": container, "role": settings.role, **self._network})
        name = f"clearway-{variant.digest[:24]}-{sha256_of(made_of)[:16]}"
        self._create(
            client("sagemaker").create_model,
            ModelName=name,
            PrimaryContainer=container,
            ExecutionRoleArn=settings.role,
            **self._network,
            Tags=self._tags,
        )
        if self._digest(name) != variant.digest:
            raise ConfigError(f"model {name} exists and is not {variant.digest}; it is not ours, delete or rename it")
        return name

    def _create(self, call: Callable[..., Any], **asked: Any) -> None:
        """Names follow from contents, so one that is taken was made by us; what it holds is looked at afterwards."""
        from botocore import exceptions as botocore  # noqa: PLC0415

        with explained(f"endpoint {self.name}"):
            try:
                call(**{key: value for key, value in asked.items() if value != []})
            except botocore.ClientError as error:
                self._check_quota(error)
                if not is_refusal(error, "exist"):
                    raise

    def _check_quota(self, error: Exception) -> None:
        if code_of(error) == "ResourceLimitExceeded":
            raise Unavailable(f"endpoint {self.name}: {error}; have the quota raised, then retry") from error

    def _check_ours(self, live: Live | None) -> None:
        there = [*live.variants, *([live.shadow] if live.shadow else [])] if live else []
        strangers = [v.name for v in there if not v.digest]
        if strangers:
            raise ConfigError(
                f"endpoint {self.name} exists and its variants {strangers} run models that are not ours; take another "
                "name as sagemaker.endpoint, or delete it"
            )

    def _placed(self, config: str) -> tuple[tuple[str, str, int], ...]:
        """Variant, digest of its model and number of instances, of a shadow last; a configuration never changes."""
        if config not in self._known:
            found = self._described(
                client("sagemaker").describe_endpoint_config, "ProductionVariants", EndpointConfigName=config
            )
            if found is None:
                return ()
            self._known[config] = tuple(
                (v["VariantName"], self._digest(v["ModelName"]), int(v.get("InitialInstanceCount", 0)))
                for v in (*found["ProductionVariants"], *found.get("ShadowProductionVariants", ()))
            )
        return self._known[config]

    def _digest(self, model: str) -> str:
        """Of the package that a model serves; "" for a model that is not ours, or gone."""
        if model not in self._digests:
            found = self._described(client("sagemaker").describe_model, "ModelArn", ModelName=model)
            if found is None:
                return ""
            self._digests[model] = found.get("PrimaryContainer", {}).get("Environment", {}).get(DIGEST_VARIABLE, "")
        return self._digests[model]

    def _described(self, call: Callable[..., Any], key: str, **asked: Any) -> dict[str, Any] | None:
        from botocore import exceptions as botocore  # noqa: PLC0415

        with explained(f"endpoint {self.name}"):
            for _ in range(MAX_ATTEMPTS):
                try:
                    return complete(call, key, **asked)
                except botocore.ClientError as error:
                    if code_of(error) == REFUSED and "Could not find" in str(error):
                        return None
                    if not broke_off(error):
                        raise
        raise Unavailable(f"SageMaker answered {MAX_ATTEMPTS} times in part about endpoint {self.name}; try again")


def _seen(summary: Mapping[str, Any], placed: Mapping[str, tuple[str, int]]) -> Variant:
    """One variant as the endpoint describes it. `placed`: digest and instances of each, by the configuration."""
    digest, count = placed.get(summary["VariantName"], ("", 0))
    return Variant(
        name=summary["VariantName"],
        digest=digest,
        weight_pct=float(summary.get("CurrentWeight", 0.0)),
        count=int(summary.get("DesiredInstanceCount", count)),
    )


def is_close(one: Mapping[str, float], other: Mapping[str, float]) -> bool:
    """Whether two tables give everybody the same share; a share of nothing may be left out."""
    names = {*one, *other}
    return all(abs(one.get(name, 0.0) - other.get(name, 0.0)) <= WEIGHT_TOLERANCE for name in names)
