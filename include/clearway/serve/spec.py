"""Inputs and outputs of scoring a batch through the live endpoint, as the product's callers do."""

from dataclasses import dataclass

from clearway.contracts.refs import DatasetRef
from clearway.contracts.verdict import Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """Rows of the newest batch in `dataset`; `batch_id` names it."""

    product: str
    release_id: str
    dataset: DatasetRef
    batch_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Outputs:
    """`digest`: model that answered, "" where nothing could be sent; rows already logged for this batch and model are
    not sent twice."""

    verdict: Verdict
    reason: str
    num_rows: int
    num_sent: int
    digest: str
