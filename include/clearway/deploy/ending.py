"""How a release or a rollback order ended, and what is tidied up after it."""

import json
import logging

from clearway.contracts.codec import to_jsonable
from clearway.contracts.errors import ClearwayError, StaleWriter, Unavailable
from clearway.contracts.refs import RolloutStatus
from clearway.contracts.release_document import HistoryEntry, Outcome, ReleaseDocument
from clearway.contracts.rollout import ALL_TRAFFIC_PCT
from clearway.contracts.verdict import Verdict
from clearway.deploy.controls import Controls
from clearway.deploy.spec import Outputs

log = logging.getLogger("clearway.deploy")


def outputs_of(entry: HistoryEntry, document: ReleaseDocument, *, wanted: Outcome) -> Outputs:
    """The stage's answer for a finished entry: PASS only if it ended as `wanted`."""
    verdict = Verdict.PASS if entry.outcome is wanted else Verdict.FAIL
    return Outputs(verdict=verdict, reason=f"{entry.outcome.value}: {entry.reason}", status=status_of(document))


def refused(reason: str, document: ReleaseDocument) -> Outputs:
    """FAIL before anything moved."""
    return Outputs(verdict=Verdict.FAIL, reason=reason, status=status_of(document))


def status_of(document: ReleaseDocument) -> RolloutStatus | None:
    """What serves according to the document, which is only ever written after the live endpoint proved it."""
    champion, previous = document.champion, document.previous
    if champion is None:
        return None
    return RolloutStatus(
        uri=champion.uri,
        digest=champion.digest,
        previous_digest=previous.digest if previous else None,
        weight_pct=ALL_TRAFFIC_PCT,
        epoch=document.epoch,
    )


def keep_record(controls: Controls, document: ReleaseDocument) -> None:
    """Write what a rollout that ends now was judged by beside its release; best effort, traffic never waits for it."""
    uri = controls.layout.rollout_record(document.release_id or "none")
    record = {"phase": document.phase.value, "reason": document.reason, "rollout": to_jsonable(document.rollout)}
    try:
        controls.storage.write(uri, json.dumps(record, indent=1, sort_keys=True).encode())
    except (ClearwayError, OSError) as error:
        log.warning("the record of this rollout was not kept: %s", error)


def kept_versions(document: ReleaseDocument) -> set[str]:
    """Digests that stay loaded: the champion, the way back, and a candidate under way."""
    versions = (document.champion, document.previous, document.candidate)
    return {version.digest for version in versions if version}


def unload_retired(controls: Controls, document: ReleaseDocument) -> list[str]:
    """Drop versions no rollback can need; memory grows with live versions only. Returns the digests dropped.

    What has ended stays ended if this fails: the reconciler does it later.
    """
    dropped = []
    try:
        state = controls.endpoint.state()
        for digest in sorted(set(state.loaded) - kept_versions(document) - set(state.weights_pct)):
            controls.endpoint.unload(digest, epoch=document.epoch)
            dropped.append(digest)
    except (StaleWriter, Unavailable) as error:
        log.warning("retired versions stay loaded until the reconciler or the next release drops them: %s", error)
    return dropped
