"""Tables with a 0/1 label, as training sees them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import pyarrow.compute as pc
import safetensors.torch

from clearway import tabular
from clearway.contracts.errors import IntegrityError
from clearway.contracts.manifest import sha256_of
from clearway.contracts.refs import DatasetRef
from clearway.engine.checkpoints import load_newest
from clearway.engine.keeping import Keeping
from clearway.engine.loop import Trained
from clearway.engine.world import World as Peers
from clearway.infra.datasets import DAY
from clearway.infra.environment import Environment
from clearway.infra.storage import Storage
from clearway.packaging.encoder import TABULAR
from clearway.packaging.package import PackageContents
from clearway.packaging.split import Split
from clearway.product import LoadedProduct, Model, Product
from clearway.tabular.beside import Beside
from clearway.tabular.contents import base_rate, package_contents, rows_reference
from clearway.tabular.fit import Rows, World, fit
from clearway.tabular.model import ModelShape, shape_of
from clearway.tabular.training_set import (
    ARRAYS,
    TrainingSet,
    make_training_set,
    settings_of,
    training_rows,
    write_arrays,
)

# In a job's folder, beside the arrays.
REFERENCE = "reference.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedTable:
    """Encoded rows. A `kinds.kind.Prepared`."""

    product: Product
    settings: Model
    split: Split
    training_set: TrainingSet
    reference: Beside  # the network trains on one core: what the package says of the rows is made on another meanwhile
    num_threads: int

    @property
    def sizes(self) -> Mapping[str, Any]:
        encoder = self.training_set.encoder
        return {"num_numeric": len(encoder.numeric), "cardinalities": list(encoder.cardinalities)}

    @property
    def deciding(self) -> Mapping[str, Any]:
        encoder = sha256_of(self.training_set.encoder.to_json())
        return {"encoder": encoder, "num_rows": self.training_set.num_rows}

    @property
    def train_facts(self) -> dict[str, Any]:
        train = self.split.train
        rows = {"num_rows": len(train), "base_rate": base_rate(train)}
        return rows | {"first_day": str(pc.min(train[DAY]).as_py()), "last_day": str(pc.max(train[DAY]).as_py())}

    @property
    def holdout_start(self) -> date:
        return self.split.holdout_start

    def write(self, folder: Path) -> None:
        write_arrays(self.training_set, folder / ARRAYS)
        self.reference.start(folder / REFERENCE)

    def forget(self, folder: Path) -> None:
        for name in (ARRAYS, REFERENCE):
            (folder / name).unlink(missing_ok=True)

    def contents(self, folder: Path, *, job: str, facts: dict[str, Any]) -> PackageContents:
        state = load_newest(folder, job=job)
        if state is None:
            raise IntegrityError(f"training in {folder} left no checkpoint; train again")
        weights = {n.removeprefix("model."): t.numpy() for n, t in state.tensors.items() if n.startswith("model.")}
        return package_contents(
            self.split.train,
            product=self.product,
            encoder=self.training_set.encoder,
            bins=self.training_set.bins,
            shape=_shape(self.settings, self.sizes),
            weights=weights,
            facts=facts,
            rows=self.reference.found(folder / REFERENCE),
            num_threads=self.num_threads,
        )


class TabularKind:
    """A `kinds.kind.Kind`."""

    name = TABULAR
    room: ModuleType = tabular
    # Dozens of operations on half a megabyte each: two threads, which wait for each other after every one, take as long
    # as one and a third more CPU time (250,000 rows, two epochs: 15.5 s, 19.6 CPU; one thread: 14.7).
    uses_threads = False
    keeps_parts = False

    def prepare(
        self,
        dataset: DatasetRef,
        params: dict[str, float],
        *,
        product: LoadedProduct,
        env: Environment,
        storage: Storage,
    ) -> PreparedTable:
        settings = settings_of(product, params)
        split = training_rows(storage, dataset, product=product, env=env)
        training_set = make_training_set(
            split.train, features=product.spec.features, model=settings, num_threads=env.jobs.num_threads
        )
        reference = Beside(partial(rows_reference, split.train, training_set.encoder))
        return PreparedTable(
            product=product.spec,
            settings=settings,
            split=split,
            training_set=training_set,
            reference=reference,
            num_threads=env.jobs.num_threads,
        )

    def fit(
        self,
        folder: Path,
        *,
        settings: dict[str, Any],
        sizes: Mapping[str, Any],
        is_bfloat16: bool,
        world: Peers,
        keeping: Callable[[float], Keeping],
        should_stop: Callable[[], bool],
    ) -> Trained:
        model = Model.model_validate(settings)
        return fit(
            Rows(**safetensors.torch.load_file(folder / ARRAYS)),
            _shape(model, sizes),
            model,
            world=World(rank=world.rank, size=world.size, device=world.device, is_bfloat16=is_bfloat16),
            keeping=keeping(model.checkpoint_s),
            should_stop=should_stop,
        )


def _shape(model: Model, sizes: Mapping[str, Any]) -> ModelShape:
    return shape_of(model, num_numeric=sizes["num_numeric"], cardinalities=tuple(sizes["cardinalities"]))
