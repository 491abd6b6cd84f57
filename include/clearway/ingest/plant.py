"""Announced faults: a way to see what the loop does when a feed goes wrong, without waiting for one.

A person puts `<store>/<product>/plant.json` = {"fault": …, "from": batch id} there; every batch from that one on passes
through the function `plant` beside the product's `shape` function. The log says PLANTED, and so does the manifest.
"""

import json
import logging
from dataclasses import dataclass

import pyarrow as pa

from clearway.contracts.codec import from_jsonable
from clearway.contracts.errors import ConfigError
from clearway.infra.environment import Environment
from clearway.infra.storage import Storage, join
from clearway.product import LoadedProduct

FILE = "plant.json"
LOG = logging.getLogger("clearway.ingest")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plant:
    """`fault`: one the product knows; `since`: the first batch that has it."""

    fault: str
    since: str


def read_plant(storage: Storage, product: LoadedProduct, env: Environment) -> Plant | None:
    """The announced fault, or None. Raises: ConfigError outside the local environment or for a malformed file."""
    try:
        data = storage.read(join(env.store_root, product.name, FILE))
    except FileNotFoundError:
        return None
    if env.name != "local":
        raise ConfigError(
            f"{FILE} lies in the store of environment {env.name!r}; faults are planted locally only, remove it"
        )
    try:
        raw = json.loads(data)
        plant = from_jsonable(Plant, {{"from": "since"}.get(k, k): v for k, v in raw.items()})
    except (ValueError, AttributeError) as error:
        raise ConfigError(f'{FILE} holds {data[:200]!r}; allowed: {{"fault": name, "from": batch id}}') from error
    product.spec.batch.start_of(plant.since)
    return plant


def apply_plant(
    product: LoadedProduct, plant: Plant | None, batch_id: str, tables: dict[str, pa.Table]
) -> dict[str, pa.Table]:
    """The batch with its announced fault, if it has one. Raises: ConfigError for a fault the product does not know."""
    if plant is None or batch_id < plant.since:
        return tables
    LOG.warning("PLANTED fault %s in batch %s of %s", plant.fault, batch_id, product.name)
    if product.spec.shape is None:
        raise ConfigError(f"product {product.name!r} has no shape function, so no faults to plant; remove {FILE}")
    function = product.function(f"{product.spec.shape.partition(':')[0]}:plant")
    planted: dict[str, pa.Table] = function(plant.fault, tables)
    return planted


def plant_facts(plant: Plant | None, batch_id: str) -> dict[str, str]:
    """What the manifest of the batch says about it."""
    return {} if plant is None or batch_id < plant.since else {"planted": plant.fault}
