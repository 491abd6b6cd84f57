"""Who let exactly which bytes through, on what evidence: one small record per model and evaluation, written once.

The record names the SHA-256 of the model package and of the evaluation a person saw. A retrained model, or the same
model judged again, has other digests and needs an answer of its own; a record is never changed.
"""

import json
from dataclasses import dataclass
from enum import StrEnum

from clearway.contracts.codec import from_jsonable, to_jsonable
from clearway.contracts.errors import NotApproved
from clearway.contracts.manifest import canonical_json, sha256_of
from clearway.infra.layout import Layout
from clearway.infra.storage import Storage

FORMAT = 1


class Decision(StrEnum):
    """What was answered. AUTO and NOT_REQUIRED say on record that nobody looked."""

    APPROVE = "approve"
    REJECT = "reject"
    AUTO = "auto"
    NOT_REQUIRED = "not_required"


LETS_THROUGH = frozenset({Decision.APPROVE, Decision.AUTO, Decision.NOT_REQUIRED})


@dataclass(frozen=True, slots=True, kw_only=True)
class Approval:
    """One answer.

    Args:
        model_digest, evaluation_digest: what it was given for.
        is_required: whether the product's risk tier, or an inconclusive evaluation, demands an answer.
        answered_by: a person's name, or what answered instead.
    """

    product: str
    release_id: str
    model_digest: str
    evaluation_digest: str
    answer: Decision
    answered_by: str
    note: str
    is_required: bool
    risk_tier: str
    format: int = FORMAT


def approval_uri(layout: Layout, release_id: str, *, model_digest: str, evaluation_digest: str) -> str:
    """Where the answer for these digests in this release lies."""
    name = sha256_of(f"{model_digest}/{evaluation_digest}".encode())
    return layout.release(release_id, "approve", f"{name}.json")


def record_approval(storage: Storage, layout: Layout, approval: Approval) -> tuple[str, Approval]:
    """Store the answer if there is none yet; returns its address and the answer on record.

    The same answer again changes nothing: the first record, with its name and note, stands.
    Raises: NotApproved if another answer for these digests is already on record.
    """
    uri = approval_uri(
        layout,
        approval.release_id,
        model_digest=approval.model_digest,
        evaluation_digest=approval.evaluation_digest,
    )
    if storage.create(uri, canonical_json(to_jsonable(approval))):
        return uri, approval
    stored = read_approval(storage, uri)
    if stored.answer is not approval.answer:
        raise NotApproved(
            f"release {approval.release_id!r} already has the answer {stored.answer.value!r} by {stored.answered_by!r} "
            f"for model {approval.model_digest}; {approval.answer.value!r} came later and is refused, "
            "start a new release"
        )
    return uri, stored


def read_approval(storage: Storage, uri: str) -> Approval:
    """The record at an address. Raises: NotApproved if there is none, or if it is no approval."""
    try:
        return from_jsonable(Approval, json.loads(storage.read(uri)))
    except FileNotFoundError as error:
        raise NotApproved(f"no approval at {uri}; run the approve stage first") from error
    except (ValueError, TypeError, KeyError) as error:
        raise NotApproved(f"what lies at {uri} is no approval: {error}; run the approve stage again") from error


def verify_approval(storage: Storage, uri: str, *, model_digest: str) -> Approval:
    """The approval at `uri`, if it lets exactly `model_digest` through.

    Raises: NotApproved for a missing, rejected or insufficient answer, or one given for other bytes.
    """
    approval = read_approval(storage, uri)
    if approval.model_digest != model_digest:
        raise NotApproved(
            f"approval {uri} is for model {approval.model_digest}, not for {model_digest}; approve these bytes first"
        )
    if approval.answer not in LETS_THROUGH:
        raise NotApproved(f"model {model_digest} was answered {approval.answer.value!r} by {approval.answered_by!r}")
    if approval.is_required and approval.answer is Decision.NOT_REQUIRED:
        raise NotApproved(f"model {model_digest} of risk tier {approval.risk_tier!r} needs an answer, it has none")
    return approval
