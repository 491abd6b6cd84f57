"""What a deployment acts through, in one value: handed in by tests, opened from the environment by the verbs."""

from dataclasses import dataclass
from pathlib import Path

from clearway.infra.clock import Clock, SystemClock
from clearway.infra.endpoint import Endpoint, open_endpoint
from clearway.infra.environment import Environment
from clearway.infra.layout import Layout
from clearway.infra.release_store import ReleaseStore, open_release_store
from clearway.infra.storage import Storage, open_storage


@dataclass(frozen=True, slots=True, kw_only=True)
class Controls:
    """Clients of one product.

    Args:
        key_folder: where the packages' public key lies.
        lease_ttl_s: seconds a silent holder keeps the lease; every stored step starts it anew.
    """

    store: ReleaseStore
    endpoint: Endpoint
    storage: Storage
    layout: Layout
    key_folder: Path
    clock: Clock
    lease_ttl_s: float


def open_controls(env: Environment, *, product: str) -> Controls:
    """The clients this environment names."""
    return Controls(
        store=open_release_store(env),
        endpoint=open_endpoint(env, product=product),
        storage=open_storage(env.store_root),
        layout=Layout(env.store_root, product),
        key_folder=env.home / "keys",
        clock=SystemClock(),
        lease_ttl_s=env.release_store.lease_ttl_s,
    )
