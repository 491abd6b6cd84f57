"""The previous champion takes all traffic again. Needs the release store and the endpoint, and nothing else.

It does not wait: it takes the lease from whoever holds it. A deployment under way is taken back instead, for then the
champion itself is the way back.
"""

import logging
from typing import TYPE_CHECKING

from clearway.contracts import release_document as documents
from clearway.contracts.errors import ClearwayError, StaleWriter
from clearway.contracts.release_document import HistoryEntry, Outcome, Phase, ReleaseDocument
from clearway.deploy.controls import Controls, open_controls
from clearway.deploy.drive import Tenure, drive, let_go, take
from clearway.deploy.ending import outputs_of, refused, unload_retired
from clearway.deploy.spec import Outputs, RollbackInputs
from clearway.infra.faults import fault

if TYPE_CHECKING:
    from clearway.infra.environment import Environment
    from clearway.product import LoadedProduct

log = logging.getLogger("clearway.deploy")


def run(inputs: RollbackInputs, *, product: "LoadedProduct", env: "Environment") -> Outputs:
    """The verb. PASS: the previous champion answers live. FAIL: there is none to return to.

    The registry's alias is not touched, since the registry may be down; the reconciler repairs it.
    Raises: Unavailable; the order stays stored, so a retry or the reconciler completes it.
    """
    return roll_back(inputs, controls=open_controls(env, product=product.name))


def roll_back(inputs: RollbackInputs, *, controls: Controls) -> Outputs:
    """The same with its clients handed in. An order that has ended is not carried out again."""
    document, _ = controls.store.read(inputs.product)
    entry = documents.outcome_of(document, inputs.release_id)
    if entry is None and document.phase is Phase.IDLE and document.previous is None:
        return refused("nothing to return to: no previous champion; deploy a known good model instead", document)
    if entry is None:
        document, entry = _roll_back(inputs, controls)
    if entry is None:
        return refused("superseded: another order took the lease before this one began", document)
    if document.phase is Phase.IDLE:
        unload_retired(controls, document)
    return outputs_of(entry, document, wanted=Outcome.ROLLED_BACK)


def _roll_back(inputs: RollbackInputs, controls: Controls) -> tuple[ReleaseDocument, HistoryEntry | None]:
    tenure = take(controls, inputs.product, holder=inputs.release_id, is_seized=True)
    fault("rollback.after_lease")
    try:
        if (entry := documents.outcome_of(tenure.document, inputs.release_id)) is None:
            tenure.store(_intend(tenure, inputs))
            fault("rollback.after_intent")
            drive(tenure)
        else:
            let_go(tenure)
    except StaleWriter:
        log.warning("another holder took over; it completes the stored order")
        document, _ = controls.store.read(inputs.product)
        return document, documents.outcome_of(document, inputs.release_id)
    except ClearwayError:
        let_go(tenure)
        raise
    return tenure.document, entry or documents.outcome_of(tenure.document, inputs.release_id)


def _intend(tenure: Tenure, inputs: RollbackInputs) -> ReleaseDocument:
    """The document that orders the way back, joined to whatever is on its way already."""
    document, epoch = tenure.document, tenure.epoch
    if document.phase is Phase.IDLE:
        return documents.begin_rollback(document, epoch=epoch, release_id=inputs.release_id, reason=inputs.reason)
    if document.phase is Phase.DEPLOYING:
        reason = f"taken back by {inputs.release_id}: {inputs.reason}"
        document = documents.begin_abort(document, epoch=epoch, reason=reason)
    if document.release_id == inputs.release_id:
        return document
    return documents.join_order(document, epoch=epoch, order_id=inputs.release_id)
