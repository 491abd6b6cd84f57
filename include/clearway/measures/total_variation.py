"""Total variation: the distance of categories, and of numbers that never varied in training."""

# ruff: noqa: N803 - shape letters in names

import numpy as np
import numpy.typing as npt

from clearway.measures.shares import shares


def total_variation(reference_B: npt.ArrayLike, current_B: npt.ArrayLike) -> float:
    """Half the sum of absolute differences between shares: the share of rows that would have to move. 0 to 1.

    Source: docs/reference/drift.md#total-variation.
    """
    return float(0.5 * np.abs(shares(reference_B) - shares(current_B)).sum())
