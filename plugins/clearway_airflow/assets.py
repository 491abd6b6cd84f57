"""The assets that tie a product's DAGs together, and what their events carry.

An asset's name is its address as people write it, `clearway://flights/batches`. Its URI wears the `x-` prefix that Airflow
takes as it is: for any other scheme it loads the URI handlers of all installed providers, which costs 150 ms and boto3
in every task process (measured; docs/decisions/asset-names.md).
"""

from typing import Any

from airflow.sdk import Asset, AssetWatcher

from clearway_airflow.triggers.drop import DropTrigger


def batches(product: str) -> Asset:
    """A batch has landed. Event: batch_id, start, end (ISO 8601 UTC)."""
    return _asset(product, "batches")


def retrain(product: str) -> Asset:
    """Retraining was decided. Event: as_of, evidence_digest, reason."""
    return _asset(product, "retrain")


def champion(product: str) -> Asset:
    """Another version serves. Event: digest, release_id."""
    return _asset(product, "champion")


def arrivals(product: str) -> Asset:
    """A request file has appeared in the product's drop folder. Event: as_of, evidence_digest, reason."""
    watcher = AssetWatcher(name=f"{product}_drop", trigger=DropTrigger(product=product))
    return _asset(product, "arrivals", watchers=[watcher])


def name_of(product: str, what: str) -> str:
    """Name of an asset, for look-ups through the API."""
    return f"clearway://{product}/{what}"


def _asset(product: str, what: str, **more: Any) -> Asset:
    name = name_of(product, what)
    return Asset(name=name, uri=f"x-{name}", group="clearway", **more)
