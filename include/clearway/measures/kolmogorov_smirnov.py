"""Kolmogorov-Smirnov distance from two histograms, as bounds: between bin edges a histogram does not know."""

# ruff: noqa: N803 - shape letters in names

import numpy as np
import numpy.typing as npt

from clearway.measures.shares import shares


def kolmogorov_smirnov(reference_B: npt.ArrayLike, current_B: npt.ArrayLike) -> tuple[float, float]:
    """Largest difference of the two cumulative distributions: (at least, at most), both 0 to 1.

    Args: reference_B, current_B: rows per bin, bins in rising order and the same for both. [B]
    Source: at an edge both distributions are known exactly, so the largest difference there is a lower bound; inside a
        bin each rises by no more than its own share, so F at the bin's end less G at its start (or the reverse) is an
        upper one. docs/reference/drift.md#kolmogorov-smirnov.
    """
    p, q = shares(reference_B), shares(current_B)
    after = np.cumsum(p) - np.cumsum(q)  # F - G at the end of each bin
    at_most = max(float(np.max(after + q)), float(np.max(p - after)))
    return float(np.max(np.abs(after))), min(1.0, at_most)
