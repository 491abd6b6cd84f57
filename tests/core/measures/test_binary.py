"""Known values, agreement with scikit-learn, and refusals."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clearway.contracts.errors import Unmeasurable
from clearway.measures import binary


def _sample(seed: int, *, num_rows: int, num_distinct: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, num_rows).astype(float)
    labels[:2] = (0.0, 1.0)
    return labels, rng.integers(0, num_distinct, num_rows) / num_distinct


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), num_rows=st.integers(2, 200), num_distinct=st.sampled_from([1, 3, 17, 5000]))
def test_agrees_with_scikit_learn_with_and_without_ties(seed: int, num_rows: int, num_distinct: int) -> None:
    from sklearn import metrics  # a second, which those who only collect need not wait for

    labels, scores = _sample(seed, num_rows=num_rows, num_distinct=num_distinct)
    assert binary.auc(labels, scores) == pytest.approx(metrics.roc_auc_score(labels, scores), abs=1e-12)
    assert binary.average_precision(labels, scores) == pytest.approx(
        metrics.average_precision_score(labels, scores), abs=1e-12
    )
    assert binary.brier(labels, scores) == pytest.approx(metrics.brier_score_loss(labels, scores), abs=1e-12)
    clipped = np.clip(scores, binary.SCORE_EPSILON, 1 - binary.SCORE_EPSILON)
    assert binary.log_loss(labels, scores) == pytest.approx(metrics.log_loss(labels, clipped), abs=1e-9)
    false_rate, true_rate = binary.roc(labels, scores)
    expected = metrics.roc_curve(labels, scores, drop_intermediate=False)
    np.testing.assert_allclose(false_rate, expected[0], atol=1e-12)
    np.testing.assert_allclose(true_rate, expected[1], atol=1e-12)


def test_auc_of_four_rows_by_hand() -> None:
    # Pairs (positive, negative): (.8,.1) right, (.8,.4) right, (.4,.1) right, (.4,.4) tie: 3.5 of 4.
    assert binary.auc([0, 0, 1, 1], [0.1, 0.4, 0.4, 0.8]) == 3.5 / 4


def test_log_loss_of_a_coin_is_log_two() -> None:
    assert binary.log_loss([0, 1, 1], [0.5, 0.5, 0.5]) == pytest.approx(np.log(2))


def test_a_certain_mistake_costs_a_lot_but_not_infinity() -> None:
    assert 16.0 < binary.log_loss([1.0], [0.0]) < 16.2


def test_skill_is_zero_for_the_base_rate_and_negative_for_worse() -> None:
    labels = [0, 0, 0, 1]
    assert binary.log_loss_skill(labels, [0.25] * 4, base_rate=0.25) == pytest.approx(0.0)
    assert binary.log_loss_skill(labels, [0.9] * 4, base_rate=0.25) < 0


def test_ece_by_hand_for_two_bins() -> None:
    # Bins {.1,.2} and {.8,.9}: |0 - .15| and |.5 - .85|, equal mass.
    assert binary.ece([0, 0, 0, 1], [0.1, 0.2, 0.8, 0.9], num_bins=2) == pytest.approx((0.15 + 0.35) / 2)


def test_ece_of_a_constant_score_is_the_calibration_gap() -> None:
    labels = np.array([0, 1, 0, 0, 1.0])
    assert binary.ece(labels, np.full(5, 0.7)) == pytest.approx(binary.calibration_gap(labels, np.full(5, 0.7)))


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000))
def test_order_of_rows_never_matters(seed: int) -> None:
    labels, scores = _sample(seed, num_rows=97, num_distinct=7)
    order = np.random.default_rng(seed).permutation(97)
    for measure in (binary.auc, binary.ece, binary.average_precision, binary.log_loss):
        assert measure(labels[order], scores[order]) == pytest.approx(measure(labels, scores), abs=1e-12)


def test_calibrated_scores_have_small_ece_and_doubled_logits_do_not() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(-1, 1.2, 50_000)
    scores = 1 / (1 + np.exp(-logits))
    labels = (rng.random(50_000) < scores).astype(float)
    assert binary.ece(labels, scores) < 0.01
    assert binary.ece(labels, 1 / (1 + np.exp(-2 * logits))) > 0.08


@pytest.mark.parametrize(
    ("labels", "scores"),
    [
        pytest.param([], [], id="empty"),
        pytest.param([0, 1], [0.5], id="lengths differ"),
        pytest.param([0, 1], [0.5, float("nan")], id="NaN score"),
        pytest.param([0, 1], [0.5, float("inf")], id="infinite score"),
        pytest.param([0, float("nan")], [0.5, 0.5], id="NaN label"),
        pytest.param([0, 2], [0.5, 0.5], id="third class"),
        pytest.param([[0, 1]], [[0.5, 0.5]], id="two dimensions"),
    ],
)
@pytest.mark.parametrize(
    "measure", [binary.auc, binary.log_loss, binary.brier, binary.ece, binary.average_precision, binary.calibration_gap]
)
def test_refuses_what_cannot_be_measured(measure, labels, scores) -> None:
    with pytest.raises(Unmeasurable):
        measure(labels, scores)


@pytest.mark.parametrize("measure", [binary.auc, binary.average_precision, binary.roc])
@pytest.mark.parametrize("label", [0.0, 1.0])
def test_ranking_needs_both_classes(measure, label: float) -> None:
    with pytest.raises(Unmeasurable, match="both classes"):
        measure([label] * 4, [0.1, 0.2, 0.3, 0.4])


@pytest.mark.parametrize("measure", [binary.log_loss, binary.brier, binary.ece])
def test_scores_outside_zero_and_one_are_no_probabilities(measure) -> None:
    with pytest.raises(Unmeasurable, match="probabilities"):
        measure([0, 1], [0.5, 1.5])


@pytest.mark.parametrize("base_rate", [0.0, 1.0, float("nan")])
def test_skill_needs_a_base_rate_that_leaves_something_to_predict(base_rate: float) -> None:
    with pytest.raises(Unmeasurable, match="base rate"):
        binary.log_loss_skill([0, 1], [0.5, 0.5], base_rate=base_rate)
