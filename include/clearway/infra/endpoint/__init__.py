"""The live endpoint: load a version, set traffic, and verify what really answers."""

from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class TrafficState:
    """What an endpoint says of itself: digest → weight in percent, and digests that are loaded and ready."""

    weights_pct: dict[str, float]
    loaded: tuple[str, ...]
    epoch: int


class Endpoint(Protocol):
    """A model server that several versions can share; every implementation passes the same conformance suite."""

    def load(self, *, uri: str, digest: str, epoch: int) -> None:
        """Load a package beside the others, verify its digest and warm it up; loading twice is a no-op.

        Raises: IntegrityError, StaleWriter (epoch older than the endpoint has seen), Unavailable.
        """
        ...

    def set_weights(self, weights_pct: dict[str, float], *, epoch: int) -> None:
        """Switch traffic atomically; weights are finite, >= 0 and sum to 100. Raises: StaleWriter, Unavailable."""
        ...

    def state(self) -> TrafficState:
        """What is loaded and what takes traffic. Raises: Unavailable."""
        ...

    def predict(self, rows: list[dict[str, Any]], *, digest: str | None = None) -> tuple[list[float], str]:
        """Scores and the digest of the model that answered; `digest` asks one loaded version directly (never logged)."""
        ...

    def unload(self, digest: str, *, epoch: int) -> None:
        """Drop a version that takes no traffic."""
        ...
