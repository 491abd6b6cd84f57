"""Population stability index: shown to readers who know it; no decision reads it."""

# ruff: noqa: N803 - shape letters in names

import numpy as np
import numpy.typing as npt

from clearway.measures.shares import shares

# Share given to an empty bin so that the logarithm stays finite: far below any share that matters.
PSI_FLOOR = 1e-4


def psi(reference_B: npt.ArrayLike, current_B: npt.ArrayLike, *, floor: float = PSI_FLOOR) -> float:
    """Population stability index between two binned distributions.

    Args:
        reference_B: share of rows per bin at training time, sums to 1. [B]
        current_B: same bins, same order, live window. [B]
        floor: share given to an empty bin, dimensionless; keeps the log finite.
    Returns: index in nats, >= 0; 0 means identical.
    Source: symmetric Kullback-Leibler divergence over bins, docs/reference/drift.md#psi.
    """
    p, q = (np.where(a == 0, floor, a) for a in (shares(reference_B), shares(current_B)))
    return float(np.sum((p - q) * np.log(p / q)))
