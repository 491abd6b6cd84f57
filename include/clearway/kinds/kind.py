"""The object that train asks about a kind of model, and the one place that knows which kinds there are.

`Kind.prepare` looks at the dataset in the launching process; what it leaves in the job's folder is what `Kind.fit`
finds there in every worker, forked or on another machine.
"""

from collections.abc import Callable, Mapping
from datetime import date
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

from clearway.contracts.refs import DatasetRef
from clearway.engine.keeping import Keeping
from clearway.engine.loop import Trained
from clearway.engine.world import World
from clearway.infra.environment import Environment
from clearway.infra.storage import Storage
from clearway.packaging.package import PackageContents
from clearway.packaging.text import LANGUAGE
from clearway.product import LoadedProduct, Model
from clearway.product_language import Language


class Prepared(Protocol):
    """One dataset, ready to be trained on."""

    @property
    def settings(self) -> Model | Language:
        """The product's model section with overrides applied."""
        ...

    @property
    def sizes(self) -> Mapping[str, Any]:
        """What follows from the data for the network, as plain JSON."""
        ...

    @property
    def deciding(self) -> Mapping[str, Any]:
        """What else decides the bits of the result, beside dataset, settings, machine and code."""
        ...

    @property
    def train_facts(self) -> dict[str, Any]:
        """What the package says about the training rows: `num_rows`, `first_day`, `last_day`, and the kind's own."""
        ...

    @property
    def holdout_start(self) -> date:
        """First day that is not learned from."""
        ...

    def write(self, folder: Path) -> None:
        """Leave what workers read in the job's folder."""
        ...

    def forget(self, folder: Path) -> None:
        """Remove it again, once the package is written."""
        ...

    def contents(self, folder: Path, *, job: str, facts: dict[str, Any]) -> PackageContents:
        """The package of a training that ended in this folder. Raises: IntegrityError if it left no model."""
        ...


class Kind(Protocol):
    """A kind of model, as training sees it."""

    name: str
    room: ModuleType  # whose code decides the result
    uses_threads: bool  # whether a step on a CPU is large enough for a second thread to help
    keeps_parts: bool  # whether each of several ranks keeps a part of a checkpoint, which takes a folder they share

    def prepare(
        self,
        dataset: DatasetRef,
        params: dict[str, float],
        *,
        product: LoadedProduct,
        env: Environment,
        storage: Storage,
    ) -> Prepared:
        """Raises: DataError for rows that cannot be trained on; ConfigError for params that do not fit."""
        ...

    def fit(
        self,
        folder: Path,
        *,
        settings: dict[str, Any],
        sizes: Mapping[str, Any],
        is_bfloat16: bool,
        world: World,
        keeping: Callable[[float], Keeping],
        should_stop: Callable[[], bool],
    ) -> Trained:
        """Train in a worker, by the engine. `keeping`: of the seconds between checkpoints. Raises: DataError."""
        ...


def kind_named(name: str) -> Kind:
    """The kind that product.yaml and packages name so."""
    if name == LANGUAGE:
        from clearway.kinds.language import LanguageKind  # noqa: PLC0415 - nobody else's libraries are loaded

        return LanguageKind()
    from clearway.kinds.tabular import TabularKind  # noqa: PLC0415 - likewise

    return TabularKind()
