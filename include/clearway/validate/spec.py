"""Inputs and outputs of the validate stage."""

from dataclasses import dataclass

from clearway.contracts.refs import DatasetRef
from clearway.contracts.verdict import Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """The dataset to judge."""

    product: str
    release_id: str
    dataset: DatasetRef


@dataclass(frozen=True, slots=True, kw_only=True)
class Outputs:
    """`receipt_uri` exists only for PASS and names the dataset digest; training accepts no other dataset."""

    verdict: Verdict
    reason: str
    receipt_uri: str | None
    report_uri: str
