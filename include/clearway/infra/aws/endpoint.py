"""A SageMaker endpoint as an Endpoint: one production variant per loaded version, weights as shares of traffic.

Every variant is a container that serves one package (`clearway.serve.sagemaker`). Loading and unloading move the
endpoint to another configuration, which takes minutes; shares are weights of the variants.
"""

import dataclasses
import json
import logging
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from clearway.contracts.errors import ConfigError, StaleWriter, Unavailable
from clearway.contracts.observed import Mirrored, Observed
from clearway.infra.aws import guardrail
from clearway.infra.aws.client import MAX_ATTEMPTS, client, code_of, explained
from clearway.infra.aws.container import variables_of
from clearway.infra.aws.endpoint_control import Control, ControlLog, Held
from clearway.infra.aws.endpoint_metrics import LATENCY_BOUNDS_S, EndpointMetrics
from clearway.infra.aws.fleet import Fleet, Live, RolledBack, Variant, is_close
from clearway.infra.aws.scaling import Scaling
from clearway.infra.aws.services import network_of
from clearway.infra.clock import Clock, SystemClock
from clearway.infra.endpoint import DeadMan, LoggedRows, Mirror, TrafficState
from clearway.infra.environment import PREFIX, Environment
from clearway.infra.faults import fault
from clearway.infra.storage import join, open_storage

log = logging.getLogger("clearway.endpoint")

# What our container does besides answering, told in SageMaker's custom attributes: the only words that reach it.
AS_PROBE, AS_EXAMPLES, AS_LOGGED = "clearway=probe", "clearway=examples", "clearway=logged"
ALL_PCT = 100.0
MAX_VARIANTS = 10  # of one configuration
HOME = "/tmp/clearway"  # noqa: S108 - inside a container that serves one model
BEATS_PER_TIMER = 5  # signs of life written within one dead-man's time
_NAME = re.compile(r"[a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}", re.ASCII)
_DIGEST = re.compile(r"[0-9a-f]{64}", re.ASCII)
_SERVER_ERROR = 500


def open_sagemaker(env: Environment, *, product: str, clock: Clock | None = None) -> "SageMakerEndpoint":
    """The endpoint of a product. Raises: ConfigError naming the settings that are missing."""
    settings = env.sagemaker.of(product)
    absent = [name for name in ("endpoint", "image", "role") if not getattr(settings, name)]
    if absent:
        raise ConfigError(
            f"settings {', '.join(f'sagemaker.{name}' for name in absent)} are empty; fill them in conf/aws.yaml or as "
            f"{PREFIX}SAGEMAKER__… variables"
        )
    if not _NAME.fullmatch(settings.endpoint):
        raise ConfigError(
            f"sagemaker.endpoint {settings.endpoint!r} is no name; allowed: up to 63 letters, digits and single hyphens"
        )
    if env.release_store.lease_ttl_s <= settings.update_timeout_s:
        raise ConfigError(
            f"release_store.lease_ttl_s is {env.release_store.lease_ttl_s:g}, an update of the endpoint may take "
            f"{settings.update_timeout_s:g} s (sagemaker.update_timeout_s); give the lease more, or a second driver "
            "would take over while the first one waits"
        )
    named = env.model_copy(update={"sagemaker": settings})
    return SageMakerEndpoint(named, product=product, clock=clock or SystemClock())


class SageMakerEndpoint:
    """One endpoint of one product. What it cannot do as the local one does: docs/decisions/0019."""

    def __init__(self, env: Environment, *, product: str, clock: Clock) -> None:
        settings, self._clock, self._product = env.sagemaker, clock, product
        self._settings, self._storage = settings, open_storage(env.store_root)
        self._root = env.store_root
        home = join(env.store_root, "endpoints", settings.endpoint)
        capture_uri = join(env.store_root, "endpoints", "captured") if settings.capture_pct else ""
        self._log = ControlLog(self._storage, home)
        self._fleet = Fleet(
            settings,
            variables=variables_of(env, home=HOME),
            network=network_of(env.aws),
            tags=env.aws.tags,
            capture_uri=capture_uri,
            clock=clock,
        )
        self._scaling = Scaling(settings)
        self._metrics = EndpointMetrics(
            settings.endpoint, storage=self._storage, capture_uri=capture_uri, delay_s=settings.metrics_delay_s
        )
        self._heard = (-1, -math.inf)  # epoch and time of the last sign of life that was written

    def load(self, *, uri: str, digest: str, epoch: int) -> None:
        control = self._changing(epoch)
        live = self._fleet.settled()
        if not (digest in control.held and live and live.holds(control.held[digest].variant, digest)):
            self._check_address(uri, digest)
            control = self._log.change(epoch, lambda c: self._with_room(c, live, uri=uri, digest=digest))
            fault("sagemaker.before_load")
            live = self._fleet.become(self._variants(control, live, held=[*_served(control, live), digest]))
        fault("sagemaker.before_scaling")
        self._scaling.put(control.held[d].variant for d in _served(control, live))
        self._log.change(epoch, lambda c: _marked(c, digest, is_served=True))

    def unload(self, digest: str, *, epoch: int) -> None:
        control = self._changing(epoch)
        live = self._fleet.settled()
        if digest in self._weights(control, live):
            raise ConfigError(f"version {digest} is in the traffic table; move the traffic before unloading it")
        rest = [d for d in _served(control, live) if d != digest]
        if digest in control.held:
            self._scaling.drop(control.held[digest].variant)
            fault("sagemaker.after_scaling")
        if digest in _served(control, live):
            control = self._log.change(epoch, lambda c: _marked(c, digest, is_served=False))  # nobody took it back
            try:
                if rest:
                    self._fleet.become(self._variants(control, live, held=rest))
                else:
                    self._fleet.delete()
            except RolledBack as error:
                raise Unavailable(f"version {digest} stays loaded: {error}") from error
        fault("sagemaker.before_forget")
        self._log.change(epoch, lambda c: dataclasses.replace(c, held=_without(c.held, digest)))

    def set_weights(
        self,
        weights_pct: dict[str, float],
        *,
        epoch: int,
        dead_man: DeadMan | None = None,
        mirror: Mirror | None = None,
    ) -> None:
        _check_table(weights_pct)
        control = self._changing(epoch)
        live = self._fleet.settled()
        loaded = _served(control, live)
        for digest in sorted({*weights_pct, *([dead_man.stable] if dead_man else [])} - set(loaded)):
            raise ConfigError(f"version {digest[:80]!r} is not loaded; loaded: {sorted(loaded)}; load it first")
        if mirror is not None:
            raise ConfigError(
                f"version {mirror.digest} cannot be given copies of requests on SageMaker; leave strategy shadow out"
            )
        table, armed_s = dict(weights_pct), self._clock.now_s()
        control = self._log.change(
            epoch, lambda c: dataclasses.replace(c, weights_pct=table, dead_man=dead_man, armed_s=armed_s)
        )
        self._fleet.on_wait = lambda: self._hear(control)
        if live is not None:
            self._fleet.weigh({control.held[d].variant: weight for d, weight in weights_pct.items()})
        self._hear(control)

    def observe(self, *, epoch: int) -> Observed:
        control = self._changing(epoch)
        self._hear(control)
        live = self._fleet.live()
        held = {d: control.held[d] for d in _served(control, live)}
        counted = self._metrics.read(held, now_s=self._clock.now_s())
        self._hear(control)  # a throttled question may have taken longer than the dead-man's time
        marks = ",".join(f"{digest[:12]}@{v.variant}@{v.since_s:.0f}" for digest, v in sorted(held.items()))
        return Observed(
            server_id=f"{self._settings.endpoint}@{counted.begin_s}:{marks}",  # a version loaded anew is counted anew
            at_s=counted.at_s,
            epoch=control.epoch,
            latency_bounds_s=LATENCY_BOUNDS_S,
            arms=counted.arms,
        )

    def mirrored(self, *, first: int, epoch: int) -> Mirrored:
        """Nothing is ever mirrored here: `set_weights` refuses it."""
        control = self._changing(epoch)
        self._hear(control)
        at_s = self._clock.now_s()
        return Mirrored(log_id="", first=first, at_s=at_s, epoch=control.epoch, candidate="", control="", rows=())

    def state(self) -> TrafficState:
        control, live = self._log.read(), self._fleet.live()
        if self._is_dead_man_due(control) and live is not None and not live.is_moving:
            control, live = self._obey_dead_man(control, live)
        served = _served(control, live)
        is_at_rest = live is None or not live.is_moving
        lost = [d for d, version in control.held.items() if version.is_served and d not in served]
        return TrafficState(
            weights_pct=self._weights(control, live),
            loaded=tuple(served),
            epoch=control.epoch,
            dead_man=control.dead_man.stable if control.dead_man else None,
            broken={digest: _taken_back(live) for digest in lost} if is_at_rest else {},
        )

    def predict(self, rows: list[dict[str, Any]], *, digest: str | None = None) -> tuple[list[float], str]:
        if digest is None and not self.state().weights_pct:
            raise Unavailable(f"nothing takes traffic at endpoint {self._settings.endpoint}; release a model first")
        variant = self._variant_of(digest) if digest is not None else ""
        answer = self._invoke({"instances": rows}, AS_PROBE, variant=variant)
        return list(answer["predictions"]), str(answer["model_digest"])

    def examples(self, digest: str) -> list[dict[str, Any]]:
        return list(self._invoke({}, AS_EXAMPLES, variant=self._variant_of(digest))["instances"])

    def score_logged(self, batch: LoggedRows) -> tuple[list[float], str]:
        answer = self._invoke(batch.body(), AS_LOGGED)
        return list(answer["predictions"]), str(answer["model_digest"])

    def flush_log(self) -> None:
        """Nothing to do: a container answers `score_logged` once the rows are in the store, and other callers' rows
        follow within seconds."""

    def _changing(self, epoch: int) -> Control:
        """The newest state, with every older epoch shut out. Raises: StaleWriter, ConfigError for another product's."""
        control = self._log.change(epoch, self._checked)
        self._fleet.on_wait = lambda: self._hear(control)
        return control

    def _checked(self, control: Control) -> Control:
        """Two products whose settings name one endpoint would take each other's traffic."""
        others = {_product_of(version.uri) for version in control.held.values()} - {self._product}
        if others:
            raise ConfigError(
                f"endpoint {self._settings.endpoint} serves {', '.join(sorted(others))}, {self._product} was meant; "
                f"give each product one: {PREFIX}SAGEMAKER__ENDPOINT=clearway-{{product}}"
            )
        return control

    def _with_room(self, control: Control, live: Live | None, *, uri: str, digest: str) -> Control:
        """With a variant of its own for this version; what an earlier update left unserved is forgotten."""
        held = {d: control.held[d] for d in _served(control, live)}
        taken = {version.variant for version in held.values()}
        num = guardrail.NUM_VARIANTS if self._settings.shifting else MAX_VARIANTS
        free = [name for i in range(1, num + 1) if (name := f"variant-{i}") not in taken]
        if not free:
            raise Unavailable(
                f"all {num} variants of endpoint {self._settings.endpoint} hold versions ({sorted(held)}); run the "
                "reconciler, which unloads what nobody needs, then retry"
            )
        begun = control.held.get(digest)
        if begun is not None and begun.variant in free and not begun.is_served:
            return dataclasses.replace(control, held={**held, digest: begun})  # killed on the way: the same order again
        made = Held(uri=uri, variant=free[0], since_s=self._clock.now_s())
        return dataclasses.replace(control, held={**held, digest: made})

    def _variants(self, control: Control, live: Live | None, *, held: Iterable[str]) -> list[Variant]:
        """What the endpoint shall be with these versions: shares and instances as they are, newcomers with no share."""
        now = {variant.name: variant for variant in live.variants} if live else {}
        found = {}
        for digest in held:
            version = control.held[digest]
            is_there = version.variant in now and now[version.variant].digest == digest
            known = now[version.variant] if is_there else Variant(name=version.variant, digest=digest)
            found[version.variant] = dataclasses.replace(known, uri=version.uri)
        if self._settings.shifting:  # guardrails ask for the same names before and after: the rest are stand-ins
            first = next(iter(found.values()))
            for i in range(1, guardrail.NUM_VARIANTS + 1):
                found.setdefault(f"variant-{i}", Variant(name=f"variant-{i}", digest=first.digest, uri=first.uri))
        return [found[name] for name in sorted(found)]

    def _weights(self, control: Control, live: Live | None) -> dict[str, float]:
        """Digest → share, as callers meet it now."""
        shares = live.weights_pct if live else {}
        total = math.fsum(shares.values())
        if total <= 0:
            return {}
        found = {d: shares[control.held[d].variant] / total * ALL_PCT for d in _served(control, live)}
        if is_close(found, control.weights_pct):
            return dict(control.weights_pct)  # without the rounding of 32 bits
        return {digest: share for digest, share in found.items() if share > 0}

    def _variant_of(self, digest: str) -> str:
        control, live = self._log.read(), self._fleet.live()
        if digest not in _served(control, live):
            raise ConfigError(f"version {digest} is not loaded; load it first")
        return control.held[digest].variant

    def _check_address(self, uri: str, digest: str) -> None:
        """The container learns its product from the address of its package: <store>/<product>/models/<digest>."""
        parts = uri.removeprefix(self._root).strip("/").split("/")
        if not uri.startswith(self._root) or parts[:-1] != [self._product, "models"] or not _DIGEST.fullmatch(digest):
            raise ConfigError(
                f"package {uri!r} with digest {digest[:80]!r} is not one of {self._product} in this store, {self._root}"
            )

    def _hear(self, control: Control) -> None:
        """A sign of life, written some times per dead-man's time."""
        if control.dead_man is None:
            return
        now_s = self._clock.now_s()
        epoch, at_s = self._heard
        if epoch != control.epoch or now_s - at_s >= control.dead_man.after_s / BEATS_PER_TIMER:
            self._log.hear(control.epoch, at_s=now_s)
            self._heard = control.epoch, now_s

    def _is_dead_man_due(self, control: Control) -> bool:
        if control.dead_man is None:
            return False
        return self._clock.now_s() - self._log.last_heard_s(control) >= control.dead_man.after_s

    def _obey_dead_man(self, control: Control, live: Live) -> tuple[Control, Live]:
        """SageMaker has no such timer, so whoever looks at the endpoint next obeys it."""
        stable = control.dead_man.stable if control.dead_man else ""
        if stable not in _served(control, live):
            log.error(
                "the controller is silent, and who should take over is not loaded", extra={"model_digest": stable}
            )
            return control, live
        log.error("the controller is silent, traffic goes back", extra={"model_digest": stable, "epoch": control.epoch})
        live = self._fleet.weigh({control.held[stable].variant: ALL_PCT})
        try:
            given = {stable: ALL_PCT}
            control = self._log.change(
                control.epoch, lambda c: dataclasses.replace(c, dead_man=None, weights_pct=given)
            )
        except StaleWriter:
            control = self._log.read()  # a new controller came meanwhile, and says what holds
        return control, live

    def _invoke(self, body: Any, attribute: str, *, variant: str = "") -> Any:
        from botocore import exceptions as botocore  # noqa: PLC0415

        asked = {
            "EndpointName": self._settings.endpoint,
            "ContentType": "application/json",
            "Body": msgspec.json.encode(body),  # NaN becomes null, which the container reads as missing
            "CustomAttributes": attribute,
            **({"TargetVariant": variant} if variant else {}),
        }
        with explained(f"endpoint {self._settings.endpoint}"):
            for _ in range(MAX_ATTEMPTS):
                try:
                    return msgspec.json.decode(client("sagemaker-runtime").invoke_endpoint(**asked)["Body"].read())
                except (botocore.IncompleteReadError, botocore.ResponseStreamingError, msgspec.DecodeError):
                    continue  # the answer broke off on its way
                except botocore.ClientError as error:
                    raise _refusal(error, self._settings.endpoint) or error from error
        raise Unavailable(f"endpoint {self._settings.endpoint} answered {MAX_ATTEMPTS} times in part; try again")


def _product_of(uri: str) -> str:
    """Whose package it is: <store>/<product>/models/<digest>."""
    return uri.rsplit("/", 3)[-3]


def _served(control: Control, live: Live | None) -> list[str]:
    """Digests that the endpoint holds where we put them."""
    return [d for d, v in control.held.items() if live is not None and live.holds(v.variant, d)]


def _marked(control: Control, digest: str, *, is_served: bool) -> Control:
    if digest not in control.held:
        return control
    version = dataclasses.replace(control.held[digest], is_served=is_served)
    return dataclasses.replace(control, held={**control.held, digest: version})


def _without(held: Mapping[str, Held], digest: str) -> dict[str, Held]:
    return {d: version for d, version in held.items() if d != digest}


def _taken_back(live: Live | None) -> str:
    if live is None:
        return "the endpoint is gone"
    return (
        f"the endpoint went back by itself to configuration {live.config}, which is without this version "
        f"(SageMaker's reason: {live.reason or 'none given'})"
    )


def _check_table(weights_pct: Mapping[str, float]) -> None:
    values = list(weights_pct.values())
    if any(not math.isfinite(w) or w < 0 for w in values) or (
        values and not is_close({"": math.fsum(values)}, {"": ALL_PCT})
    ):
        raise ConfigError(f"weights {weights_pct} are not allowed; give finite numbers >= 0 that sum to 100, or none")


def _refusal(error: Any, endpoint: str) -> Exception | None:
    """What an answer of SageMaker or of the container means; None for what `explained` knows."""
    code, text = code_of(error), str(error)
    if code == "ModelError":
        status = int(error.response.get("OriginalStatusCode", _SERVER_ERROR))
        try:
            text = json.loads(error.response["OriginalMessage"])["error"]["message"]
        except (ValueError, KeyError, TypeError):
            text = str(error.response.get("OriginalMessage", text))[:200]
        return (Unavailable if status >= _SERVER_ERROR else ConfigError)(
            f"endpoint {endpoint} answered {status}: {text}"
        )
    if code in {"ValidationError", "ModelNotReadyException", "InternalDependencyException", "InternalFailure"}:
        return Unavailable(f"endpoint {endpoint} does not answer: {text}; is a model released?")
    return None
