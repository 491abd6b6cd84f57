"""Inputs and outputs of the deploy stage and of its way back."""

from dataclasses import dataclass

from clearway.contracts.refs import ModelRef, RolloutStatus
from clearway.contracts.verdict import Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """An approved model; `approval_uri` names the same digest or nothing moves."""

    product: str
    release_id: str
    model: ModelRef
    approval_uri: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RollbackInputs:
    """Return to the previous champion."""

    product: str
    release_id: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Outputs:
    """`status`: what answers now, as the live endpoint says; None when nothing serves."""

    verdict: Verdict
    reason: str
    status: RolloutStatus | None
