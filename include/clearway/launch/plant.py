"""Announce a planted fault to ingest, so that the loop can be seen to answer it."""

import json
from typing import Any

from clearway.contracts.errors import ConfigError
from clearway.infra.environment import Environment
from clearway.infra.storage import join, open_storage
from clearway.ingest.plant import FILE
from clearway.product import LoadedProduct

# Clean weeks first, so that before and after can be told apart.
CLEAN_WEEKS = 2


def plant_fault(env: Environment, product: LoadedProduct, *, fault: str, batch_ids: list[str]) -> dict[str, Any]:
    """Plant `fault` from the batch CLEAN_WEEKS after the first of `batch_ids`; the same fault planted before stays.

    Raises: ConfigError for a fault the product does not know.
    """
    allowed = known_faults(product)
    if fault not in allowed:
        raise ConfigError(f"fault {fault!r} is unknown to product {product.name!r}; allowed: {', '.join(allowed)}")
    before = planted(env, product.name)
    if before is not None and before["fault"] == fault:
        return before
    document = {"fault": fault, "from": batch_ids[CLEAN_WEEKS]}
    open_storage(env.store_root).write(_uri(env, product.name), json.dumps(document).encode())
    return document


def known_faults(product: LoadedProduct) -> list[str]:
    """Names in the table FAULTS beside the product's `plant` function; empty for a product that cannot plant."""
    shape = product.spec.shape
    if shape is None:
        return []
    function = product.function(f"{shape.partition(':')[0]}:plant")
    return sorted(function.__globals__.get("FAULTS", {}))


def planted(env: Environment, product: str) -> dict[str, Any] | None:
    """The fault planted now, or None."""
    try:
        return dict(json.loads(open_storage(env.store_root).read(_uri(env, product))))
    except FileNotFoundError:
        return None


def _uri(env: Environment, product: str) -> str:
    return join(env.store_root, product, FILE)
