"""Inputs and outputs of the ingest stage."""

from dataclasses import dataclass

from clearway.contracts.refs import RawRef
from clearway.contracts.verdict import Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """Batches inside [start, end), ISO 8601 UTC; missing ones are landed, known ones compared."""

    product: str
    release_id: str
    start: str
    end: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Outputs:
    """`raw` names every landed batch of the window; FAIL when a batch was quarantined (`reason` says why)."""

    verdict: Verdict
    reason: str
    raw: RawRef | None
    end: str
    num_batches: int
    num_new: int
