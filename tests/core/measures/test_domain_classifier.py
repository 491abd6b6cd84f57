"""Telling two sets of rows apart, all columns together."""

import numpy as np
import pytest

from clearway.contracts.errors import Unmeasurable
from clearway.measures.domain_classifier import separation


def pairs(rng: np.random.Generator, num_rows: int, *, correlation: float, num_noise: int = 8) -> np.ndarray:  # type: ignore[type-arg]
    first, second = rng.normal(size=(2, num_rows))
    together = correlation * first + np.sqrt(1 - correlation**2) * second
    return np.column_stack([first, together, rng.normal(size=(num_rows, num_noise))])


def test_rows_alike_cannot_be_told_apart() -> None:
    found = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        found.append(separation(pairs(rng, 300, correlation=0.5), pairs(rng, 400, correlation=0.5)))
    assert np.mean([f.auc for f in found]) == pytest.approx(0.5, abs=0.02)
    # 95 % intervals of 40 draws: six misses or more have a chance of 1 in 70.
    assert sum(not f.lower <= 0.5 <= f.upper for f in found) < 6


def test_columns_that_no_longer_go_together_are_seen_though_each_is_the_same() -> None:
    rng = np.random.default_rng(0)
    found = separation(pairs(rng, 600, correlation=0.9), pairs(rng, 600, correlation=0.0))
    assert found.lower > 0.6


def test_a_moved_column_a_wider_one_and_missing_values_are_seen() -> None:
    rng = np.random.default_rng(1)
    base = rng.normal(size=(500, 6))
    moved, wider, gone = (rng.normal(size=(500, 6)) for _ in range(3))
    moved[:, 0] += 1.0
    wider[:, 1] *= 2.5
    gone[rng.random(500) < 0.4, 2] = np.nan
    assert all(separation(base, rows).lower > 0.58 for rows in (moved, wider, gone))


def test_columns_without_values_or_spread_change_nothing() -> None:
    rng = np.random.default_rng(2)
    one, other = rng.normal(size=(2, 200, 3))
    empty = np.column_stack([np.full(200, np.nan), np.ones(200)])
    assert separation(np.hstack([one, empty]), np.hstack([other, empty])).auc == pytest.approx(
        separation(one, other).auc, abs=0.05
    )


def test_the_same_rows_give_the_same_answer() -> None:
    rng = np.random.default_rng(3)
    one, other = rng.normal(size=(2, 150, 4))
    assert separation(one, other) == separation(one, other)


def test_a_few_rows_are_refused() -> None:
    with pytest.raises(Unmeasurable, match="49 rows"):
        separation(np.zeros((49, 2)), np.zeros((100, 2)))
