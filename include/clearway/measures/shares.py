"""Counts per bin as shares of all rows: what every distance between two histograms starts from."""

# ruff: noqa: N803 - shape letters in names

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


def shares(weights_B: npt.ArrayLike) -> Floats:
    """Weights that sum to 1. [B] Raises: ValueError for weights without a distribution."""
    values = np.asarray(weights_B, dtype=np.float64)
    total = values.sum()
    if not np.isfinite(total) or total <= 0 or values.min() < 0:
        raise ValueError(f"bin weights {values.tolist()} have no distribution; non-negative with a positive sum needed")
    found: Floats = values / total
    return found
