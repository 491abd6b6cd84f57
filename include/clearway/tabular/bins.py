"""Piecewise-linear encoding, the part that is fitted: per numeric column the edges of quantile bins.

A value becomes (bin, place in the bin between 0 and 1); the model learns a vector per bin edge and goes straight
between them. Shapes: B rows, N columns, T bins at most. Slot T stands for a missing value.
Source: piecewise-linear encoding, Gorishniy et al. 2022, section 3.2, with values outside the training range clamped
to its ends, so that a broken sensor cannot push a score further than the training data ever did.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]

# Rows placed at a time: a block of all columns stays in the processor's cache while they are read one by one.
_BLOCK_ROWS = 16_384


@dataclass(frozen=True, slots=True, kw_only=True)
class Bins:
    """Edges of every column.

    Args:
        low: lower edge of each bin, +inf for the bins a column does not have. [N, T]
        inverse_width: 1 / width of each bin, 0 where there is none. [N, T]
    """

    low: FloatArray
    inverse_width: FloatArray

    @property
    def num_columns(self) -> int:
        return int(self.low.shape[0])

    @property
    def num_bins(self) -> int:
        return int(self.low.shape[1])

    @classmethod
    def fit(cls, numeric: FloatArray, *, num_bins: int) -> "Bins":
        """Quantile bins of each column of `numeric` [B, N], NaN left out; equal edges are merged."""
        low = np.full((numeric.shape[1], num_bins), np.inf, np.float32)
        inverse_width = np.zeros_like(low)
        for i in range(numeric.shape[1]):
            edges = _edges(numeric[:, i], num_bins)
            low[i, : len(edges) - 1] = edges[:-1]
            inverse_width[i, : len(edges) - 1] = np.float32(1) / np.diff(edges)
        low[:, 0] = np.where(np.isinf(low[:, 0]), np.float32(0), low[:, 0])  # a column without any value
        return cls(low=low, inverse_width=inverse_width)

    def place(self, numeric: FloatArray, *, num_threads: int = 1) -> tuple[npt.NDArray[np.int16], FloatArray]:
        """(bin, place in it from 0 to 1) of every value, both [B, N]; a missing value is (T, 0)."""
        bin_index = np.empty(numeric.shape, np.int16)
        fraction = np.empty(numeric.shape, np.float32)

        def fill(start: int) -> None:
            part = slice(start, start + _BLOCK_ROWS)
            self._place(numeric[part], bin_index[part], fraction[part])

        starts = range(0, len(numeric), _BLOCK_ROWS)
        if num_threads == 1 or len(starts) == 1:
            for start in starts:
                fill(start)
        else:
            with ThreadPoolExecutor(num_threads) as pool:
                list(pool.map(fill, starts))
        return bin_index, fraction

    def _place(self, numeric: FloatArray, bin_index: npt.NDArray[np.int16], fraction: FloatArray) -> None:
        """Fill both for these rows."""
        for i in range(self.num_columns):
            column = np.ascontiguousarray(numeric[:, i])
            # The same comparisons as in the exported graph: the number of inner edges at or below the value.
            index = np.searchsorted(self.low[i, 1:], column, side="right")
            place = np.clip((column - self.low[i][index]) * self.inverse_width[i][index], 0, 1)
            is_missing = np.isnan(column)
            bin_index[:, i] = np.where(is_missing, self.num_bins, index)
            fraction[:, i] = np.where(is_missing, 0, place)


def _edges(column: FloatArray, num_bins: int) -> FloatArray:
    present = column[~np.isnan(column)]
    if not len(present):
        return np.empty(1, np.float32)
    # "nearest"-type quantiles are values of the column itself, so few distinct values give few bins.
    edges = np.quantile(present, np.linspace(0, 1, num_bins + 1), method="inverted_cdf")
    return np.unique(edges.astype(np.float32))
