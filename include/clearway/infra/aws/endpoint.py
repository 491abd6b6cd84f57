"""A SageMaker endpoint as an Endpoint: one production variant per loaded version, weights as shares of traffic.

Every variant is a container that serves one package (`clearway.serve.sagemaker`). Loading and unloading move the
endpoint to another configuration, which takes minutes; shares are weights of the variants.

Copies of requests go to a shadow variant. SageMaker allows one production variant beside it, so for as long as copies
are given, every other version waits outside (its `Held` stays); they come back when the copies end.
"""

import dataclasses
import functools
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
from clearway.infra.aws.container import shadow_variables, variables_of
from clearway.infra.aws.endpoint_control import Control, ControlLog, Copies, Giving, Held
from clearway.infra.aws.endpoint_copies import CopiedRows
from clearway.infra.aws.endpoint_metrics import LATENCY_BOUNDS_S, EndpointMetrics
from clearway.infra.aws.endpoint_served import (
    broken_versions,
    ending,
    is_copied,
    marked,
    scaled,
    served,
    without,
)
from clearway.infra.aws.fleet import Fleet, Live, RolledBack, Variant, is_close
from clearway.infra.aws.scaling import Scaling
from clearway.infra.aws.services import network_of
from clearway.infra.clock import Clock, SystemClock
from clearway.infra.endpoint import DeadMan, LoggedRows, Mirror, TrafficState, shadow_problem
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
    """One endpoint of one product. What it cannot do as the local one does: docs/decisions/0019 and 0023."""

    def __init__(self, env: Environment, *, product: str, clock: Clock) -> None:
        settings, self._clock, self._env, self._product = env.sagemaker, clock, env, product
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
        metrics = functools.partial(
            EndpointMetrics, settings.endpoint, storage=self._storage, delay_s=settings.metrics_delay_s
        )
        self._metrics = metrics(capture_uri=capture_uri)
        self._copied = CopiedRows(
            settings.endpoint,
            storage=self._storage,
            home=home,
            capture_uri=capture_uri,
            metrics=metrics(capture_uri=""),
        )
        self._heard = (-1, -math.inf)  # epoch and time of the last sign of life that was written

    def load(self, *, uri: str, digest: str, epoch: int) -> None:
        control = self._changing(epoch)
        live = self._fleet.settled()
        if digest not in served(control, live):
            self._check_address(uri, digest)
            control, live = self._end_copies(control, live)  # a third version has no place beside them
        if digest not in served(control, live):
            control = self._log.change(epoch, lambda c: self._with_room(c, live, uri=uri, digest=digest))
            fault("sagemaker.before_load")
            live = self._fleet.become(self._variants(control, live, held=[*served(control, live), digest]))
        fault("sagemaker.before_scaling")
        self._scaling.put(scaled(control, live))
        self._log.change(epoch, lambda c: marked(c, digest, is_served=True))

    def unload(self, digest: str, *, epoch: int) -> None:
        control = self._changing(epoch)
        live = self._fleet.settled()
        if digest in self._weights(control, live):
            raise ConfigError(f"version {digest} is in the traffic table; move the traffic before unloading it")
        if control.copies is not None and control.copies.is_on and digest == control.copies.digest:
            raise ConfigError(f"version {digest} is given copies of requests; end that before unloading it")
        rest = [d for d in served(control, live) if d != digest]
        if digest in control.held:
            self._scaling.drop(control.held[digest].variant)
            fault("sagemaker.after_scaling")
        if digest in served(control, live):
            control = self._log.change(epoch, lambda c: marked(c, digest, is_served=False))  # nobody took it back
            try:
                if rest:
                    self._fleet.become(self._variants(control, live, held=rest))
                else:
                    self._fleet.delete()
            except RolledBack as error:
                raise Unavailable(f"version {digest} stays loaded: {error}") from error
        fault("sagemaker.before_forget")
        self._log.change(epoch, lambda c: dataclasses.replace(c, held=without(c.held, digest)))

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
        loaded = served(control, live)
        named = {*weights_pct, *([dead_man.stable] if dead_man else []), *([mirror.digest] if mirror else [])}
        for digest in sorted(named - set(loaded)):
            raise ConfigError(f"version {digest[:80]!r} is not loaded; loaded: {sorted(loaded)}; load it first")
        copies = self._copies_of(control, live, weights_pct, mirror) if mirror else None
        table, armed_s = dict(weights_pct), self._clock.now_s()
        control = self._log.change(
            epoch,
            lambda c: dataclasses.replace(
                c, weights_pct=table, dead_man=dead_man, armed_s=armed_s, copies=copies or ending(c.copies)
            ),
        )
        self._fleet.on_wait = lambda: self._hear(control)
        if copies is not None and live is not None:
            self._give_copies(control, copies, live)
        elif live is not None:
            control, live = self._end_copies(control, live)
            self._fleet.weigh({control.held[d].variant: weight for d, weight in weights_pct.items()})
        self._hear(control)

    def observe(self, *, epoch: int) -> Observed:
        control = self._changing(epoch)
        self._hear(control)
        live = self._fleet.live()
        held = {d: control.held[d] for d in served(control, live)}
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
        control = self._changing(epoch)
        self._hear(control)
        now_s, copies = self._clock.now_s(), control.copies
        if copies is None:
            return Mirrored(log_id="", first=0, at_s=now_s, epoch=control.epoch, candidate="", control="", rows=())
        self._copied.on_file = lambda: self._hear(control)
        found = self._copied.read(copies, first=first, epoch=control.epoch, now_s=now_s)
        self._hear(control)
        return found

    def state(self) -> TrafficState:
        control, live = self._log.read(), self._fleet.live()
        if self._is_dead_man_due(control) and live is not None and not live.is_moving:
            control, live = self._obey_dead_man(control, live)
        broken = broken_versions(control, live)
        loaded = [digest for digest in served(control, live) if digest not in broken]
        copies = control.copies
        is_given = copies is not None and copies.giving is Giving.GIVEN and copies.digest in loaded
        return TrafficState(
            weights_pct=self._weights(control, live),
            loaded=tuple(loaded),
            epoch=control.epoch,
            mirror=copies.digest if copies is not None and is_given and is_copied(control, live) else None,
            dead_man=control.dead_man.stable if control.dead_man else None,
            broken=broken,
            unaskable=tuple(d for d in loaded if live is not None and not live.holds(control.held[d].variant, d)),
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

    def _copies_of(
        self, control: Control, live: Live | None, weights_pct: Mapping[str, float], mirror: Mirror
    ) -> Copies:
        """Those that this order means: the ones that are given already, or new ones. Raises: ConfigError."""
        if problem := shadow_problem(self._env):
            raise ConfigError(f"version {mirror.digest} cannot be given copies of requests: {problem}")
        answering = next((digest for digest, share in weights_pct.items() if is_close({"": share}, {"": ALL_PCT})), "")
        if not answering or len([d for d in weights_pct if weights_pct[d] > 0]) > 1:
            raise ConfigError(
                f"copies cannot go to {mirror.digest} while {dict(weights_pct)} answer callers: SageMaker allows one "
                "production variant beside a shadow; give one version all of them"
            )
        if mirror.digest == answering:
            raise ConfigError(f"version {answering} answers callers itself; mirror to another version, or to none")
        shadow_variables(mirror.columns)  # what no container could be told is refused before anything is stored
        made = Copies(
            digest=mirror.digest,
            variant=f"{control.held[mirror.digest].variant}-shadow",
            control=answering,
            control_variant=control.held[answering].variant,
            columns=tuple(mirror.columns),
        )
        known = control.copies
        if known is None or not known.is_on:
            return made
        is_same = dataclasses.replace(known, giving=made.giving, since_s=0.0) == made
        return known if is_same and (known.giving is Giving.ORDERED or is_copied(control, live)) else made

    def _give_copies(self, control: Control, copies: Copies, live: Live) -> None:
        """An update that is taken back leaves the version broken, as a load that is taken back later does."""
        if copies.giving is Giving.GIVEN:
            return
        for digest in served(control, live):
            if digest != copies.control:
                self._scaling.drop(control.held[digest].variant)
        (answering,) = self._variants(control, live, held=[copies.control])
        shadow = Variant(
            name=copies.variant,
            digest=copies.digest,
            uri=control.held[copies.digest].uri,
            weight_pct=ALL_PCT,  # as much as the answering variant's: a copy of each request
            count=answering.count,
            given=tuple(shadow_variables(copies.columns).items()),
        )
        fault("sagemaker.before_copies")
        try:
            self._fleet.become([dataclasses.replace(answering, weight_pct=ALL_PCT)], shadow=shadow)
        except RolledBack as error:
            log.error("no copies of requests are given", extra={"model_digest": copies.digest, "reason": str(error)})
            given = dataclasses.replace(copies, giving=Giving.TAKEN_BACK, failed=str(error))
        else:
            fault("sagemaker.after_copies")
            given = dataclasses.replace(copies, giving=Giving.GIVEN, since_s=self._clock.now_s())
        self._log.change(control.epoch, lambda c: dataclasses.replace(c, copies=given))

    def _end_copies(self, control: Control, live: Live | None) -> tuple[Control, Live | None]:
        """Every version that is held is a production variant again, as before the copies. Raises: Unavailable."""
        copies = control.copies
        if live is not None and live.shadow is not None:
            control = self._log.change(control.epoch, lambda c: dataclasses.replace(c, copies=ending(c.copies)))
            there = served(control, live)
            back = [d for d, version in control.held.items() if version.is_served or d in there]
            fault("sagemaker.before_back")
            try:
                live = self._fleet.become(self._variants(control, live, held=back))
            except RolledBack as error:
                raise Unavailable(f"copies of requests do not end: {error}; callers do not notice, retry") from error
            fault("sagemaker.after_back")
            self._scaling.put(scaled(control, live))
        if copies is not None and copies.giving is not Giving.ENDED:
            ended = dataclasses.replace(copies, giving=Giving.ENDED)
            control = self._log.change(control.epoch, lambda c: dataclasses.replace(c, copies=ended))
        return control, live

    def _with_room(self, control: Control, live: Live | None, *, uri: str, digest: str) -> Control:
        """With a variant of its own for this version; what an earlier update left unserved is forgotten."""
        held = {d: control.held[d] for d in served(control, live)}
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
        found = {d: shares.get(control.held[d].variant, 0.0) / total * ALL_PCT for d in served(control, live)}
        if is_close(found, control.weights_pct):
            return dict(control.weights_pct)  # without the rounding of 32 bits
        return {digest: share for digest, share in found.items() if share > 0}

    def _variant_of(self, digest: str) -> str:
        control, live = self._log.read(), self._fleet.live()
        if digest not in served(control, live):
            raise ConfigError(f"version {digest} is not loaded; load it first")
        variant = control.held[digest].variant
        if live is not None and not live.holds(variant, digest):
            raise ConfigError(
                f"version {digest} is given copies of requests and cannot be asked itself; end that first"
            )
        return variant

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
        if stable not in served(control, live):
            log.error(
                "the controller is silent, and who should take over is not loaded", extra={"model_digest": stable}
            )
            return control, live
        log.error("the controller is silent, traffic goes back", extra={"model_digest": stable, "epoch": control.epoch})
        try:
            control, ended = self._end_copies(control, live)
            live = self._fleet.weigh({control.held[stable].variant: ALL_PCT}) if ended is not None else live
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
