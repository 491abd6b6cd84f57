"""A person lifts or lowers a product's priority for a while. Every order is kept, with who gave it and why."""

import json
from dataclasses import dataclass

from clearway.contracts.codec import from_jsonable, to_jsonable
from clearway.contracts.errors import ConfigError
from clearway.contracts.manifest import canonical_json
from clearway.infra.storage import Storage, join

# An order nobody remembers must not last: a week covers an incident and its weekend.
MAX_HOURS = 168.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Override:
    """One order.

    Args:
        amount: added to the priority, [-1, 1].
        ordered_by, reason: who and why; neither may be empty.
        from_s, until_s: Unix seconds; at most a week apart.
    """

    product: str
    amount: float
    ordered_by: str
    reason: str
    from_s: float
    until_s: float

    def __post_init__(self) -> None:
        if not -1.0 <= self.amount <= 1.0:
            raise ConfigError(f"override of {self.product!r} by {self.amount}; allowed: -1 to 1")
        if not self.ordered_by.strip() or not self.reason.strip():
            raise ConfigError(f"override of {self.product!r} names no person or no reason; give both")
        if not 0 < self.until_s - self.from_s <= MAX_HOURS * 3600:
            hours = (self.until_s - self.from_s) / 3600
            raise ConfigError(f"override of {self.product!r} for {hours:g} hours; allowed: up to {MAX_HOURS:g}")


def order_override(storage: Storage, folder: str, override: Override) -> str:
    """Keep an order; returns its address. Orders are never changed: a newer one replaces an older one."""
    name = f"{round(override.from_s * 1000):015d}.json"
    address = join(folder, "overrides", override.product, name)
    if not storage.create(address, canonical_json(to_jsonable(override))):
        raise ConfigError(f"override of {override.product!r} at this very millisecond exists already; give it again")
    return address


def overrides(storage: Storage, folder: str, product: str) -> list[Override]:
    """Every order there ever was, oldest first."""
    addresses = storage.list(join(folder, "overrides", product))
    return [from_jsonable(Override, json.loads(storage.read(address))) for address in addresses]


def standing_override(storage: Storage, folder: str, product: str, *, now_s: float) -> float:
    """What the newest order adds now; 0 when there is none, or when it has run out."""
    given = [order for order in overrides(storage, folder, product) if order.from_s <= now_s]
    return given[-1].amount if given and now_s < given[-1].until_s else 0.0
