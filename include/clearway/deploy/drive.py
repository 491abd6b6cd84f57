"""Carry a stored intent to its end: look, decide, store, act, again.

Every write names the epoch it was made under. A holder that slept through its lease finds a newer epoch in the document
or at the endpoint and stops with StaleWriter; nothing it does after that is accepted anywhere.
"""

import dataclasses
import logging

from clearway.contracts import release_document as documents
from clearway.contracts import rollout as rollouts
from clearway.contracts.errors import (
    ClearwayError,
    CompareAndSwapFailed,
    ConfigError,
    DataError,
    IntegrityError,
    LeaseHeld,
    StaleWriter,
    Unavailable,
)
from clearway.contracts.observed import Mirrored
from clearway.contracts.release_document import Phase, ReleaseDocument
from clearway.contracts.rollout import OrderKind
from clearway.contracts.verdict import Check, Verdict
from clearway.deploy import machine
from clearway.deploy.controls import Controls
from clearway.deploy.ending import keep_record
from clearway.deploy.proofs import check_golden, probe_live
from clearway.deploy.rollout import (
    Action,
    CheckGolden,
    Load,
    Observe,
    ProbeLive,
    ReadMirrored,
    Seen,
    SetWeights,
    Step,
    Wait,
)
from clearway.infra.endpoint import DeadMan
from clearway.infra.faults import fault

log = logging.getLogger("clearway.deploy")

# The longest path without a wait (deploy, failed live probe, abort) takes 14 steps; more: effects do not last.
MAX_STEPS = 40
LEASE_POLL_S = 0.5
# A driver looks every second or two, so this much silence means that it is gone; shorter would trip on a slow disk.
DEAD_MAN_S = 15.0


@dataclasses.dataclass(slots=True)
class Tenure:
    """One holder's time with the lease: the document as stored, its version, and the epoch all writes name."""

    controls: Controls
    document: ReleaseDocument
    version: int

    @property
    def epoch(self) -> int:
        return self.document.epoch

    def store(self, document: ReleaseDocument) -> None:
        """Write, and keep the lease alive unless the document ends it. Raises: StaleWriter."""
        controls, epoch = self.controls, self.epoch
        if document.lease is not None:
            now_s = controls.clock.now_s()
            document = documents.renew_lease(document, epoch=epoch, now_s=now_s, ttl_s=controls.lease_ttl_s)
        try:
            self.version = controls.store.swap(document, expected_version=self.version)
        except CompareAndSwapFailed:
            document, self.version = self._merge(document)
        self.document = document

    def _merge(self, document: ReleaseDocument) -> tuple[ReleaseDocument, int]:
        """After a refused write: our own took effect and its answer was lost, or a person gave an order meanwhile."""
        controls = self.controls
        stored, version = controls.store.read(document.product)
        documents.check_epoch(stored, self.epoch)
        if stored == document:
            return stored, version
        order = stored.rollout.order if stored.rollout else None
        if order and document.phase is Phase.DEPLOYING and stored == documents.give_order(document, order):
            return stored, version  # both: ours took effect, and then the order came
        if order is None or stored != documents.give_order(self.document, order):
            raise CompareAndSwapFailed(
                f"document of {document.product!r} changed without a new epoch or an order; somebody writes past the "
                "lease, find out who"
            )
        if order.kind is OrderKind.ABORT and document.phase is Phase.IDLE:
            return stored, version  # not promoted after all: the machine meets the order next
        if document.phase is Phase.DEPLOYING:  # otherwise the rollout has just ended, and the order with it
            document = documents.give_order(document, order)
        return document, controls.store.swap(document, expected_version=version)


def take(controls: Controls, product: str, *, holder: str, is_seized: bool = False) -> Tenure:
    """Own the product's document, waiting for a living holder at most one lease long. Raises: LeaseHeld.

    Waiting is counted in what was slept: a clock that is set back meanwhile, or was since the lease was written, makes
    nobody wait longer. A lease that nobody renewed for as long as it lasts has no living holder, whenever it expires.
    """
    waited_s, silent_s, watched = 0.0, 0.0, None
    while True:
        document, version = controls.store.read(product)
        now_s, ttl_s = controls.clock.now_s(), controls.lease_ttl_s
        if document.lease != watched:
            watched, silent_s = document.lease, 0.0
        is_dead = is_seized or silent_s >= ttl_s
        try:
            owned = documents.take_lease(document, holder=holder, now_s=now_s, ttl_s=ttl_s, is_seized=is_dead)
            version = controls.store.swap(owned, expected_version=version)
        except CompareAndSwapFailed:
            continue  # somebody else moved; their document says whether we have to wait
        except LeaseHeld:
            if waited_s > ttl_s:
                raise
            controls.clock.sleep(LEASE_POLL_S)
            waited_s, silent_s = waited_s + LEASE_POLL_S, silent_s + LEASE_POLL_S
            continue
        return Tenure(controls=controls, document=owned, version=version)


def drive(tenure: Tenure, *, keeps_lease: bool = False) -> None:
    """Finish whatever the document intends; afterwards it is idle.

    Args:
        keeps_lease: the holder goes on with its own release after finishing someone else's.
    Raises: StaleWriter (a newer holder took over), Unavailable (the intent stays stored for whoever retries).
    """
    seen, num_steps = _look(tenure, None), 0
    while num_steps < MAX_STEPS:
        step = machine.step(tenure.document, seen, now_s=tenure.controls.clock.now_s())
        num_steps = 0 if isinstance(step.action, Wait) else num_steps + 1
        if step.document != tenure.document:
            _store_step(tenure, step, keeps_lease=keeps_lease)
        if tenure.document.phase is Phase.IDLE:
            return
        if step.action is not None:
            seen = _perform(tenure, step.action, seen)
        elif tenure.document.phase is Phase.ABORTING:
            seen = _look(tenure, None)  # proofs of the candidate say nothing about the way back
    raise Unavailable(
        f"{tenure.document.product!r} is still {tenure.document.phase.value!r} after {MAX_STEPS} steps; "
        f"the endpoint does not keep what it is told (last seen {seen}), check it, then retry"
    )


def _store_step(tenure: Tenure, step: Step, *, keeps_lease: bool) -> None:
    document = step.document
    if document.phase is Phase.IDLE and keeps_lease:
        document = dataclasses.replace(document, lease=tenure.document.lease)
    fault(f"deploy.before_{document.phase.value}")
    before = tenure.document
    if document.phase is Phase.IDLE and before.rollout and before.rollout.trail:
        keep_record(tenure.controls, before)
    tenure.store(document)
    if text := _news(before, document):
        log.info(text, extra={"phase": document.phase.value, "epoch": document.epoch})
    fault(f"deploy.after_{document.phase.value}")


def _news(before: ReleaseDocument, after: ReleaseDocument) -> str:
    """What a person who follows the log wants to read; "" for a look that says what the one before said."""
    if before.phase is not after.phase:
        said = after.history[-1].reason if after.phase is Phase.IDLE else after.reason
        return f"{after.phase.value}: {said}"
    trail, earlier = ((d.rollout.trail if d.rollout else ()) for d in (after, before))
    if trail and not (earlier and rollouts.is_same_claim(earlier[-1], trail[-1])):
        record = trail[-1]
        verdict = record.verdict.value if record.verdict else "order"
        return f"{record.weight_pct:g} % of traffic: {verdict}: {record.reason}"
    return f"{after.weight_pct:g} % of traffic from here on" if after.weight_pct != before.weight_pct else ""


def _look(tenure: Tenure, before: Seen | None) -> Seen:
    state = tenure.controls.endpoint.state()
    is_same = before is not None and before.weights_pct == state.weights_pct
    return Seen(
        loaded=frozenset(state.loaded),
        weights_pct=state.weights_pct,
        endpoint_epoch=state.epoch,
        mirror=state.mirror,
        dead_man=state.dead_man,
        broken=state.broken,
        unaskable=frozenset(state.unaskable),
        golden=before.golden if before else None,
        live=before.live if before and is_same else None,
    )


def _perform(tenure: Tenure, action: Action, seen: Seen) -> Seen:
    fault(f"deploy.before_{action.name}")
    try:
        seen = _act(tenure, action, seen)
    except ClearwayError as error:
        stored, _ = tenure.controls.store.read(tenure.document.product)
        if stored.epoch != tenure.epoch:  # whatever went wrong, it went wrong because another holder moves things now
            raise StaleWriter(f"epoch {tenure.epoch} is stale, the document is at {stored.epoch}; stop here") from error
        if not isinstance(error, StaleWriter):
            raise
        raise ConfigError(
            f"the endpoint has seen a newer epoch than the release store, which is at {stored.epoch}: the store was "
            "lost or replaced; restore it, or clear the endpoint's state folder and release again"
        ) from error
    log.debug("release action done", extra={"action": action.name, "epoch": tenure.epoch})
    fault(f"deploy.after_{action.name}")
    return seen


def _act(tenure: Tenure, action: Action, seen: Seen) -> Seen:
    controls = tenure.controls
    if isinstance(action, CheckGolden):
        return dataclasses.replace(seen, golden=check_golden(controls, action.version))
    if isinstance(action, ProbeLive):
        return dataclasses.replace(_look(tenure, seen), live=probe_live(controls, action.digest))
    if isinstance(action, Observe):
        observed = controls.endpoint.observe(epoch=tenure.epoch)
        return dataclasses.replace(_look(tenure, seen), observed=observed)
    if isinstance(action, ReadMirrored):
        return dataclasses.replace(_look(tenure, seen), mirrored=_read_mirrored(tenure, action))
    if isinstance(action, Wait):
        controls.clock.sleep(action.seconds)
        tenure.store(tenure.document)  # keeps the lease alive, and brings a person's order if there is one
    elif isinstance(action, SetWeights):
        dead_man = _dead_man(tenure, action)
        controls.endpoint.set_weights(action.weights_pct, epoch=tenure.epoch, dead_man=dead_man, mirror=action.mirror)
    elif isinstance(action, Load):
        seen = _load(tenure, action, seen)
    return _look(tenure, seen)


def _read_mirrored(tenure: Tenure, action: ReadMirrored) -> Mirrored:
    """From the newest log's first row that is not known; another log than the one last read begins with its own."""
    endpoint, epoch = tenure.controls.endpoint, tenure.epoch
    first = next(reversed(action.next_row.values()), 0)
    rows = endpoint.mirrored(first=first, epoch=epoch)
    wanted = action.next_row.get(rows.log_id, 0)
    return rows if wanted == first else endpoint.mirrored(first=wanted, epoch=epoch)


def _dead_man(tenure: Tenure, action: SetWeights) -> DeadMan | None:
    champion = tenure.document.champion
    return DeadMan(stable=champion.digest, after_s=DEAD_MAN_S) if action.has_dead_man and champion else None


def _load(tenure: Tenure, action: Load, seen: Seen) -> Seen:
    version, candidate = action.version, tenure.document.candidate
    try:
        tenure.controls.endpoint.load(uri=version.uri, digest=version.digest, epoch=tenure.epoch)
    except (IntegrityError, ConfigError, DataError) as error:
        if tenure.document.phase is not Phase.DEPLOYING or candidate is None or candidate.digest != version.digest:
            raise
        # A candidate that is damaged, or cannot score its own golden rows, is an answer, not a crash: the champion
        # keeps the traffic and the release ends aborted.
        return dataclasses.replace(seen, golden=Check(name="package", verdict=Verdict.FAIL, reason=str(error)))
    return seen


def let_go(tenure: Tenure) -> None:
    """After an error: end the lease, so that a retry or the reconciler need not wait for it; the intent stays.

    A rollout that gathers evidence keeps it: its own retry takes it at once, and nobody gives the rollout up before it
    expires. Best effort: whoever cannot write here has lost the lease already, or leaves it to expire.
    """
    if documents.is_gathering(tenure.document):
        return
    try:
        tenure.store(documents.drop_lease(tenure.document, epoch=tenure.epoch))
    except ClearwayError as error:
        log.warning("lease could not be ended early, it expires by itself: %s", error)
