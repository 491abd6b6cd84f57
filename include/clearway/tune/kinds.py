"""How a kind of model is searched: what a study asks, and who answers for which kind.

The study itself holds what is the same for all: agenda, windows, proposals, workers, journal, choice, page.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import pyarrow as pa

from clearway.contracts.refs import DatasetRef
from clearway.infra.environment import Environment
from clearway.infra.storage import Storage
from clearway.packaging.text import LANGUAGE
from clearway.product import LoadedProduct, Model
from clearway.product_language import Language

# Called with percent of the trial done and the loss there; raises TrialPruned to end it.
Report = Callable[[int, float], None]
Settings = Model | Language


@dataclass(frozen=True, slots=True, kw_only=True)
class Words:
    """How a kind's figures are called. `metric`: the loss in MLflow; `priced`: what the multiply-adds are of."""

    loss: str
    unit: str
    metric: str
    priced: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """`loss` on the newer rows, in the kind's unit; `multiply_adds` of what is priced."""

    loss: float
    multiply_adds: int


class Searchable(Protocol):
    """A kind of model, as a study sees it."""

    words: Words

    def rows(self, storage: Storage, dataset: DatasetRef, *, product: LoadedProduct, env: Environment) -> pa.Table:
        """Training rows with DAY and what a trial reads; the holdout is cut off before anything else looks.

        Raises: DataError if nothing is left.
        """
        ...

    def judged(
        self, older: pa.Table, newer: pa.Table, *, product: LoadedProduct, settings: Settings, report: Report
    ) -> Judged:
        """Train once on the older rows, judge on the newer ones.

        Raises: DataError if that cannot be done with these settings; what `report` raises.
        """
        ...


def searchable(product: LoadedProduct) -> Searchable:
    """Whoever trains and judges the product's kind of model."""
    if product.spec.model.kind == LANGUAGE:
        from clearway.tune.language_trial import LanguageTrial  # noqa: PLC0415 - torch

        return LanguageTrial()
    from clearway.tune.tabular_trial import TabularTrial  # noqa: PLC0415 - likewise

    return TabularTrial()
