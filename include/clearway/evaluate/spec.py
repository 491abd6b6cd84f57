"""Inputs and outputs of the evaluate stage, and of its first half that needs no candidate."""

from dataclasses import dataclass

from clearway.contracts.refs import DatasetRef, ModelRef, YardsticksRef
from clearway.contracts.verdict import Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class YardsticksInputs:
    """The dataset that a candidate is being trained from."""

    product: str
    release_id: str
    dataset: DatasetRef


@dataclass(frozen=True, slots=True, kw_only=True)
class YardsticksOutputs:
    """Where the yardsticks lie, also where nothing could be measured: the evaluation says so then."""

    verdict: Verdict
    reason: str
    yardsticks: YardsticksRef


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """The candidate, the dataset whose newest labelled days it never saw, and the yardsticks of that dataset; the
    champion is the release document's."""

    product: str
    release_id: str
    dataset: DatasetRef
    model: ModelRef
    yardsticks: YardsticksRef


@dataclass(frozen=True, slots=True, kw_only=True)
class Outputs:
    """`evaluation_uri`: JSON with every check and metric; `report_uri`: the HTML page for people."""

    verdict: Verdict
    reason: str
    model: ModelRef
    evaluation_uri: str
    evaluation_digest: str
    report_uri: str
