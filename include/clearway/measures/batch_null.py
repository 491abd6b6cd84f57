"""How surprising a batch's distance is, beside what training batches reached: a p-value over batches, not over rows.

Rows of a batch share their week, so a test that counts rows calls every week different. The unit here is the batch: the
logarithms of the training batches' distances have a mean and a spread, and a new batch is one more of them.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

from scipy.special import stdtr  # type: ignore[import-untyped]

# With fewer batches the spread of their distances is a guess: four leave three degrees of freedom.
MIN_BATCHES = 4
# Distances below this (of a standard deviation, or of the rows) are rounding: their logarithm would be noise.
LEAST_DISTANCE = 1e-6
# A spread below this (a twentieth in distance) is luck of few batches.
LEAST_SPREAD = 0.05


class BatchNull(NamedTuple):
    """Mean and standard deviation of the logarithms of `num_batches` distances."""

    mean: float
    spread: float
    num_batches: int


def batch_null(distances: Sequence[float]) -> BatchNull | None:
    """What training batches reached, each against the others; None for fewer than MIN_BATCHES."""
    if len(distances) < MIN_BATCHES:
        return None
    logs = [math.log(max(d, LEAST_DISTANCE)) for d in distances]
    mean = math.fsum(logs) / len(logs)
    spread = math.sqrt(math.fsum((x - mean) ** 2 for x in logs) / (len(logs) - 1))
    return BatchNull(mean, max(spread, LEAST_SPREAD), len(logs))


def p_value(distance: float, null: BatchNull) -> float:
    """Chance that one more batch like those of training lies at least this far away.

    Source: prediction interval of a normal sample: (x - mean) / (s sqrt(1 + 1/T)) is Student's t with T - 1 degrees of
        freedom. Logarithms, since distances are positive and skewed. Rate of false alarms measured in
        docs/reference/drift.md#false-alarms-in-simulated-windows.
    """
    deviation = math.log(max(distance, LEAST_DISTANCE)) - null.mean
    quantile = deviation / (null.spread * math.sqrt(1 + 1 / null.num_batches))
    return float(stdtr(null.num_batches - 1, -quantile))
