"""A teacher for the network: boosted trees, and mixtures of rows that the trees score for the network to learn.

A day has thousands of rows with one weather and one traffic. A network that learns their labels knows its days by heart
before it has learned what they have in common; trees are slower at the one and quicker at the other. So the trees learn
the labels, and the network learns the trees. It is shown mixtures, rows in which some values come from a second row:
what the trees know by heart of a row says nothing about a mixture, what they have understood does.

Sources: rows made up for a model that learns from another, Buciluă, Caruana & Niculescu-Mizil 2006 (their donor is the
nearest row, ours is any); learning scores instead of labels, also Hinton, Vinyals & Dean 2015.

Shapes: R rows, M mixtures, F columns (numeric first, then category indices).
"""

import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt

from clearway.product_teacher import Teacher

Matrix = npt.NDArray[np.float32]

_TREES: dict[str, Any] = {
    "objective": "binary",
    "min_data_in_leaf": 100,
    # A quarter of the columns per tree and 63 bins: cheaper than the defaults and better on flights.
    "feature_fraction": 0.25,
    "max_bin": 63,
    "bagging_fraction": 0.8,
    "bagging_freq": 1,
    "lambda_l2": 5.0,
    "deterministic": True,
    "force_row_wise": True,
    # A tree is grown in hundreds of short steps: a second thread waits at the end of each for longer than it helps
    # (150,000 rows on two cores: 9.8 s with two, 7.1 with one). So boosters are grown side by side, a thread each.
    "num_threads": 1,
    "verbosity": -1,
}
# Mixtures made by one task of a thread, from a generator of its own.
_CHUNK_ROWS = 16_384


def lesson(
    label: Matrix, rows: Matrix, *, num_numeric: int, teacher: Teacher, seed: int, num_threads: int
) -> tuple[Matrix, Matrix]:
    """Mixtures [M, F] and the trees' scores of them [M]; the same for any number of threads.

    Args:
        label: 0 or 1. [R]
        rows: as trees take them, NaN for missing. [R, F]
    """
    size = min(teacher.num_mixtures * len(rows), teacher.max_mixtures)
    mixtures, scores = np.empty((size, rows.shape[1]), np.float32), np.empty(size, np.float32)
    lightgbm()  # in one thread: see there

    def fit(number: int) -> Any:
        return _fit(label, rows, number, num_numeric=num_numeric, teacher=teacher, seed=seed)

    # In threads that end here: the process may be forked afterwards.
    with ThreadPoolExecutor(num_threads) as pool:
        boosters = list(pool.map(fit, range(teacher.num_boosters)))

        def fill(start: int) -> None:
            part = slice(start, min(start + _CHUNK_ROWS, size))
            mixtures[part] = _mixed(rows, part, size=size, share=teacher.share, seed=seed)
            scores[part] = np.mean([b.predict(mixtures[part], num_threads=1) for b in boosters], axis=0)

        list(pool.map(fill, range(0, size, _CHUNK_ROWS)))
    return mixtures, scores


def lightgbm() -> Any:
    """LightGBM without its scikit-learn estimators: nobody here uses them, and importing scikit-learn for them (with
    scipy.stats below it) costs 1.3 CPU seconds, as much as fitting three folds."""
    if "lightgbm" not in sys.modules and "sklearn" not in sys.modules:
        sys.modules["sklearn"] = None  # type: ignore[assignment]  # "not installed", a case LightGBM provides for
        try:
            import lightgbm  # noqa: PLC0415 - 0.4 s
        finally:
            del sys.modules["sklearn"]
    import lightgbm  # noqa: PLC0415 - as above

    return lightgbm


def _fit(label: Matrix, rows: Matrix, number: int, *, num_numeric: int, teacher: Teacher, seed: int) -> Any:
    """Booster `number`, of at most `teacher.max_rows` rows."""
    kept = _kept(len(rows), number, teacher=teacher)
    label, rows = label[kept], rows[kept]
    asked = {"learning_rate": teacher.learning_rate, "num_leaves": teacher.num_leaves, "seed": seed + number}
    settings, lgb, categorical = _TREES | asked, lightgbm(), list(range(num_numeric, rows.shape[1]))
    data = lgb.Dataset(rows, label, categorical_feature=categorical, params=settings)
    return lgb.train(settings, data, num_boost_round=teacher.num_trees)


def _kept(num_rows: int, number: int, *, teacher: Teacher) -> npt.NDArray[np.int64]:
    """Rows of booster `number`: evenly spaced, so that every day keeps its share, and between those of the others."""
    if num_rows <= teacher.max_rows:
        return np.arange(num_rows)
    last, step = teacher.max_rows * teacher.num_boosters, teacher.num_boosters
    return np.arange(number, last, step) * num_rows // last


def _mixed(rows: Matrix, part: slice, *, size: int, share: float, seed: int) -> Matrix:
    """Mixtures number `part` of `size`: the rows evenly, each value with probability `share` that of a second row."""
    rng, num_made = np.random.default_rng([seed, part.start]), part.stop - part.start
    first = np.arange(part.start, part.stop) * len(rows) // size
    second = rng.integers(0, len(rows), num_made)
    is_second = rng.random((num_made, rows.shape[1]), np.float32) < share
    mixed: Matrix = np.where(is_second, rows[second], rows[first])
    return mixed
