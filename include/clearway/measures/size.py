"""How large the values of a column of numbers are, zeros apart: the mean logarithm of their absolute values.

Another unit multiplies every value by one factor, so it moves this number by the logarithm of that factor, however the
values are spread and however many of them are zero: no rain is no rain in every unit. What the world does to it in a
week is far less, even where a distance sees nothing but noise. Sums add up over batches.

Shapes: N values, T batches.
"""

# ruff: noqa: N803, N806 - shape letters in names

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

# Of the training standard deviation: values nearer to zero than this are zero, written with other digits.
NOTHING = 1e-6
# Of a factor: what a float can hold.
MOST_LOG = 700.0
# With fewer values that are not zero a batch has no size: two storms are no rainfall.
MIN_VALUES = 30
# As many as a p-value over batches needs; see `batch_null`.
MIN_BATCHES = 4


class Sizes(NamedTuple):
    """Per batch, how many values are not zero, and the sum of their logarithms. [T]"""

    counts: Floats
    sums: Floats

    def of(self, batches: Ints) -> "Sizes":
        """Some batches."""
        return Sizes(self.counts[batches], self.sums[batches])

    def usual(self) -> tuple[float, float] | None:
        """Least and greatest size of a batch; None for too few batches that have one."""
        has_size = self.counts >= MIN_VALUES
        if has_size.sum() < MIN_BATCHES:
            return None
        sizes = self.sums[has_size] / self.counts[has_size]
        return float(sizes.min()), float(sizes.max())


def sizes_of(values_N: Floats, batch_N: Ints, *, num_batches: int, spread: float) -> Sizes:
    """Of finite training values. `spread`: their standard deviation; 0 for a column without a size."""
    if spread <= 0:
        return Sizes(np.zeros(num_batches), np.zeros(num_batches))
    is_something = np.abs(values_N) > NOTHING * spread
    batches, logs = batch_N[is_something], np.log(np.abs(values_N[is_something]))
    return Sizes(
        np.bincount(batches, minlength=num_batches).astype(np.float64),
        np.bincount(batches, weights=logs, minlength=num_batches).astype(np.float64),
    )


def size_sum(values_N: Floats, *, spread: float) -> tuple[int, float]:
    """The same of one batch: how many finite values are not zero, and the sum of their logarithms."""
    size_N = np.abs(values_N)
    told_N = size_N[size_N > NOTHING * spread]
    return int(told_N.size), float(np.log(told_N).sum())


def times_beyond(count: int, log_sum: float, usual: Sequence[float]) -> float | None:
    """By which factor a batch's size lies beyond those of training batches, above or below; 1 among them, None for
    fewer than MIN_VALUES values. `usual`: of `Sizes.usual`."""
    if count < MIN_VALUES:
        return None
    size, (least, most) = log_sum / count, usual
    return math.exp(min(MOST_LOG, max(0.0, least - size, size - most)))
