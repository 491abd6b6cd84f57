"""What an evaluation needs and no candidate has a part in, found while one is being trained."""

import json
import logging
from dataclasses import dataclass
from typing import Any

from clearway.contracts.codec import from_jsonable, to_jsonable
from clearway.contracts.errors import IntegrityError, Unmeasurable
from clearway.contracts.manifest import canonical_json, sha256_of
from clearway.contracts.refs import DatasetRef, YardsticksRef
from clearway.contracts.verdict import Verdict
from clearway.evaluate.spec import YardsticksInputs, YardsticksOutputs
from clearway.infra.environment import Environment
from clearway.infra.faults import fault
from clearway.infra.layout import Layout
from clearway.infra.storage import Storage, open_storage, read_if_there
from clearway.product import LoadedProduct

LOG = logging.getLogger("clearway.evaluate")


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """Yardsticks as they lie there. `figures`: the kind's own; empty where `unmeasurable` says why there are none."""

    dataset_digest: str
    product_digest: str
    figures: dict[str, Any]
    unmeasurable: str

    def is_of(self, dataset: DatasetRef, product: LoadedProduct) -> bool:
        """Whether they were taken from this dataset, as this product asks."""
        return (self.dataset_digest, self.product_digest) == (dataset.digest, product.digest)


def run(inputs: YardsticksInputs, *, product: LoadedProduct, env: Environment) -> YardsticksOutputs:
    """Fit and write the yardsticks, or find those that an earlier call wrote.

    Raises: IntegrityError for a dataset that is not what its digest says; DataError for one without rows to judge on.
    """
    storage, layout = open_storage(env.store_root), Layout(env.store_root, product.name)
    uri = layout.release(inputs.release_id, "yardsticks", "yardsticks.json")
    data = read_if_there(storage, uri) or b""
    stored = _parsed(data) if data else None
    if stored is None or not stored.is_of(inputs.dataset, product):
        stored = _measured(inputs, product, env, storage)
        data = canonical_json(to_jsonable(stored))
        fault("yardsticks.before_write")
        storage.write(uri, data)
    return YardsticksOutputs(
        verdict=Verdict.PASS,
        reason=f"cannot be measured: {stored.unmeasurable}" if stored.unmeasurable else "fitted on the training rows",
        yardsticks=YardsticksRef(uri=uri, digest=sha256_of(data)),
    )


def read_yardsticks(storage: Storage, ref: YardsticksRef, *, dataset: DatasetRef, product: LoadedProduct) -> Stored:
    """Raises: IntegrityError unless these are the bytes that were handed on, of this dataset and this product."""
    data = storage.read(ref.uri)
    if sha256_of(data) != ref.digest:
        raise IntegrityError(
            f"yardsticks {ref.uri} have digest {sha256_of(data)}, expected {ref.digest}; they were changed or made "
            "again, run the yardsticks step again"
        )
    stored = _parsed(data)
    if not stored.is_of(dataset, product):
        raise IntegrityError(
            f"yardsticks {ref.uri} are of dataset {stored.dataset_digest} and product {stored.product_digest}, asked "
            f"for are {dataset.digest} and {product.digest}; run the yardsticks step on this dataset"
        )
    return stored


def _parsed(data: bytes) -> Stored:
    return from_jsonable(Stored, json.loads(data))


def _measured(inputs: YardsticksInputs, product: LoadedProduct, env: Environment, storage: Storage) -> Stored:
    from clearway.evaluate.kinds import Ground, yardsticks_of  # noqa: PLC0415 - the numbers and their libraries

    figures, unmeasurable = dict[str, Any](), ""
    try:
        figures = to_jsonable(yardsticks_of(Ground(dataset=inputs.dataset, product=product, env=env, storage=storage)))
    except Unmeasurable as error:
        LOG.warning("yardsticks cannot be measured: %s", error)
        unmeasurable = str(error)
    return Stored(
        dataset_digest=inputs.dataset.digest,
        product_digest=product.digest,
        figures=figures,
        unmeasurable=unmeasurable,
    )
