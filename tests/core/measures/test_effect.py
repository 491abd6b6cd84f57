"""What a model's predictions hang on, and what drift of a column counts."""

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clearway.measures.effect import effects, weights

Floats = npt.NDArray[np.float64]


def score(numeric: Floats, category: npt.NDArray[np.int64]) -> Floats:
    """Hangs on the first number twice as much as on the second, on the category a little, on the third not at all."""
    return 0.2 * numeric[:, 0] + 0.1 * numeric[:, 1] + 0.02 * category[:, 0]


def parts(num_rows: int = 4_000) -> tuple[Floats, npt.NDArray[np.int64]]:
    rng = np.random.default_rng(1)
    return rng.normal(size=(num_rows, 3)), rng.integers(0, 2, (num_rows, 1))


def test_an_effect_is_the_mean_change_of_the_score() -> None:
    found = effects(score, parts(), ["a", "b", "c", "d"])
    # Two independent normals differ by 2 / sqrt(pi) on average, two fair coins in half of the cases.
    assert found["a"] == pytest.approx(0.2 * 2 / np.sqrt(np.pi), rel=0.1)
    assert found["b"] == pytest.approx(0.1 * 2 / np.sqrt(np.pi), rel=0.1)
    assert found["c"] == 0
    assert found["d"] == pytest.approx(0.02 * 0.5, rel=0.1)


def test_the_same_model_and_rows_give_the_same_effects_and_stay_as_they_are() -> None:
    numeric, category = parts()
    before = numeric.copy()
    one = effects(score, (numeric, category), ["a", "b", "c", "d"])
    assert effects(score, (numeric, category), ["a", "b", "c", "d"]) == one
    assert np.array_equal(numeric, before)


def test_a_row_is_scored_again_only_if_its_value_is_another() -> None:
    rng, counts = np.random.default_rng(2), list[int]()
    seldom = np.where(rng.random(400) < 0.9, np.nan, 1.0)
    numeric = np.column_stack([rng.normal(size=400), np.full(400, np.nan), seldom])

    def counted(rows: Floats) -> Floats:
        counts.append(len(rows))
        return np.nan_to_num(rows).sum(axis=1) / 10

    found = effects(counted, (numeric,), ["always", "never", "seldom"])
    assert counts[0] == 400
    assert counts[1] > 390
    assert len(counts) == 3
    assert 0 < counts[2] < 120
    assert found["never"] == 0
    assert found["seldom"] == pytest.approx(counts[2] / 400 / 10)


def test_threads_change_no_figure() -> None:
    numeric, category = parts()
    names = ["a", "b", "c", "d"]
    assert effects(score, (numeric, category), names, num_threads=3) == effects(score, (numeric, category), names)


@given(st.lists(st.one_of(st.none(), st.floats(0, 1)), min_size=1, max_size=30))
def test_weights_add_up_to_one_and_each_feature_keeps_half_of_its_place(found: list[float | None]) -> None:
    counted = weights(found)
    assert counted.sum() == pytest.approx(1)
    assert (counted >= 0.5 / len(found) - 1e-12).all()


def test_features_count_the_same_where_nothing_is_known() -> None:
    assert weights([None, None, 0.0]).tolist() == pytest.approx([1 / 3] * 3)
    assert weights([]).tolist() == []


def test_a_model_that_hangs_on_one_column_has_no_alarm_of_that_column_alone() -> None:
    counted = weights([1.0] + [0.0] * 19)
    assert counted[0] == pytest.approx(0.525)
    assert weights([0.9, *[0.1 / 19] * 19])[0] < 0.5
