"""The assets that tie a product's DAGs together, and what their events carry.

An asset is named `flights_batches` and lies at `x-clearway://flights/batches`. Airflow takes an `x-` URI as it is; for
any other scheme it loads the URI handlers of all installed providers: 150 ms and boto3 in every task process (measured;
docs/decisions/0007-dags-are-drawn-from-cards.md).
"""

from typing import Any

from airflow.sdk import Asset, AssetAlias, AssetWatcher


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
    # Only the release's DAG has a watcher; Airflow's base of triggers takes 6 ms.
    from clearway_airflow.triggers.drop import DropTrigger  # noqa: PLC0415

    watcher = AssetWatcher(name=f"{product}_drop", trigger=DropTrigger(product=product))
    return _asset(product, "arrivals", watchers=[watcher])


def merged_batches(product: str) -> AssetAlias:
    """Through which a monitor run announces again the batches that were merged into it. An alias emits only what a run
    adds to it, so most runs emit nothing."""
    return AssetAlias(name=f"{product}_merged_batches")


def found_again(product: str) -> AssetAlias:
    """Through which the reconciler announces batches, decisions and requests whose event was lost."""
    return AssetAlias(name=f"{product}_found_again")


def _asset(product: str, what: str, **more: Any) -> Asset:
    return Asset(name=f"{product}_{what}", uri=f"x-clearway://{product}/{what}", group="clearway", **more)
