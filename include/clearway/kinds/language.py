"""Texts whose every next byte is predicted, as training sees them."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from types import ModuleType
from typing import Any

import pyarrow.compute as pc
import safetensors.torch

from clearway import language
from clearway.contracts.errors import IntegrityError
from clearway.contracts.manifest import canonical_json
from clearway.contracts.refs import DatasetRef
from clearway.engine.keeping import Keeping
from clearway.engine.loop import Trained
from clearway.engine.parallel import full_tensors
from clearway.engine.world import World
from clearway.infra.datasets import DAY
from clearway.infra.environment import Environment
from clearway.infra.storage import Storage
from clearway.language.contents import package_contents
from clearway.language.documents import Documents, read_documents, training_shards
from clearway.language.fit import fit, plan_of, shape_of
from clearway.language.stream import TokenStream
from clearway.packaging.package import PackageContents
from clearway.packaging.text import LANGUAGE
from clearway.product import LoadedProduct, Product
from clearway.product_language import Language

# In a job's folder: which shards to map and how much of each; the whole weights, once training has ended.
SHARDS, WEIGHTS = "shards.json", "weights.safetensors"


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedText:
    """Documents whose tokens lie in files. A `kinds.kind.Prepared`. `shards`: of a folder, see training_shards."""

    product: Product
    settings: Language
    documents: Documents
    shards: Callable[[Path], list[tuple[Path, int]]]

    @property
    def sizes(self) -> Mapping[str, Any]:
        return {}

    @property
    def deciding(self) -> Mapping[str, Any]:
        return {"num_rows": len(self.documents.train)}

    @property
    def train_facts(self) -> dict[str, Any]:
        train = self.documents.train
        num_bytes = pc.sum(pc.binary_length(train[self.product.language.text])).as_py()
        rows = {"num_rows": len(train), "num_bytes": num_bytes}
        return rows | {"first_day": str(pc.min(train[DAY]).as_py()), "last_day": str(pc.max(train[DAY]).as_py())}

    @property
    def holdout_start(self) -> date:
        return self.documents.holdout_start

    def write(self, folder: Path) -> None:
        shards = [[str(path), length] for path, length in self.shards(folder)]
        temporary = folder / f"{SHARDS}.tmp"
        temporary.write_bytes(canonical_json(shards))
        temporary.replace(folder / SHARDS)

    def forget(self, folder: Path) -> None:
        for name in (SHARDS, WEIGHTS):
            (folder / name).unlink(missing_ok=True)
        for path in folder.glob("tokens-*.bin"):
            path.unlink()

    def contents(self, folder: Path, *, job: str, facts: dict[str, Any]) -> PackageContents:  # noqa: ARG002 - one per job
        if not (folder / WEIGHTS).exists():
            raise IntegrityError(f"training in {folder} left no weights; train again")
        return package_contents(
            self.documents,
            product=self.product,
            shape=shape_of(self.settings),
            weights=safetensors.torch.load((folder / WEIGHTS).read_bytes()),
            facts=facts,
        )


class LanguageKind:
    """A `kinds.kind.Kind`."""

    name = LANGUAGE
    room: ModuleType = language
    uses_threads = True
    keeps_parts = True

    def prepare(
        self,
        dataset: DatasetRef,
        params: dict[str, float],
        *,
        product: LoadedProduct,
        env: Environment,
        storage: Storage,
    ) -> PreparedText:
        settings = product.spec.language.model.overridden(params)
        shape_of(settings)  # sizes that do not fit together are refused before a worker starts
        documents = read_documents(storage, dataset, product=product, env=env)

        def shards(folder: Path) -> list[tuple[Path, int]]:
            return training_shards(storage, dataset, documents, product=product, env=env, folder=folder)

        return PreparedText(product=product.spec, settings=settings, documents=documents, shards=shards)

    def fit(
        self,
        folder: Path,
        *,
        settings: dict[str, Any],
        sizes: Mapping[str, Any],  # noqa: ARG002 - bytes are the same in every text
        is_bfloat16: bool,
        world: World,
        keeping: Callable[[float], Keeping],
        should_stop: Callable[[], bool],
    ) -> Trained:
        shards = json.loads((folder / SHARDS).read_bytes())
        model = Language.model_validate(settings)
        trained = fit(
            TokenStream.open([Path(path) for path, _ in shards], [length for _, length in shards]),
            model,
            plan=plan_of(world, is_bfloat16=is_bfloat16),
            world=world,
            # Several ranks share the parameters, so each keeps its part.
            keeping=replace(keeping(model.checkpoint_s), is_sharded=world.size > 1),
            should_stop=should_stop,
        )
        if trained.is_complete:
            _write_weights(trained, folder, is_first=world.rank == 0)
        return trained


def _write_weights(trained: Trained, folder: Path, *, is_first: bool) -> None:
    """One file, whatever the number of ranks; they gather it together and the first one writes."""
    tensors = full_tensors(trained.model)
    if is_first:
        temporary = folder / f"{WEIGHTS}.tmp"
        temporary.write_bytes(safetensors.torch.save({name: t.contiguous() for name, t in sorted(tensors.items())}))
        temporary.replace(folder / WEIGHTS)
