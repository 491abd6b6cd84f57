"""The teacher: mixtures of rows and their scores, the same for any number of threads."""

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch

from clearway.engine.keeping import Keeping
from clearway.infra.datasets import LABEL
from clearway.measures.binary import auc
from clearway.product import Model
from clearway.product_teacher import Teacher
from clearway.tabular.bins import Bins
from clearway.tabular.fit import Rows, World, fit
from clearway.tabular.model import predict, shape_of
from clearway.tabular.teacher import Lesson, lesson, read_boosters, write_boosters
from clearway.tabular.training_set import BOOSTERS, encode, make_training_set, read_arrays, write_arrays
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
    made = lesson(*some_rows(), num_numeric=2, teacher=teacher, seed=seed, num_threads=num_threads)
    return made.mixtures, made.scores


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


def test_scores_made_later_are_those_made_at_once(tmp_path: Path):
    label, rows = some_rows()
    _, expected = taught()
    made = lesson(label, rows, num_numeric=2, teacher=TEACHER, seed=1, num_threads=2, scored=0.25)
    is_known = ~np.isnan(made.scores)
    assert is_known.sum() == len(expected) // 4
    write_boosters(made.boosters, tmp_path / "boosters.json")
    later = Lesson(
        mixtures=made.mixtures, scores=made.scores.copy(), boosters=read_boosters(tmp_path / "boosters.json")
    )
    index = np.random.default_rng(0).permutation(len(expected))[:500]
    for part in (index[:1], index[1:3], index):
        assert later.at(part).tobytes() == expected[part].tobytes()
    assert np.isnan(later.scores).sum() == (~is_known[np.setdiff1d(np.arange(len(expected)), index)]).sum()
    for unfinished in (later, made):
        unfinished.finish()
        assert unfinished.scores.tobytes() == expected.tobytes()


@pytest.mark.parametrize("stop_after", [None, 3, 100], ids=["whole", "resumed early", "resumed in the second epoch"])
def test_a_network_ends_at_the_same_bits_whenever_its_labels_are_made(tmp_path: Path, flights, stop_after: int | None):
    rows = make_rows(600)
    rows = rows.append_column(LABEL, rows["late15"])
    features = flights.spec.features.model_copy(update={"numeric": NUMERIC, "categorical": CATEGORICAL})
    model = TINY.model_copy(update={"teacher": TEACHER, "num_epochs": 2, "batch_size": 64})
    ended = []
    for scored in (1.0, 0.25):
        made = make_training_set(rows, features=features, model=model, scored=scored)
        folder = tmp_path / str(scored)
        folder.mkdir()
        write_arrays(made, folder)
        assert (folder / BOOSTERS).exists() == (scored < 1)
        keeping = Keeping(folder=folder, job="j", every_s=3600)
        for limit in (stop_after, None) if scored < 1 and stop_after else (None,):
            arrays, pending = read_arrays(folder)
            fitted = fit(
                Rows(**arrays),
                shape_of(model, num_numeric=len(NUMERIC), cardinalities=made.encoder.cardinalities),
                model,
                world=World(),
                keeping=keeping,
                should_stop=itertools.chain(
                    itertools.repeat(False, limit or 0), itertools.repeat(limit is not None)
                ).__next__,
                lesson=pending,
            )
            assert fitted.is_complete == (limit is None)
        ended.append({name: p.detach().numpy().tobytes() for name, p in fitted.model.named_parameters()})
    assert ended[0] == ended[1]


def test_boosters_learn_no_more_rows_than_allowed_and_each_its_own():
    label, rows = some_rows()
    few = TEACHER.model_copy(update={"max_rows": 1000})
    learned = np.arange(2000) * len(rows) // 2000  # by the two in turn
    expected = lesson(label, rows, num_numeric=2, teacher=few, seed=1, num_threads=1).scores

    def changes_with(where: np.ndarray) -> bool:
        other = label.copy()
        other[where] = 1 - other[where]
        made = lesson(other, rows, num_numeric=2, teacher=few, seed=1, num_threads=1)
        return made.scores.tobytes() != expected.tobytes()

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
    given = lesson(label[:3000], rows[:3000], num_numeric=2, teacher=teacher, seed=1, num_threads=1)
    made, bins = given.mixtures, Bins.fit(rows[:3000, :2], num_bins=8)
    arrays = encode(bins, made[:, :2], made[:, 2:]) | {"label": given.scores}
    model = Model(num_bins=8, hidden=(8,), num_members=1, batch_size=64, num_epochs=3, lr=0.02)
    taught = Rows(**{name: torch.from_numpy(value) for name, value in arrays.items()})
    shape = shape_of(model, num_numeric=2, cardinalities=(4,))
    fitted = fit(taught, shape, model, world=World(), keeping=None, should_stop=lambda: False)
    found = predict(fitted.model, encode(bins, rows[3000:, :2], rows[3000:, 2:]))
    assert auc(label[3000:], found) > 0.8
