"""Two honest yardsticks, fitted in seconds: boosted trees and a straight line. They are compared with, never served.

Both are deterministic for given rows: fixed seeds, one thread, and so one order of additions.

Shapes: N rows, F columns (numeric first, then category indices).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from clearway.tabular.teacher import lightgbm

Floats = npt.NDArray[np.float64]
Matrix = npt.NDArray[np.float32]

# Small trees on few bins and a quarter of the columns: cheaper than the defaults and better on flights (+0.005 AUC),
# where rows of one day are far from independent.
TREES: dict[str, Any] = {
    "objective": "binary",
    "learning_rate": 0.06,
    "num_leaves": 15,
    "min_data_in_leaf": 100,
    "feature_fraction": 0.25,
    "bagging_fraction": 0.7,
    "bagging_freq": 1,
    "lambda_l2": 10.0,
    "max_bin": 31,
    "cat_smooth": 50.0,
    "min_data_per_group": 200,
    "deterministic": True,
    "force_row_wise": True,
    "num_threads": 1,
    "seed": 2013,
    "verbosity": -1,
}
# A ridge this weak only keeps columns that copy each other from blowing up.
RIDGE = 1.0
MAX_NEWTON_STEPS = 12
# Weights in standard deviations of logit: a step this small moves no score by more than a thousandth.
NEWTON_TOLERANCE = 1e-3
# Standardised values beyond this are outliers that would own a straight line (one weather row says 1,048 mph).
CLIP_SD = 5.0
# Categories above this cardinality would dominate the size of the linear problem for little; the trees see them.
MAX_ONE_HOT = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """Encoded labelled rows.

    Args:
        numeric: float32 [N, C], NaN for missing.
        categorical: int64 [N, K], 0 for unknown.
        labels: float64 0/1 [N].
        days: int64, days since 1970 (UTC) [N].
    """

    numeric: Matrix
    categorical: npt.NDArray[np.int64]
    labels: Floats
    days: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return int(self.labels.size)

    def take(self, index: npt.NDArray[Any]) -> "Rows":
        """Rows by mask or index."""
        return Rows(
            numeric=self.numeric[index],
            categorical=self.categorical[index],
            labels=self.labels[index],
            days=self.days[index],
        )

    def thinned(self, max_rows: int) -> "Rows":
        """At most `max_rows`, evenly spaced in the given order, so that every day keeps its share."""
        return self if len(self) <= max_rows else self.take(thinned(np.arange(len(self)), max_rows))


def thinned(index: npt.NDArray[np.int64], max_rows: int) -> npt.NDArray[np.int64]:
    """At most `max_rows` of the indices, evenly spaced."""
    if len(index) <= max_rows:
        return index
    return index[np.linspace(0, len(index) - 1, max_rows).astype(np.int64)]


class Trees:
    """Gradient-boosted trees (LightGBM), in one thread: a tree is grown in hundreds of short steps, and waiting for a
    second thread at the end of each costs more than it helps. Several may be grown side by side."""

    def __init__(self, rows: Rows, *, num_trees: int) -> None:
        lgb = lightgbm()
        num_numeric = rows.numeric.shape[1]
        categorical = list(range(num_numeric, num_numeric + rows.categorical.shape[1]))
        data = lgb.Dataset(
            _matrix(rows), rows.labels, categorical_feature=categorical, params=TREES, free_raw_data=True
        )
        self._booster = lgb.train(TREES, data, num_boost_round=num_trees)

    def to_text(self) -> str:
        """The fitted trees in LightGBM's own text form, which holds no code."""
        return str(self._booster.model_to_string())

    def score(self, rows: Rows) -> Floats:
        """Probability per row. [N]"""
        return np.asarray(self._booster.predict(_matrix(rows), num_threads=1), dtype=np.float64)


def _matrix(rows: Rows) -> Matrix:
    return np.hstack([rows.numeric, rows.categorical.astype(np.float32)])


class Line:
    """Ridge logistic regression by Newton's method on standardised columns; missing is the mean plus its own column."""

    def __init__(self, rows: Rows) -> None:
        finite = np.isfinite(rows.numeric)
        counts = np.maximum(finite.sum(axis=0), 1)
        values = np.where(finite, rows.numeric, 0.0).astype(np.float64)
        self._mean = values.sum(axis=0) / counts
        spread = np.sqrt(np.where(finite, (values - self._mean) ** 2, 0.0).sum(axis=0) / counts)
        self._scale = np.where(spread > 0, spread, 1.0)
        missing = (~finite).mean(axis=0)
        self._with_missing = np.flatnonzero((missing > 0) & (missing < 1))
        highest = rows.categorical.max(axis=0, initial=0)
        self._one_hot = [(k, int(h)) for k, h in enumerate(highest) if 0 < h <= MAX_ONE_HOT]
        self._weights = _newton(self._design(rows), rows.labels)

    def score(self, rows: Rows) -> Floats:
        """Probability per row. [N]"""
        return _sigmoid(self._design(rows) @ self._weights)

    def _design(self, rows: Rows) -> Floats:
        standard = (rows.numeric - self._mean) / self._scale
        is_missing = ~np.isfinite(standard)
        standard = np.clip(np.where(is_missing, 0.0, standard), -CLIP_SD, CLIP_SD)
        hot = [(rows.categorical[:, k, None] == np.arange(1, h + 1)).astype(np.float64) for k, h in self._one_hot]
        return np.hstack([np.ones((len(rows), 1)), standard, is_missing[:, self._with_missing], *hot])


def _newton(design: Floats, labels: Floats) -> Floats:
    """Weights of the penalised maximum likelihood. Source: iteratively reweighted least squares, Bishop 2006, 4.3.3."""
    penalty = np.full(design.shape[1], RIDGE)
    penalty[0] = 0.0
    weights = np.zeros(design.shape[1])
    rate = float(labels.mean())
    weights[0] = np.log(rate / (1.0 - rate))
    for _ in range(MAX_NEWTON_STEPS):
        p = _sigmoid(design @ weights)
        gradient = design.T @ (labels - p) - penalty * weights
        curvature = (design * (p * (1.0 - p))[:, None]).T @ design
        curvature[np.diag_indices_from(curvature)] += penalty + 1e-9
        step = np.linalg.solve(curvature, gradient)
        weights = weights + step
        if float(np.abs(step).max()) < NEWTON_TOLERANCE:
            break
    return weights


def _sigmoid(logits: Floats) -> Floats:
    from scipy.special import expit  # type: ignore[import-untyped]  # noqa: PLC0415

    found: Floats = expit(logits)
    return found
