"""Chi-square of two histograms with its effect size: for readers, and for rows that really are independent."""

# ruff: noqa: N803 - shape letters in names

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.special import chdtrc  # type: ignore[import-untyped]

from clearway.measures.shares import shares


class ChiSquare(NamedTuple):
    """`cramers_v`: effect size, 0 (same shares) to 1; `p_value` holds for independent rows only."""

    statistic: float
    num_free: int
    p_value: float
    cramers_v: float


def chi_square(reference_B: npt.ArrayLike, current_B: npt.ArrayLike) -> ChiSquare:
    """Homogeneity of two rows of counts; bins empty on both sides are left out.

    Args: reference_B, current_B: rows per bin. [B]
    Raises: ValueError for counts without a distribution.
    Source: Pearson's statistic of the 2 x B table; Cramer's V, with two rows the root of the statistic over all rows.
        docs/reference/drift.md#chi-square.
    """
    shares(reference_B), shares(current_B)
    table = np.asarray([reference_B, current_B], dtype=np.float64)
    table = table[:, table.sum(axis=0) > 0]
    total = table.sum()
    expected = table.sum(axis=1, keepdims=True) * table.sum(axis=0, keepdims=True) / total
    statistic = float(((table - expected) ** 2 / expected).sum())
    num_free = table.shape[1] - 1
    p_value = float(chdtrc(num_free, statistic)) if num_free else 1.0
    return ChiSquare(statistic, num_free, p_value, float(np.sqrt(statistic / total)))
