"""Quality expected from chances: values worked by hand, brute force, and labels drawn from the chances."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clearway.contracts.errors import Unmeasurable
from clearway.measures.expected import Calibration, expected_quality, found_quality

ROWS = st.lists(st.tuples(st.floats(0.01, 0.99), st.floats(0.01, 0.99)), min_size=2, max_size=30)


def test_expected_quality_matches_the_hand_worked_values() -> None:
    found = expected_quality([0.5, 0.2], [0.8, 0.2])
    # -(0.5 ln 0.8 + 0.5 ln 0.2 + 0.2 ln 0.2 + 0.8 ln 0.8) / 2
    assert found.log_loss == pytest.approx(-(1.3 * math.log(0.8) + 0.7 * math.log(0.2)) / 2)
    # (0.5 x 0.04 + 0.5 x 0.64 + 0.2 x 0.64 + 0.8 x 0.04) / 2
    assert found.brier == pytest.approx(0.25)
    # Pairs of an expected positive and an expected negative: 0.5 x 0.8 won, 0.2 x 0.5 lost, 0.25 + 0.16 tied; of 0.91
    assert found.auc == pytest.approx((0.40 + 0.205) / 0.91)
    assert found.mean_label == pytest.approx(0.35)


@given(ROWS)
def test_the_expected_auc_is_the_sum_over_all_pairs(rows: list[tuple[float, float]]) -> None:
    c, s = (np.asarray(column) for column in zip(*rows, strict=True))
    wins = (s[:, None] > s[None, :]) + 0.5 * (s[:, None] == s[None, :])
    expected = (c[:, None] * (1 - c)[None, :] * wins).sum() / (c.sum() * (1 - c).sum())
    assert expected_quality(c, s).auc == pytest.approx(expected)


def test_labels_drawn_from_the_chances_give_what_was_expected() -> None:
    rng = np.random.default_rng(0)
    chances = rng.beta(1, 3, 60_000)
    scores = np.clip(chances + rng.normal(0, 0.1, chances.size), 0.01, 0.99)
    expected = expected_quality(chances, scores)
    found = found_quality(rng.random(chances.size) < chances, scores)
    assert found.log_loss == pytest.approx(expected.log_loss, abs=0.01)
    assert found.brier == pytest.approx(expected.brier, abs=0.005)
    assert found.auc == pytest.approx(expected.auc, abs=0.01)


def test_without_labels_a_score_is_its_own_chance() -> None:
    scores = np.linspace(0.01, 0.99, 50)
    assert Calibration().chances(scores) == pytest.approx(scores)


def test_calibration_learns_what_scores_are_worth() -> None:
    rng = np.random.default_rng(1)
    chances = rng.uniform(0.1, 0.6, 50_000)
    scores = chances + 0.2
    learned = Calibration().after(rng.random(chances.size) < chances, scores)
    assert np.abs(learned.chances(scores) - chances).mean() < 0.03


@given(st.integers(1, 199))
def test_labels_in_two_parts_teach_the_same_as_at_once(cut: int) -> None:
    rng = np.random.default_rng(2)
    labels, scores = (rng.random(200) < 0.3).astype(float), rng.random(200)
    at_once = Calibration().after(labels, scores)
    in_parts = Calibration().after(labels[:cut], scores[:cut]).after(labels[cut:], scores[cut:])
    assert in_parts.num_rows == at_once.num_rows
    assert in_parts.chances(scores) == pytest.approx(at_once.chances(scores))


def test_scores_where_no_label_was_met_are_counted() -> None:
    learned = Calibration().after([0, 1] * 50, [0.11] * 100)
    assert learned.uncovered([0.12, 0.13, 0.92, 0.11], min_rows=20) == pytest.approx(0.25)


def test_no_rows_have_no_quality() -> None:
    with pytest.raises(Unmeasurable):
        expected_quality([], [])
