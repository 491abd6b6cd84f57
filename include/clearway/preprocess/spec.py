"""Inputs and outputs of the preprocess stage."""

from dataclasses import dataclass

from clearway.contracts.refs import DatasetRef, RawRef
from clearway.contracts.verdict import Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """`raw`: batches to cover; only those from `start` on enter the dataset, earlier ones serve as look-back."""

    product: str
    release_id: str
    raw: RawRef
    start: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Outputs:
    """`dataset` holds features of all rows and the labels that had arrived by the end of the window."""

    verdict: Verdict
    reason: str
    dataset: DatasetRef
    num_rows: int
    num_labelled: int
    num_batches_computed: int
