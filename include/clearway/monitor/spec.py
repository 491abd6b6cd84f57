"""Inputs and outputs of the monitor stage."""

from dataclasses import dataclass

from clearway.contracts.refs import DatasetRef
from clearway.contracts.verdict import Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """`dataset`: the newest batch's features and the labels that arrived with it."""

    product: str
    release_id: str
    dataset: DatasetRef
    batch_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Outputs:
    """`verdict`: FAIL means drifted or degraded. `retrain`: the decision.

    `evidence_digest` names its cause, so that the same evidence never starts two releases; `as_of`: end of the data the
    retraining should use.
    """

    verdict: Verdict
    reason: str
    retrain: bool
    evidence_digest: str
    as_of: str
    report_uri: str
    summary_uri: str
