"""What one batch hands to the next."""

from collections.abc import Sequence

import numpy as np

from clearway.measures.false_discovery import Stream
from clearway.monitor.carried import Arrived, Carried, carry
from clearway.monitor.drift_part import DriftPart, FeatureDrift
from clearway.product_monitor import Monitor

MODEL, OTHER = "a" * 64, "b" * 64
POLICY = Monitor(sudden_excess=10, min_rows=100)
NO_LABELS = Arrived(labels=[], scores=[], num_rows=0)


def labels(num_rows: int) -> Arrived:
    rng = np.random.default_rng(0)
    scores = rng.uniform(0.1, 0.6, num_rows)
    return Arrived(labels=(rng.random(num_rows) < scores).astype(float), scores=scores, num_rows=num_rows)


def feature(
    name: str,
    excess: float | None,
    *,
    unseen: float | None = None,
    size_factor: float | None = None,
    is_ignored: bool = False,
    is_lost: bool = False,
) -> FeatureDrift:
    return FeatureDrift(
        name=name,
        kind="numeric",
        distance=None if excess is None else 0.1 * excess,
        lower=None,
        upper=None,
        limit=0.1,
        p_value=None,
        q_value=None,
        is_over=None if excess is None else excess > 1,
        is_ignored=is_ignored,
        is_lost=is_lost,
        psi=None,
        jensen_shannon=None,
        kolmogorov_smirnov=None,
        unseen=unseen,
        missing=0.0,
        missing_reference=0.0,
        size_factor=size_factor,
    )


def part(features: Sequence[FeatureDrift], *, p_value: float | None = None) -> DriftPart:
    return DriftPart(
        num_rows=1_000,
        share_over=0.1,
        num_over=1,
        num_counted=10,
        p_value=p_value,
        num_changed=0,
        together=None,
        null_share_mean=None,
        null_share_max=None,
        score=None,
        features=tuple(features),
    )


def step(before: Carried, **changes: object) -> Carried:
    facts = {
        "champion": MODEL,
        "num_passed": 1,
        "drift": part([]),
        "is_faulty": False,
        "arrived": NO_LABELS,
        "policy": POLICY,
    }
    return carry(before, **(facts | changes))  # type: ignore[arg-type]


def excesses(*values: float | None) -> Carried:
    """One feature over several batches."""
    state = Carried()
    for value in values:
        state = step(state, drift=part([feature("temp", value)]))
    return state


def shares_unseen(*values: float | None, excess: float = 0.8) -> Carried:
    """One feature that stays where it was, with so many values that training never held."""
    state = Carried()
    for value in values:
        state = step(state, drift=part([feature("wind", excess, unseen=value)]))
    return state


def sizes(*factors: float | None) -> Carried:
    """One feature that stays where it was, so many times larger or smaller than training ever was."""
    state = Carried()
    for factor in factors:
        state = step(state, drift=part([feature("rain", 0.8, size_factor=factor)]))
    return state


def test_values_of_another_size_are_held_until_they_come_back() -> None:
    assert sizes(1.0, 12.0).held == ("rain",)
    assert sizes(1.0, 12.0, 12.0, 3.0).held == ("rain",)
    assert sizes(1.0, 12.0, 12.0, 1.5).held == ()


def test_a_size_that_grows_slowly_or_was_so_from_the_first_is_nothing_strange() -> None:
    assert sizes(1.0, 2.5, 4.0, 6.0, 12.0).held == ()
    assert sizes(12.0, 12.0).held == ()
    assert sizes(1.0, 4.9).held == ()
    assert sizes(None, 12.0).held == ()


def test_a_week_without_rain_says_nothing_of_its_unit() -> None:
    assert sizes(1.0, None, None, 12.0).held == ("rain",)
    assert sizes(1.0, 12.0, None).held == ("rain",)
    assert sizes(1.0, 12.0, None, 1.0).held == ()
    assert shares_unseen(0.0, None, 0.95).held == ("wind",)
    assert shares_unseen(0.0, 0.95, None).held == ("wind",)


def test_another_size_may_begin_with_a_new_champion() -> None:
    state = step(sizes(1.0), champion=OTHER, drift=part([feature("rain", 0.8, size_factor=20.0)]))
    assert state.held == ("rain",)


def test_texts_count_as_judged_and_teach_nothing_about_other_scores() -> None:
    read = Arrived(labels=None, scores=None, num_rows=150)
    state = step(step(Carried(), arrived=read), arrived=read)
    assert (state.num_new_rows, state.num_unlabelled, state.had_labels) == (300, 0, True)
    assert (state.estimator.errors, state.estimator.calibration) == ((), Carried().estimator.calibration)
    assert step(state, arrived=Arrived(labels=None, scores=None, num_rows=0)).num_unlabelled == 1


def test_batches_and_labelled_rows_are_counted_from_the_champions_first() -> None:
    first = step(Carried(), arrived=labels(150))
    third = step(first, num_passed=2, arrived=labels(30))
    assert (first.num_batches, first.num_new_rows) == (1, 150)
    assert (third.num_batches, third.num_new_rows) == (3, 180)
    fresh = step(third, champion=OTHER)
    assert (fresh.num_batches, fresh.num_new_rows, fresh.had_labels) == (1, 0, False)


def test_too_few_labels_do_not_judge_a_champion() -> None:
    state = step(Carried(), arrived=labels(99))
    assert (state.num_unlabelled, state.had_labels) == (1, False)
    state = step(state, arrived=labels(100))
    assert (state.num_unlabelled, state.had_labels) == (0, True)
    state = step(state, num_passed=3)
    assert (state.num_unlabelled, state.had_labels) == (3, True)


def test_a_jump_from_within_the_limit_is_held_until_it_comes_back() -> None:
    assert excesses(0.8, 12.0).sudden == ("temp",)
    assert excesses(0.8, 12.0, 9.0, 2.0).sudden == ("temp",)
    assert excesses(0.8, 12.0, 9.0, 1.2).sudden == ()
    assert excesses(1.6, 30.0).sudden == ("temp",), "near its limit is near enough"


def test_a_slow_rise_and_a_loud_start_are_no_jump() -> None:
    assert excesses(0.8, 3.0, 6.0, 12.0, 20.0).sudden == ()
    assert excesses(12.0, 12.0).sudden == ()


def test_values_that_training_never_held_are_held_until_they_go() -> None:
    assert shares_unseen(0.0, 0.95).held == ("wind",)
    assert shares_unseen(0.0, 0.95, 0.95, 0.4).held == ("wind",)
    assert shares_unseen(0.0, 0.95, 0.95, 0.1).held == ()


def test_a_feature_that_drifted_can_still_become_strange() -> None:
    assert shares_unseen(0.0, 0.95, excess=5.0).held == ("wind",)
    assert shares_unseen(0.0, 0.95, 0.0, excess=5.0).held == ()


def test_new_values_that_come_slowly_or_from_the_first_are_nothing_strange() -> None:
    assert shares_unseen(0.0, 0.3, 0.5, 0.7, 0.9).held == ()
    assert shares_unseen(0.9, 0.9).held == ()
    assert shares_unseen(0.0, 0.6).held == ()
    assert shares_unseen(None, 0.9).held == ()


def test_a_strange_first_batch_of_another_champion_is_held_and_another_champion_ends_it() -> None:
    strange = part([feature("wind", 0.8, unseen=0.95)])
    assert step(shares_unseen(0.0), champion=OTHER, drift=strange).held == ("wind",)
    assert step(shares_unseen(0.0, 0.95), champion=OTHER, drift=strange).held == ()


def test_a_feature_is_named_once_whatever_it_is_held_for() -> None:
    before = step(Carried(), drift=part([feature("x", 0.5, unseen=0.0), feature("y", 0.5, unseen=0.0)]))
    after = step(before, drift=part([feature("y", 12.0, unseen=0.0), feature("x", 12.0, unseen=1.0)]))
    assert after.held == ("x", "y")


def test_a_jump_in_the_first_batch_of_another_champion_is_held() -> None:
    calm = excesses(0.8)
    assert step(calm, champion=OTHER, drift=part([feature("temp", 12.0)])).sudden == ("temp",)
    assert step(calm, champion=OTHER, drift=part([feature("temp", 6.0)])).sudden == ()


def test_another_champion_ends_a_hold() -> None:
    held = excesses(0.8, 12.0)
    assert step(held, champion=OTHER, drift=part([feature("temp", 12.0)])).sudden == ()


def test_ignored_and_lost_features_are_not_held() -> None:
    before = step(Carried(), drift=part([feature("x", 0.5, unseen=0.0), feature("y", 0.5, unseen=0.0)]))
    jumped = [feature("x", 99.0, unseen=1.0, is_ignored=True), feature("y", 99.0, unseen=1.0, is_lost=True)]
    assert step(before, drift=part(jumped)).held == ()


def test_a_faulty_batch_neither_holds_nor_clears() -> None:
    held = excesses(0.8, 12.0)
    after = step(held, is_faulty=True, drift=part([feature("temp", 0.1)]))
    assert (after.sudden, after.calm) == (held.sudden, held.calm)
    assert after.num_batches == held.num_batches + 1


def test_zero_switches_the_hold_off() -> None:
    off = POLICY.model_copy(update={"sudden_excess": 0.0})
    before = step(Carried(), drift=part([feature("x", 0.5, unseen=0.0)]), policy=off)
    assert step(before, drift=part([feature("x", 99.0, unseen=1.0)]), policy=off).held == ()


def test_every_measured_window_is_one_test_of_the_stream() -> None:
    state = step(Carried(), drift=part([], p_value=0.5))
    state = step(state, drift=part([], p_value=None))
    state = step(state, drift=part([], p_value=1e-9))
    assert state.stream == Stream(num_tests=2, discoveries=(2,))
    assert state.stream.is_discovery


def test_a_new_champion_keeps_the_errors_of_estimates_and_starts_the_rest() -> None:
    state = step(Carried(), arrived=labels(500), drift=part([feature("x", 0.5)]))
    fresh = step(state, champion=OTHER, drift=part([feature("x", 0.5)]))
    assert fresh.stream.num_tests == 0
    assert len(fresh.estimator.errors) == 1
    assert fresh.estimator.model_digest == OTHER
