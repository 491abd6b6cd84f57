"""Who answers a request: the traffic table and the split inside the process."""

import math
import zlib
from collections.abc import Mapping

from clearway.contracts.errors import ConfigError

ALL_PCT = 100.0
# Weights come as decimal percentages; a sum that misses 100 by more than rounding is a mistake, not rounding.
SUM_TOLERANCE_PCT = 1e-6
_CRC_VALUES = 2**32


class Traffic:
    """One immutable traffic table; replaced whole, so no request ever sees half of a change.

    Args:
        weights_pct: digest → share in percent, finite, >= 0, sum 100; empty means nothing takes traffic. Order matters:
            a version listed first keeps its sticky callers while its share rises.
    Raises: ConfigError naming the weight that is wrong.
    """

    __slots__ = ("_bounds", "only", "weights_pct")

    def __init__(self, weights_pct: Mapping[str, float]) -> None:
        check_weights(weights_pct)
        self.weights_pct = {digest: float(weight) for digest, weight in weights_pct.items()}
        takers = [(digest, weight) for digest, weight in self.weights_pct.items() if weight > 0]
        self.only = takers[0][0] if len(takers) == 1 else None
        reached, bounds = 0.0, []
        for digest, weight in takers:
            reached += weight
            bounds.append((reached, digest))
        self._bounds = tuple(bounds)

    @property
    def is_empty(self) -> bool:
        """Whether nothing takes traffic."""
        return not self._bounds

    def choose(self, point_pct: float) -> str:
        """The digest whose share holds `point_pct`, 0 <= point < 100. Must not be called on an empty table."""
        for bound, digest in self._bounds:
            if point_pct < bound:
                return digest
        return self._bounds[-1][1]  # the sum may end a rounding error below 100


def sticky_point(key: bytes) -> float:
    """Where a caller's key falls in 0 <= point < 100; the same key always falls on the same point."""
    return zlib.crc32(key) / _CRC_VALUES * ALL_PCT


def check_weights(weights_pct: Mapping[str, float]) -> None:
    """Raises: ConfigError unless every weight is finite and >= 0 and they sum to 100, or there are none."""
    for digest, weight in weights_pct.items():
        if not math.isfinite(weight) or weight < 0:
            raise ConfigError(
                f"weight of version {digest[:80]!r} is not a finite number >= 0; allowed: 0 to 100 percent"
            )
    total = math.fsum(weights_pct.values())
    if weights_pct and abs(total - ALL_PCT) > SUM_TOLERANCE_PCT:
        raise ConfigError(f"weights sum to {total:.6g}; allowed: exactly 100 percent, or an empty table")
