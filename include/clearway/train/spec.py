"""Inputs and outputs of the train stage."""

from dataclasses import dataclass, field

from clearway.contracts.refs import DatasetRef, ModelRef
from clearway.contracts.verdict import Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """`params` override the product's model section."""

    product: str
    release_id: str
    dataset: DatasetRef
    receipt_uri: str
    params: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outputs:
    """`model`: the package; `mlflow_run_id`: where its parameters, metrics and environment are logged."""

    verdict: Verdict
    reason: str
    model: ModelRef
    mlflow_run_id: str
    duration_s: float
