"""How a kind of model is judged: what the stage asks, and who answers for which kind.

The stage itself holds what is the same for all: packages, the real server, latency, the evaluation's file and its page.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from threadpoolctl import threadpool_limits

from clearway.contracts.refs import DatasetRef
from clearway.contracts.verdict import Check, Judgement
from clearway.evaluate.live import Latency
from clearway.infra.environment import Environment
from clearway.infra.storage import Storage
from clearway.packaging.package import Package
from clearway.packaging.text import LANGUAGE
from clearway.product import LoadedProduct


@dataclass(frozen=True, slots=True, kw_only=True)
class Ground:
    """What every candidate for a dataset is judged on."""

    dataset: DatasetRef
    product: LoadedProduct
    env: Environment
    storage: Storage


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """What is to be judged, on what. `champion`: None for a first model. `yardsticks`: figures of `yardsticks_of`."""

    candidate: Package
    champion: Package | None
    ground: Ground
    yardsticks: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """What every page shows, whatever the kind. `provenance`: (what, value) pairs: digests, addresses of nothing."""

    title: str
    latency: Latency
    provenance: Sequence[tuple[str, str]]


class Found(Protocol):
    """One evaluation's outcome."""

    @property
    def judgement(self) -> Judgement:
        """All checks and their verdict."""
        ...

    def evidence(self) -> Mapping[str, Any]:
        """Entries of evaluation.json beside the checks: nothing timed, no address."""
        ...

    def page(self, frame: Frame) -> bytes:
        """The page a reviewer decides on."""
        ...

    def files(self) -> Mapping[str, bytes]:
        """Other files worth keeping beside it."""
        ...


class Judge(Protocol):
    """Judges one case."""

    @property
    def latency_ms(self) -> float:
        """Limit for one row, p99."""
        ...

    def read(self) -> None:
        """Read the rows; apart from judging, so that a server can start meanwhile. Only where there are yardsticks.

        Raises: DataError.
        """
        ...

    def judge(self, operational: Callable[[], Sequence[Check]]) -> Found:
        """Score, compare, gate. `operational`: waits for checks made elsewhere (latency, the live server); called once
        all else is measured, since the server is asked meanwhile.

        Raises: Unmeasurable.
        """
        ...


def yardsticks_of(ground: Ground) -> Any:
    """What candidates are held against, as a dataclass that has a JSON form; the same for the same dataset and product.

    Raises: Unmeasurable; DataError for a dataset without rows to judge on.
    """
    # Matrices here are small: a second BLAS thread waits more than it computes (a fit took 0.3 CPU seconds with one,
    # 1.4 with two, on busy cores far more), and adds in another order, so figures would follow the machine.
    with threadpool_limits(1, user_api="blas"):
        if ground.product.spec.model.kind == LANGUAGE:
            from clearway.evaluate import language_yardstick  # noqa: PLC0415 - Arrow

            return language_yardstick.measure(ground)
        from clearway.evaluate import yardsticks  # noqa: PLC0415 - LightGBM

        return yardsticks.measure(ground)


def judge_of(case: Case) -> Judge:
    """Whoever judges the product's kind of model."""
    if case.ground.product.spec.model.kind == LANGUAGE:
        from clearway.evaluate.language_judge import LanguageJudge  # noqa: PLC0415 - torch

        return LanguageJudge(case)
    from clearway.evaluate.tabular_judge import TabularJudge  # noqa: PLC0415 - ONNX Runtime, LightGBM

    return TabularJudge(case)
