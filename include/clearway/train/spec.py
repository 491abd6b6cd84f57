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


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """A finished training before MLflow hears of it: kept, so that recording can be repeated with the same numbers.

    Args:
        job: digest of all that decided the result.
        history: [step, epochs done, mean training log-loss, learning rate] per report.
        params: everything worth a line in MLflow.
        started_s, ended_s: Unix seconds. `fit_s`: seconds of the last process's loop; it saw `num_samples` rows.
        paces: [step, samples per second, share of the time waiting for them] by epoch of that process.
    """

    model: ModelRef
    job: str
    history: tuple[tuple[float, ...], ...]
    params: dict[str, str]
    started_s: float
    ended_s: float
    fit_s: float
    num_samples: int
    paces: tuple[tuple[float, ...], ...] = ()
