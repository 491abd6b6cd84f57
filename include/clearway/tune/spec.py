"""Inputs and outputs of the tune stage."""

from dataclasses import dataclass, field

from clearway.contracts.refs import DatasetRef
from clearway.contracts.verdict import Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """A validated dataset; `receipt_uri` proves it."""

    product: str
    release_id: str
    dataset: DatasetRef
    receipt_uri: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Outputs:
    """`params`: overrides of product.yaml's model section; empty when no study ran or nothing better was found.

    `report_uri`: the page of the study, empty when none ran.
    """

    verdict: Verdict
    reason: str
    num_trials: int
    params: dict[str, float] = field(default_factory=dict)
    report_uri: str = ""
