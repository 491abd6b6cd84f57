"""What a crash left apart is brought together again: document, endpoint and registry alias.

`decide` is pure; `reconcile` performs it. The document is the truth, the endpoint and the alias follow it.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from clearway.contracts import release_document as documents
from clearway.contracts.errors import Unavailable
from clearway.contracts.release_document import Phase, ReleaseDocument, Version
from clearway.contracts.rollout import ALL_TRAFFIC_PCT
from clearway.deploy.champion_alias import alias_digest, project_champion
from clearway.deploy.controls import Controls, open_controls
from clearway.deploy.drive import Tenure, drive, let_go, take
from clearway.deploy.ending import kept_versions, unload_retired
from clearway.deploy.history import keep_history
from clearway.infra.endpoint import TrafficState

if TYPE_CHECKING:
    from clearway.infra.environment import Environment
    from clearway.product import LoadedProduct

log = logging.getLogger("clearway.deploy")
HOLDER = "reconcile"


class Repair(StrEnum):
    """What can be found apart."""

    FINISH_INTENT = "finish_intent"
    RESTORE_TRAFFIC = "restore_traffic"
    CLEAR_LEASE = "clear_lease"
    UNLOAD_RETIRED = "unload_retired"
    MOVE_ALIAS = "move_alias"


# A holder on a machine whose clock is ahead of ours by less than a lease is believed.
MAX_LEASES = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Alias:
    """What the registry says; `is_known` is False when it did not answer."""

    digest: str | None
    is_known: bool


def decide(
    document: ReleaseDocument, state: TrafficState | None, alias: Alias, *, now_s: float, lease_ttl_s: float
) -> tuple[Repair, ...]:
    """What to repair, in order. `state` is None when the endpoint did not answer: then its part waits.

    Nothing while a holder's lease runs: what looks apart may be half of its work. One that runs for longer than holders
    ask for was written before the clock was set back; whoever takes it sees whether somebody still renews it.
    """
    lease, champion = document.lease, document.champion
    if lease is not None and now_s < lease.expires_s <= now_s + MAX_LEASES * lease_ttl_s:
        return ()
    repairs = []
    if document.phase is not Phase.IDLE:
        # The rest follows from how the intent ends, so it is looked at in the next round.
        return (Repair.FINISH_INTENT,) if state else ()
    if lease is not None:
        repairs.append(Repair.CLEAR_LEASE)
    if state and champion:
        is_set = state.weights_pct == {champion.digest: ALL_TRAFFIC_PCT} and not state.mirror and not state.dead_man
        if not is_set or not _is_way_back_loaded(document, state):
            repairs.append(Repair.RESTORE_TRAFFIC)
        if set(state.loaded) - kept_versions(document):
            repairs.append(Repair.UNLOAD_RETIRED)
    if champion and alias.is_known and alias.digest != champion.digest:
        repairs.append(Repair.MOVE_ALIAS)
    return tuple(repairs)


def reconcile(product: "LoadedProduct", env: "Environment") -> tuple[str, ...]:
    """Repair one product; returns what was repaired. Raises: Unavailable, StaleWriter (somebody took over)."""
    controls = open_controls(env, product=product.name)
    return repair(
        product.name,
        controls=controls,
        read_alias=lambda: alias_digest(env, product.name),
        project=lambda version: project_champion(env, product.name, version),
    )


def repair(
    product: str,
    *,
    controls: Controls,
    read_alias: Callable[[], str | None],
    project: Callable[[Version], object],
) -> tuple[str, ...]:
    """The same with its clients handed in. Two rounds: an unfinished intent first, then what its ending left apart."""
    done: list[Repair] = []
    alias = _alias(read_alias)
    for _ in range(2):
        document, _version = controls.store.read(product)
        state = _state(controls)
        now_s, ttl_s = controls.clock.now_s(), controls.lease_ttl_s
        todo = [r for r in decide(document, state, alias, now_s=now_s, lease_ttl_s=ttl_s) if r not in done]
        if {Repair.FINISH_INTENT, Repair.RESTORE_TRAFFIC, Repair.CLEAR_LEASE, Repair.UNLOAD_RETIRED} & set(todo):
            document = _repair_serving(product, todo, controls)
        if Repair.MOVE_ALIAS in todo and document.champion:
            project(document.champion)
        done += todo
    keep_history(controls.storage, controls.layout, controls.store.read(product)[0])
    return tuple(done)


def _repair_serving(product: str, todo: list[Repair], controls: Controls) -> ReleaseDocument:
    tenure = take(controls, product, holder=HOLDER)
    try:
        if Repair.FINISH_INTENT in todo:
            _give_up_abandoned(tenure)
            drive(tenure, keeps_lease=True)
        if Repair.RESTORE_TRAFFIC in todo:
            _restore(tenure)
        if Repair.UNLOAD_RETIRED in todo:
            unload_retired(controls, tenure.document)
    finally:
        let_go(tenure)
    return tenure.document


def _give_up_abandoned(tenure: Tenure) -> None:
    """A rollout that lives on evidence needs a driver that stays; one without goes back instead of waiting for hours.

    A driver that only crashed comes back within the lease, long before this.
    """
    document = tenure.document
    if documents.is_gathering(document):
        reason = f"abandoned at {document.weight_pct:g} %: its driver has not come back within the lease"
        tenure.store(documents.begin_abort(document, epoch=tenure.epoch, reason=reason))


def _restore(tenure: Tenure) -> None:
    document, endpoint = tenure.document, tenure.controls.endpoint
    for version in (document.champion, document.previous):
        if version:
            endpoint.load(uri=version.uri, digest=version.digest, epoch=tenure.epoch)
    if document.champion:
        endpoint.set_weights({document.champion.digest: ALL_TRAFFIC_PCT}, epoch=tenure.epoch)


def _is_way_back_loaded(document: ReleaseDocument, state: TrafficState) -> bool:
    return document.previous is None or document.previous.digest in state.loaded


def _state(controls: Controls) -> TrafficState | None:
    try:
        return controls.endpoint.state()
    except Unavailable as error:
        log.warning("endpoint does not answer, its repairs wait: %s", error)
        return None


def _alias(read_alias: Callable[[], str | None]) -> Alias:
    try:
        return Alias(digest=read_alias(), is_known=True)
    except Unavailable as error:
        log.warning("registry does not answer, its alias waits: %s", error)
        return Alias(digest=None, is_known=False)
