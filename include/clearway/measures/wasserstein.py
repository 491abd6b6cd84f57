"""First Wasserstein distance: the distance of numbers that the alarm reads."""

# ruff: noqa: N803 - shape letters in names

import numpy as np
import numpy.typing as npt

from clearway.measures.shares import shares


def wasserstein(
    reference_B: npt.ArrayLike,
    reference_at_B: npt.ArrayLike,
    current_B: npt.ArrayLike,
    current_at_B: npt.ArrayLike,
) -> float:
    """First Wasserstein distance between two sets of weighted points, in the unit of the points.

    Args:
        reference_B, current_B: weights (counts or shares). [B]
        reference_at_B, current_at_B: where each weight lies; for a histogram the mean of the rows of that bin, so that
            a shift inside an open outer bin still counts. [B]
    Returns: integral of |F - G|, >= 0.
    Source: area between the two cumulative distribution functions; docs/reference/drift.md#wasserstein.
    """
    at = np.concatenate([np.asarray(reference_at_B, dtype=np.float64), np.asarray(current_at_B, dtype=np.float64)])
    order = np.argsort(at, kind="stable")
    steps = np.concatenate([shares(reference_B), -shares(current_B)])[order]
    return float(np.sum(np.abs(np.cumsum(steps)[:-1]) * np.diff(at[order])))
