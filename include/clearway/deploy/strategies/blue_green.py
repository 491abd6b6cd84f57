"""Blue-green: green proves itself without traffic, then takes all of it at once; blue stays loaded, one switch away."""

from clearway.contracts.rollout import ALL_AT_ONCE, Rollout
from clearway.product_rollout import Rollout as Settings


def stage(_settings: Settings) -> Rollout:
    """One step that asks for no evidence."""
    return ALL_AT_ONCE
