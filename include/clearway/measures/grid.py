"""The points a column of numbers lies on: readings come on a grid (whole minutes, wind in steps of a knot).

Another unit is another grid. That shows where no distance can: wind and visibility vary by their own size from week to
week, but the values they are read at stay the same. Points are a set, so batches add up by union. Zeros are left out:
no rain is no rain in every unit, and dry hours would hide the wet ones.
"""

# ruff: noqa: N803, N806 - shape letters in names

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

# Of the training standard deviation: values closer than this are one reading, written with other digits.
STEP = 1e-3
# Whole steps further from zero than this share the outermost one, which no training value reaches.
MAX_STEP = float(np.iinfo(np.int32).max)
# A column with more points has no grid; as for names of categories, this bounds the size of the reference.
MAX_POINTS = 500
# Largest share of training values at points that only one training batch holds; with more, new points are nothing new.
MAX_LONELY = 0.05


def points_of(values_N: Floats, batch_N: Ints, *, spread: float) -> list[int] | None:
    """Points of finite training values, in steps from zero; None for a column without a grid, or of one batch.

    Args:
        batch_N: batch of each value.
        spread: standard deviation of the values; 0 for a column that never varied, which has no grid either.
    """
    if not values_N.size or spread <= 0:
        return None
    steps_N = _steps(values_N, spread)
    is_told = steps_N != 0
    points_P, at_N = np.unique(steps_N[is_told], return_inverse=True)
    if not 0 < len(points_P) <= MAX_POINTS:
        return None
    held_PT = np.zeros((len(points_P), int(batch_N.max()) + 1), dtype=np.int64)
    np.add.at(held_PT, (at_N, batch_N[is_told]), 1)
    lonely = held_PT[(held_PT > 0).sum(axis=1) == 1].sum() / at_N.size
    return points_P.tolist() if lonely <= MAX_LONELY else None


def off_grid(values_N: Floats, points_P: Sequence[int], *, spread: float) -> tuple[int, int]:
    """How many finite values lie beside every point, and of how many that are not zero. `points_P`, `spread`: of the
    training values, see `points_of`."""
    near = np.asarray(points_P, dtype=np.int64)[:, None] + np.asarray([-1, 0, 1])
    steps_N = _steps(values_N, spread)
    told_N = steps_N[steps_N != 0]
    return int(told_N.size - np.isin(told_N, near).sum()), int(told_N.size)


def _steps(values_N: Floats, spread: float) -> Ints:
    steps: Ints = np.clip(np.rint(values_N / (STEP * spread)), -MAX_STEP, MAX_STEP).astype(np.int64)
    return steps
