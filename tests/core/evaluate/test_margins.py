"""Thresholds follow the folds: in the formula, in their caps, and when the folds say nothing."""

import dataclasses

import pytest

from clearway.contracts.errors import Unmeasurable
from clearway.evaluate.folds import Fold
from clearway.evaluate.margins import DEFAULT_SLICE, LEAST_SLICE, derivation, derive
from clearway.evaluate.slices import SliceFigures

SLICE = SliceFigures(
    name="g=a",
    num_rows=900,
    num_positives=200,
    auc=0.7,
    auc_gap=-0.06,
    auc_lag=0.04,
    calibration_gap=0.02,
    calibration_excess=0.05,
    logloss=0.5,
    logloss_excess=0.01,
    is_gated=True,
)
FOLD = Fold(
    first_day=15_700,
    last_day=15_713,
    num_rows=12_000,
    num_train_rows=20_000,
    auc_trees=0.75,
    auc_line=0.74,
    ece_trees=0.02,
    skill=0.12,
    gain_nats=0.08,
    logloss_trees=0.45,
    logloss_line=0.46,
    logloss_se=0.004,
    auc_se=0.005,
    slices=(SLICE,),
)


def test_margins_by_hand() -> None:
    m = derive([FOLD, dataclasses.replace(FOLD, skill=0.10)], confidence=0.95)
    assert m.skill_floor == pytest.approx(0.05)
    assert m.logloss == pytest.approx(0.20 * 0.08 + 1.6449 * 0.004, abs=1e-5)
    assert m.auc == pytest.approx(0.07 * 0.25 + 1.6449 * 0.005, abs=1e-5)
    assert m.line_slack == pytest.approx(1.6449 * 0.005, abs=1e-5)
    assert (m.slice_auc, m.slice_calibration, m.slice_logloss) == pytest.approx((0.12, 0.15, 0.03))


def test_noise_never_excuses_more_than_a_third_of_the_gain() -> None:
    m = derive([dataclasses.replace(FOLD, logloss_se=1.0, auc_se=1.0)], confidence=0.95)
    assert (m.logloss, m.auc) == pytest.approx((0.35 * 0.08, 0.35 * 0.25))


def test_one_wild_fold_does_not_set_the_margin() -> None:
    calm = derive([FOLD] * 3, confidence=0.95)
    wild = derive([FOLD, FOLD, dataclasses.replace(FOLD, logloss_se=0.1)], confidence=0.95)
    assert wild.logloss == calm.logloss


def test_skill_below_nothing_asks_for_nothing_more_than_the_base_rate() -> None:
    assert derive([FOLD, dataclasses.replace(FOLD, skill=-0.2)], confidence=0.95).skill_floor == 0.0


def test_without_large_slices_the_measured_defaults_hold() -> None:
    m = derive([dataclasses.replace(FOLD, slices=(dataclasses.replace(SLICE, is_gated=False),))], confidence=0.95)
    assert m.slice_auc == DEFAULT_SLICE["auc"]


def test_quiet_slices_do_not_make_hair_triggers() -> None:
    quiet = dataclasses.replace(SLICE, auc_lag=0.0, calibration_excess=0.0, logloss_excess=0.0)
    m = derive([dataclasses.replace(FOLD, slices=(quiet,))], confidence=0.95)
    assert (m.slice_auc, m.slice_calibration, m.slice_logloss) == tuple(LEAST_SLICE.values())


@pytest.mark.parametrize("change", [{"gain_nats": 0.0}, {"gain_nats": -0.1, "auc_trees": 0.45}, {"auc_trees": 0.5}])
def test_a_yardstick_that_learned_nothing_leaves_nothing_to_give_up(change: dict[str, float]) -> None:
    m = derive([dataclasses.replace(FOLD, **change)], confidence=0.95)
    assert m.has_yardstick is False
    assert 0.0 in (m.logloss, m.auc)
    assert min(m.logloss, m.auc) == 0.0
    assert derive([FOLD], confidence=0.95).has_yardstick is True


@pytest.mark.parametrize("name", ["gain_nats", "auc_trees"])
def test_folds_without_a_number_give_no_margin(name: str) -> None:
    with pytest.raises(Unmeasurable, match="finite"):
        derive([dataclasses.replace(FOLD, **{name: float("nan")})], confidence=0.95)


def test_the_derivation_says_where_every_threshold_came_from() -> None:
    m = derive([FOLD], confidence=0.95)
    found = derivation(m, [FOLD], confidence=0.95)
    assert set(found["margins"]) == set(found["formulas"])
    assert found["folds"][0]["skill"] == FOLD.skill
    assert found["num_fold_slices"] == 1
