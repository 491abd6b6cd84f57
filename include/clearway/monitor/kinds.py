"""How a kind of model is watched: what the stage asks, and who answers for which kind.

The stage itself holds what is the same for all: drift beside the package's reference, faults, what one batch hands to
the next, the decision, the page.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from clearway.monitor.carried import Arrived
from clearway.monitor.length_part import LengthPart
from clearway.monitor.summary import PerformancePart
from clearway.monitor.surprise_part import SurprisePart
from clearway.packaging.text import LANGUAGE
from clearway.product import LoadedProduct

if TYPE_CHECKING:
    import pyarrow as pa

    from clearway.infra.datasets import DatasetDocument
    from clearway.infra.layout import Layout
    from clearway.infra.storage import Storage
    from clearway.monitor.batch_rows import BatchRows
    from clearway.packaging.package import Package


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One batch beside the champion.

    Args:
        document: the batch's rows and the labels that came with it.
        batch: its rows. served: the champion's answers to them, of the prediction log.
        champion: None before the first release.
    """

    product: LoadedProduct
    storage: "Storage"
    layout: "Layout"
    document: "DatasetDocument"
    batch_id: str
    batch: "BatchRows"
    served: "pa.Table"
    champion: "Package | None"


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """How right the champion is, as far as this batch tells: by labels that arrived, or by texts that it read.

    Args:
        length: how long texts are.
        arrived: what was judged, and what can be learned from it for a batch without labels.
        faults: input that was lost, in sentences; besides lost features, which are the same for every kind.
    """

    performance: PerformancePart | None
    surprise: SurprisePart | None
    arrived: Arrived
    faults: tuple[str, ...] = ()
    length: LengthPart | None = None


class Watched(Protocol):
    """A kind of model, as the monitor sees it."""

    @property
    def rows_per_piece(self) -> int:
        """Rows of a batch that are held at a time."""
        ...

    def judged(self, case: Case) -> Judged:
        """Of this batch, or of earlier ones whose labels came with it."""
        ...


def watched(product: LoadedProduct) -> Watched:
    """Whoever judges the product's kind of model."""
    if product.spec.model.kind == LANGUAGE:
        from clearway.monitor.text_watch import TextWatch  # noqa: PLC0415 - each kind its own libraries

        return TextWatch()
    from clearway.monitor.tabular_watch import TabularWatch  # noqa: PLC0415 - likewise

    return TabularWatch()
