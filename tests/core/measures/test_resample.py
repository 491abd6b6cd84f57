"""Day-block resampling: equal to brute force, honest coverage, reproducible, refuses what has no spread."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from clearway.contracts.errors import Unmeasurable
from clearway.measures import resample


def _days(rng: np.random.Generator, *, num_days: int, rows_per_day: int) -> tuple[np.ndarray, ...]:
    """Labels and two models' scores with a shared shock per day."""
    days = np.repeat(np.arange(num_days), rows_per_day)
    shock = rng.normal(0, 1, num_days)[days]
    signal = rng.normal(0, 1, days.size)
    labels = (rng.random(days.size) < 1 / (1 + np.exp(1 - signal - shock))).astype(float)
    score = 1 / (1 + np.exp(1 - signal))
    noisy = 1 / (1 + np.exp(1 - signal - rng.normal(0, 0.8, days.size)))
    return days, labels, score, noisy


def test_auc_draws_equal_scikit_learn_on_the_repeated_rows() -> None:
    rng = np.random.default_rng(3)
    days, labels, score, noisy = _days(rng, num_days=6, rows_per_day=40)
    score, noisy = np.round(score, 1), np.round(noisy, 1)  # ties on purpose
    counts = resample.draw_day_counts(6, num_resamples=25, rng=np.random.default_rng(9))
    codes, _ = resample.day_codes(days)
    wins = resample.pair_wins(labels, score, codes, 6) - resample.pair_wins(labels, noisy, codes, 6)
    positives, negatives = np.bincount(codes, labels), np.bincount(codes, 1 - labels)
    for row in counts:
        index = np.repeat(np.arange(days.size), row[days].astype(int))
        expected = roc_auc_score(labels[index], score[index]) - roc_auc_score(labels[index], noisy[index])
        assert row @ wins @ row / ((row @ positives) * (row @ negatives)) == pytest.approx(expected, abs=1e-12)


def test_estimates_are_the_differences_on_all_rows() -> None:
    days, labels, score, noisy = _days(np.random.default_rng(1), num_days=10, rows_per_day=50)
    options = {"num_resamples": 200, "confidence": 0.95}
    found = resample.auc_difference(labels, score, noisy, days, rng=np.random.default_rng(0), **options)
    assert found.estimate == pytest.approx(roc_auc_score(labels, score) - roc_auc_score(labels, noisy))
    assert found.lower < found.estimate < found.upper
    mean = resample.mean_difference(score, noisy, days, rng=np.random.default_rng(0), **options)
    assert mean.estimate == pytest.approx(score.mean() - noisy.mean())
    assert mean.num_days == 10


def test_same_seed_same_bounds_other_seed_other_bounds() -> None:
    days, labels, score, noisy = _days(np.random.default_rng(1), num_days=10, rows_per_day=50)
    options = {"num_resamples": 200, "confidence": 0.95}
    first, again, other = (
        resample.auc_difference(labels, score, noisy, days, rng=np.random.default_rng(seed), **options)
        for seed in (5, 5, 6)
    )
    assert first == again
    assert first.lower != other.lower


def test_a_model_against_itself_has_no_difference_at_all() -> None:
    days, labels, score, _ = _days(np.random.default_rng(2), num_days=5, rows_per_day=30)
    found = resample.auc_difference(
        labels, score, score, days, num_resamples=100, confidence=0.95, rng=np.random.default_rng(0)
    )
    assert (found.estimate, found.lower, found.upper) == (0.0, 0.0, 0.0)


def test_day_blocks_are_wider_than_rows_would_be() -> None:
    """Values shared within a day: the standard error is that of D numbers, not of N."""
    rng = np.random.default_rng(4)
    days = np.repeat(np.arange(20), 200)
    values = rng.normal(0, 1, 20)[days] + rng.normal(0, 0.1, days.size)
    found = resample.mean_difference(
        values, np.zeros(days.size), days, num_resamples=2000, confidence=0.95, rng=np.random.default_rng(0)
    )
    per_day = values.reshape(20, 200).mean(axis=1)
    assert found.standard_error == pytest.approx(per_day.std(ddof=1) / np.sqrt(20), rel=0.15)
    assert found.standard_error > 5 * values.std() / np.sqrt(days.size)


def test_one_sided_bounds_cover_as_promised_with_fourteen_days() -> None:
    rng = np.random.default_rng(8)
    days = np.repeat(np.arange(14), 5)
    num_worlds, covered = 400, 0
    for _ in range(num_worlds):
        values = rng.normal(0, 1, 14)[days]
        found = resample.mean_difference(values, np.zeros(days.size), days, num_resamples=300, confidence=0.95, rng=rng)
        covered += found.upper >= 0.0
    # 95 % promised; 400 worlds put the standard error of this share at 1.1 points.
    assert 0.92 <= covered / num_worlds <= 0.985


def test_one_day_cannot_be_resampled() -> None:
    with pytest.raises(Unmeasurable, match="at least 2"):
        resample.mean_difference(
            [1.0, 2.0], [0.0, 0.0], [7, 7], num_resamples=100, confidence=0.9, rng=np.random.default_rng(0)
        )


@pytest.mark.parametrize("values", [[], [1.0, float("nan")], [float("inf"), 1.0]], ids=["empty", "NaN", "infinite"])
def test_differences_that_are_no_numbers_are_refused(values: list[float]) -> None:
    with pytest.raises(Unmeasurable):
        resample.mean_difference(
            values,
            [0.0] * len(values),
            range(len(values)),
            num_resamples=100,
            confidence=0.9,
            rng=np.random.default_rng(0),
        )


def test_draws_that_mostly_lack_a_class_are_refused() -> None:
    labels = np.array([1.0] + [0.0] * 9)
    with pytest.raises(Unmeasurable, match="one class"):
        resample.auc_difference(
            labels,
            np.linspace(0, 1, 10),
            np.linspace(1, 0, 10),
            np.arange(10),
            num_resamples=200,
            confidence=0.95,
            rng=np.random.default_rng(0),
        )
