"""Inputs and outputs of the approve stage."""

from dataclasses import dataclass

from clearway.contracts.refs import ModelRef
from clearway.contracts.verdict import Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """`answer`: by a person (`approve` or `reject`), by the local profile (`auto`), or `not_required`."""

    product: str
    release_id: str
    model: ModelRef
    evaluation_digest: str
    answer: str
    answered_by: str
    note: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Outputs:
    """`approval_uri`: the stored record; FAIL when the answer was a rejection."""

    verdict: Verdict
    reason: str
    model: ModelRef
    approval_uri: str
