"""Groups are measured against the whole, and small ones never count."""

import numpy as np
import pytest

from clearway.evaluate.slices import slice_figures


def _data(seed: int = 0):
    rng = np.random.default_rng(seed)
    groups = np.array(["a"] * 600 + ["b"] * 300 + ["c"] * 20 + [None] * 80, dtype=object)
    scores = rng.uniform(0.05, 0.6, groups.size)
    labels = (rng.random(groups.size) < scores).astype(float)
    return labels, scores, groups


def test_every_value_is_reported_and_only_large_ones_are_gated() -> None:
    labels, scores, groups = _data()
    found = slice_figures(labels, scores, {"g": groups}, other=None, min_slice=(100, 20))
    assert [(s.name, s.num_rows, s.is_gated) for s in found] == [
        ("g=a", 600, True),
        ("g=b", 300, True),
        ("g=(missing)", 80, False),
        ("g=c", 20, False),
    ]
    assert all(s.logloss_excess is None for s in found)


def test_a_group_the_model_fails_on_stands_out_though_the_mean_hides_it() -> None:
    labels, scores, groups = _data()
    is_b = groups == "b"
    broken = scores.copy()
    broken[is_b] = scores[is_b][::-1]  # scores of the wrong rows: no ranking left in this group
    a, b, *_ = slice_figures(labels, broken, {"g": groups}, other=scores, min_slice=(100, 20))
    assert b.auc == pytest.approx(0.5, abs=0.1)
    assert b.auc_gap < a.auc_gap - 0.1
    assert b.logloss_excess > 0.02
    assert a.logloss_excess < 0


def test_excesses_are_measured_against_all_rows() -> None:
    labels, scores, groups = _data()
    shifted = np.clip(scores + 0.1, 0, 1)
    for s in slice_figures(labels, shifted, {"g": groups}, other=scores, min_slice=(100, 20)):
        assert s.calibration_excess == pytest.approx(
            abs(s.calibration_gap - float(shifted.mean() - labels.mean())), abs=1e-12
        )


def test_what_the_yardstick_shares_is_not_held_against_the_model() -> None:
    """A group that itself changed throws every model off alike; only the model's own part counts."""
    labels, scores, groups = _data()
    is_b = groups == "b"
    labels = labels.copy()
    labels[is_b] = np.maximum(labels[is_b], (np.arange(is_b.sum()) % 4 == 0).astype(float))  # b is late more often now
    worse = scores.copy()
    worse[is_b] -= 0.04

    def excess(model: np.ndarray, yardstick: np.ndarray | None) -> float:
        found = slice_figures(labels, model, {"g": groups}, other=None, yardstick=yardstick, min_slice=(100, 20))
        return next(s.calibration_excess for s in found if s.name == "g=b")

    alone = excess(scores, None)
    assert alone > 0.05
    assert excess(scores, scores) == pytest.approx(0.0, abs=1e-12)
    assert excess(worse, scores) == pytest.approx(0.04 * 0.7, abs=1e-9)  # 0.04 less what it moves the mean of all rows
    opposite = scores + 2 * np.where(is_b, alone / 0.7, 0.0)
    assert excess(opposite, scores) == pytest.approx(excess(opposite, None))


def test_a_group_that_is_hard_to_rank_for_the_yardstick_too_is_excused() -> None:
    labels, scores, groups = _data()
    is_b = groups == "b"
    mixed = scores.copy()
    mixed[is_b] = np.random.default_rng(5).permutation(scores[is_b])

    def lag(model: np.ndarray, yardstick: np.ndarray | None) -> float:
        found = slice_figures(labels, model, {"g": groups}, other=None, yardstick=yardstick, min_slice=(100, 20))
        return next(s.auc_lag for s in found if s.name == "g=b")

    assert lag(mixed, None) > 0.1
    assert lag(mixed, scores) == pytest.approx(lag(mixed, None), abs=0.05), "the yardstick ranks it well: no excuse"
    assert lag(mixed, mixed) == 0.0
    assert lag(scores, mixed) == 0.0


def test_a_group_of_one_class_has_no_auc_and_no_vote() -> None:
    labels, scores, groups = _data()
    labels[groups == "b"] = 0.0
    b = slice_figures(labels, scores, {"g": groups}, other=None, min_slice=(100, 20))[1]
    assert (b.name, b.auc, b.auc_gap, b.is_gated) == ("g=b", None, None, False)
