"""Inputs and outputs of the evaluate stage."""

from dataclasses import dataclass

from clearway.contracts.refs import DatasetRef, ModelRef
from clearway.contracts.verdict import Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """The candidate and the dataset whose newest labelled days it never saw; the champion is the release document's."""

    product: str
    release_id: str
    dataset: DatasetRef
    model: ModelRef


@dataclass(frozen=True, slots=True, kw_only=True)
class Outputs:
    """`evaluation_uri`: JSON with every check and metric; `report_uri`: the HTML page for people."""

    verdict: Verdict
    reason: str
    model: ModelRef
    evaluation_uri: str
    evaluation_digest: str
    report_uri: str
