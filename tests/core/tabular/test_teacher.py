"""The teacher: mixtures of rows and their scores, the same for any number of threads."""

import numpy as np
import pytest
import torch

from clearway.infra.datasets import LABEL
from clearway.measures.binary import auc
from clearway.product import Model
from clearway.product_teacher import Teacher
from clearway.tabular.bins import Bins
from clearway.tabular.fit import Rows, World, fit
from clearway.tabular.model import predict, shape_of
from clearway.tabular.teacher import lesson
from clearway.tabular.training_set import encode, make_training_set
from training_kit import CATEGORICAL, NUMERIC, TINY, make_rows

# More rows than one chunk.
TEACHER = Teacher(num_mixtures=7, max_mixtures=20_000, num_trees=20, learning_rate=0.1, num_leaves=7)


def some_rows(num_rows: int = 3000) -> tuple[np.ndarray, np.ndarray]:
    """(label, columns): two columns of numbers, one of which counts, and a category that does not."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(num_rows, 2))
    label = rng.random(num_rows) < 1 / (1 + np.exp(-2 * x[:, 0]))
    x[rng.random(num_rows) < 0.1, 1] = np.nan
    return label.astype(np.float32), np.column_stack([x, rng.integers(0, 4, num_rows)]).astype(np.float32)


def taught(teacher: Teacher = TEACHER, *, seed: int = 1, num_threads: int = 2) -> tuple[np.ndarray, np.ndarray]:
    return lesson(*some_rows(), num_numeric=2, teacher=teacher, seed=seed, num_threads=num_threads)


def test_a_mixture_is_a_row_with_values_of_a_second():
    _, rows = some_rows()
    made, _ = taught()
    base = rows[np.arange(len(made)) * len(rows) // len(made)]
    is_kept = (made == base) | (np.isnan(made) & np.isnan(base))
    assert len(made) == TEACHER.max_mixtures
    assert is_kept[:, 0].mean() == pytest.approx(1 - TEACHER.share, abs=0.01)
    for column in range(3):
        assert set(np.unique(made[:, column][~np.isnan(made[:, column])])) <= set(rows[:, column])
    assert np.isnan(made[:, 1]).mean() == pytest.approx(np.isnan(rows[:, 1]).mean(), abs=0.01)
    both = made[~is_kept[:, 0] & ~is_kept[:, 1] & ~np.isnan(made[:, 1])][:50]
    assert all((rows[:, :2] == pair).all(axis=1).any() for pair in both[:, :2])


def test_scores_are_of_the_mixtures():
    made, scores = taught()
    truth = 1 / (1 + np.exp(-2 * made[:, 0]))
    assert np.corrcoef(scores, truth)[0, 1] > 0.95


def test_the_number_of_threads_and_of_repetitions_changes_no_bit_and_the_seed_does():
    once = [part.tobytes() for part in taught(num_threads=1)]
    assert all([part.tobytes() for part in taught(num_threads=number)] == once for number in (1, 2, 3))
    assert [part.tobytes() for part in taught(seed=2)] != once


def test_boosters_learn_no_more_rows_than_allowed_and_each_its_own():
    label, rows = some_rows()
    few = TEACHER.model_copy(update={"max_rows": 1000})
    learned = np.arange(2000) * len(rows) // 2000  # by the two in turn
    _, expected = lesson(label, rows, num_numeric=2, teacher=few, seed=1, num_threads=1)

    def changes_with(where: np.ndarray) -> bool:
        other = label.copy()
        other[where] = 1 - other[where]
        return lesson(other, rows, num_numeric=2, teacher=few, seed=1, num_threads=1)[1].tobytes() != expected.tobytes()

    assert not changes_with(np.setdiff1d(np.arange(len(rows)), learned))
    assert changes_with(learned[0::2])
    assert changes_with(learned[1::2])


def test_a_training_set_is_what_the_teacher_makes_of_it(flights):
    rows = make_rows(600)
    rows = rows.append_column(LABEL, rows["late15"])
    features = flights.spec.features.model_copy(update={"numeric": NUMERIC, "categorical": CATEGORICAL})
    plain, made = (
        make_training_set(rows, features=features, model=TINY.model_copy(update={"teacher": teacher}))
        for teacher in (None, TEACHER)
    )
    assert (plain.num_rows, made.num_rows) == (600, 7 * 600)
    assert all(0 < value < 1 for value in made.arrays["label"])
    assert {name: (a.dtype, a.shape[1:]) for name, a in plain.arrays.items()} == {
        name: (a.dtype, a.shape[1:]) for name, a in made.arrays.items()
    }
    assert plain.bins.low.tobytes() == made.bins.low.tobytes()


def test_a_network_learns_from_the_lesson_what_the_labels_say():
    label, rows = some_rows(4000)
    teacher = TEACHER.model_copy(update={"num_mixtures": 2})
    made, scores = lesson(label[:3000], rows[:3000], num_numeric=2, teacher=teacher, seed=1, num_threads=1)
    bins = Bins.fit(rows[:3000, :2], num_bins=8)
    arrays = encode(bins, made[:, :2], made[:, 2:]) | {"label": scores}
    model = Model(num_bins=8, hidden=(8,), num_members=1, batch_size=64, num_epochs=3, lr=0.02)
    taught = Rows(**{name: torch.from_numpy(value) for name, value in arrays.items()})
    shape = shape_of(model, num_numeric=2, cardinalities=(4,))
    fitted = fit(taught, shape, model, world=World(), keeping=None, should_stop=lambda: False)
    found = predict(fitted.model, encode(bins, rows[3000:, :2], rows[3000:, 2:]))
    assert auc(label[3000:], found) > 0.8
