"""Move live traffic to an approved model, resumably: killed anywhere and run again, it ends the same."""

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from clearway.contracts import release_document as documents
from clearway.contracts.errors import ClearwayError, ConfigError, NotApproved, StaleWriter
from clearway.contracts.release_document import Outcome, Phase, ReleaseDocument, Version
from clearway.contracts.rollout import ALL_AT_ONCE, Rollout
from clearway.deploy.controls import Controls, open_controls
from clearway.deploy.drive import Tenure, drive, let_go, take
from clearway.deploy.ending import outputs_of, refused, unload_retired
from clearway.deploy.history import keep_history, outcome_of
from clearway.deploy.rollback import run as rollback
from clearway.deploy.spec import Inputs, Outputs
from clearway.deploy.strategies import begin
from clearway.infra.approvals import verify_approval
from clearway.infra.endpoint import check_strategies
from clearway.infra.faults import fault

if TYPE_CHECKING:
    from clearway.infra.environment import Environment
    from clearway.product import LoadedProduct

__all__ = ["deploy", "rollback", "run"]
log = logging.getLogger("clearway.deploy")

FOLLOW_POLL_S = 0.2  # how often a run that lost its lease to another run of the same release looks for the ending


def run(inputs: Inputs, *, product: "LoadedProduct", env: "Environment") -> Outputs:
    """The verb. PASS: the live endpoint answers with this model. FAIL: not approved, a proof failed, or superseded.

    Raises: Unavailable, LeaseHeld (retry), IntegrityError (the package is damaged), ConfigError.
    """
    from clearway.deploy.champion_alias import project_champion  # noqa: PLC0415 - imports MLflow

    check_strategies(env, product.spec.rollout.chain)
    controls = open_controls(env, product=product.name)
    return deploy(
        inputs,
        controls=controls,
        project=lambda version: project_champion(env, product.name, version),
        rollout=begin(product.spec.rollout),
    )


def deploy(
    inputs: Inputs,
    *,
    controls: Controls,
    project: Callable[[Version], object],
    rollout: Rollout = ALL_AT_ONCE,
) -> Outputs:
    """The same with its clients handed in.

    Args:
        project: mirrors the new champion to the registry, best effort.
        rollout: how a new candidate takes traffic; one that is under way keeps the plan it began with.
    """
    document, _ = controls.store.read(inputs.product)
    entry = outcome_of(controls.storage, controls.layout, document, inputs.release_id)
    if entry is None:
        _check_package(inputs, controls)
        try:
            approval = verify_approval(controls.storage, inputs.approval_uri, model_digest=inputs.model.digest)
        except NotApproved as error:
            return refused(f"not approved: {error}", document)
        if approval.product != inputs.product:
            return refused(f"not approved: the approval is for product {approval.product!r}", document)
        fault("deploy.before_lease")
        try:
            document = _deploy(inputs, controls, rollout)
        except StaleWriter as error:
            document = _follow(inputs, controls, error)
        entry = documents.outcome_of(document, inputs.release_id)
    if entry is None:
        return refused("superseded: another release took the lease; this one moved nothing that lasts", document)
    _tidy(document, controls, project)
    return outputs_of(entry, document, wanted=Outcome.PROMOTED)


def _check_package(inputs: Inputs, controls: Controls) -> None:
    from clearway.packaging.package import open_package  # noqa: PLC0415 - numpy and pyarrow

    open_package(controls.storage, inputs.model.uri, inputs.model.digest, key_folder=controls.key_folder)


def _deploy(inputs: Inputs, controls: Controls, rollout: Rollout) -> ReleaseDocument:
    version = Version(uri=inputs.model.uri, digest=inputs.model.digest, release_id=inputs.release_id)
    tenure = take(controls, inputs.product, holder=inputs.release_id)
    fault("deploy.after_lease")
    try:
        finish_others(tenure, inputs.release_id)
        if documents.outcome_of(tenure.document, inputs.release_id):
            let_go(tenure)  # another run of this very release ended it while we waited
            return tenure.document
        if tenure.document.phase is Phase.IDLE:
            tenure.store(documents.begin_deploy(tenure.document, version, epoch=tenure.epoch, rollout=rollout))
            fault("deploy.after_intent")
        elif tenure.document.phase is Phase.DEPLOYING and tenure.document.candidate != version:
            raise ConfigError(
                f"release {inputs.release_id!r} is deploying {tenure.document.candidate}, asked for {version}; "
                "one release deploys one model, start another release"
            )
        drive(tenure)
    except StaleWriter:
        raise
    except ClearwayError:
        let_go(tenure)
        raise
    return tenure.document


def finish_others(tenure: Tenure, release_id: str) -> None:
    """Bring another release's unfinished business to its end first: a deploy is superseded, a way back is completed."""
    document = tenure.document
    if document.phase is Phase.IDLE or document.release_id == release_id:
        return
    log.warning("finishing what %s left", document.release_id, extra={"phase": document.phase.value})
    if document.phase is Phase.DEPLOYING:
        reason = f"superseded by {release_id}, which took the lease over"
        tenure.store(documents.begin_abort(document, epoch=tenure.epoch, reason=reason, ending=Outcome.SUPERSEDED))
    drive(tenure, keeps_lease=True)


def _follow(inputs: Inputs, controls: Controls, error: StaleWriter) -> ReleaseDocument:
    """After losing the lease: to another release, it is over; to a second run of the same one, wait for its end."""
    deadline_s = controls.clock.now_s() + controls.lease_ttl_s
    while True:
        document, _ = controls.store.read(inputs.product)
        is_ours = document.release_id == inputs.release_id or (
            document.lease is not None and document.lease.holder == inputs.release_id
        )
        if documents.outcome_of(document, inputs.release_id) or not is_ours:
            return document
        if controls.clock.now_s() >= deadline_s:
            raise StaleWriter(f"another run of release {inputs.release_id!r} has the lease and does not end") from error
        controls.clock.sleep(FOLLOW_POLL_S)


def _tidy(document: ReleaseDocument, controls: Controls, project: Callable[[Version], object]) -> None:
    if document.phase is not Phase.IDLE:
        return
    fault("deploy.before_tidy")
    unload_retired(controls, document)
    keep_history(controls.storage, controls.layout, document)
    if document.champion:
        project(document.champion)
