"""Folds look forward only, use whole days, and refuse too short a past."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clearway.contracts.errors import Unmeasurable
from clearway.evaluate.cheap_models import Line, Rows, Trees
from clearway.evaluate.folds import MIN_BLOCK_DAYS, block_days, blocks, run_folds


def _rows(*, num_days: int = 40, per_day: int = 60, seed: int = 0) -> Rows:
    rng = np.random.default_rng(seed)
    days = np.repeat(np.arange(15_700, 15_700 + num_days), per_day)
    numeric = rng.normal(size=(days.size, 4)).astype(np.float32)
    logit = numeric[:, 0] * 1.2 - numeric[:, 1] - 1.0
    labels = (rng.random(days.size) < 1 / (1 + np.exp(-logit))).astype(float)
    numeric[rng.random(numeric.shape) < 0.05] = np.nan
    return Rows(numeric=numeric, categorical=rng.integers(0, 3, (days.size, 2)), labels=labels, days=days)


@given(
    num_days=st.integers(10, 200), num_folds=st.integers(2, 6), holdout_days=st.integers(3, 30), step=st.integers(1, 3)
)
def test_folds_train_on_the_past_of_whole_days_only(
    num_days: int, num_folds: int, holdout_days: int, step: int
) -> None:
    days = np.repeat(np.arange(num_days) * step, 2)
    try:
        length = block_days(days, num_folds=num_folds, holdout_days=holdout_days)
    except Unmeasurable:
        assert num_days < MIN_BLOCK_DAYS * (num_folds + 2)
        return
    judged_before = -1
    for is_train, is_judged in blocks(days, num_folds=num_folds, length=length):
        assert days[is_train].max() < days[is_judged].min()
        assert np.unique(days[is_judged]).size == length <= holdout_days
        assert days[is_judged].min() > judged_before
        judged_before = days[is_judged].max()
        assert np.unique(days[is_train]).size >= 2 * length
    assert judged_before == days.max()


def _run(rows: Rows, **changes: int):
    options = {"num_folds": 2, "holdout_days": 10, "num_resamples": 100, "min_slice": (50, 10), "num_threads": 2}
    slices = {"g": np.where(rows.categorical[:, 0] == 0, "a", "b").astype(object)}
    return run_folds(rows, slices, **(options | changes), make_rng=lambda q: np.random.default_rng(len(q)))


def test_the_same_rows_give_the_same_folds_and_sensible_figures() -> None:
    rows = _rows()
    first, second = _run(rows), _run(rows)
    assert first == second
    assert all(0.7 < f.auc_line < 0.9 and f.gain_nats > 0.05 and 0 < f.logloss_se < 0.05 for f in first)
    assert {s.name for s in first[0].slices} == {"g=a", "g=b"}


def test_folds_judged_side_by_side_are_the_folds_judged_in_turn() -> None:
    rows = _rows()
    assert _run(rows, num_threads=3, num_folds=3) == _run(rows, num_threads=1, num_folds=3)


def test_trees_load_no_scikit_learn_and_leave_it_usable() -> None:
    code = """
import sys
import numpy as np
from clearway.evaluate.cheap_models import Rows, Trees
numeric = np.random.default_rng(0).normal(size=(500, 2)).astype(np.float32)
labels = (numeric[:, 0] > 0).astype(float)
rows = Rows(numeric=numeric, categorical=np.zeros((500, 1), np.int64), labels=labels, days=np.zeros(500, np.int64))
assert Trees(rows, num_trees=5).score(rows)[labels == 1].min() > labels.mean()
assert "sklearn" not in sys.modules, "scikit-learn was imported"
import sklearn
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


def test_too_short_a_past_is_refused_with_the_days_needed() -> None:
    with pytest.raises(Unmeasurable, match="12 are needed"):
        _run(_rows(num_days=8))


def test_thinning_keeps_every_day_and_the_order() -> None:
    rows = _rows()
    thin = rows.thinned(400)
    assert len(thin) == 400
    assert np.unique(thin.days).size == 40
    assert (np.diff(thin.days) >= 0).all()
    assert rows.thinned(10_000) is rows


def test_the_line_agrees_with_scikit_learn() -> None:
    from sklearn.linear_model import LogisticRegression

    rows = _rows(seed=3)
    complete = np.isfinite(rows.numeric).all(axis=1)
    rows = rows.take(complete)
    rows = Rows(
        numeric=rows.numeric, categorical=np.zeros((len(rows), 1), np.int64), labels=rows.labels, days=rows.days
    )
    standard = (rows.numeric - rows.numeric.mean(axis=0)) / rows.numeric.std(axis=0)
    expected = LogisticRegression(C=1.0, tol=1e-8).fit(np.clip(standard, -5, 5), rows.labels)
    np.testing.assert_allclose(
        Line(rows).score(rows), expected.predict_proba(np.clip(standard, -5, 5))[:, 1], atol=2e-3
    )


@pytest.mark.parametrize("make", [Line, lambda r: Trees(r, num_trees=20)], ids=["line", "trees"])
def test_a_yardstick_copes_with_constant_and_empty_columns(make) -> None:
    rows = _rows()
    numeric = np.hstack(
        [rows.numeric, np.full((len(rows), 1), np.nan, np.float32), np.ones((len(rows), 1), np.float32)]
    )
    rows = Rows(numeric=numeric, categorical=rows.categorical, labels=rows.labels, days=rows.days)
    scores = make(rows).score(rows)
    assert np.isfinite(scores).all()
    assert ((scores > 0) & (scores < 1)).all()
