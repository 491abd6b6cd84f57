"""Performance before labels: right while the world keeps its meaning, "unknown" where it cannot see."""

import dataclasses
import json

import numpy as np
import pytest

from clearway.contracts.codec import from_jsonable, to_jsonable
from clearway.monitor.estimate import Estimate, Estimator

MODEL = "a" * 64
NUM_ROWS = 2_000


def week(seed: int, *, difficulty: float = 1.0) -> tuple[np.ndarray, np.ndarray]:  # type: ignore[type-arg]
    """Labels and scores of a calibrated model; a larger `difficulty` draws scores to the middle."""
    rng = np.random.default_rng(seed)
    scores = 0.5 + (rng.uniform(0.02, 0.98, NUM_ROWS) - 0.5) / difficulty
    return (rng.random(NUM_ROWS) < scores).astype(np.float64), scores


def taught(num_batches: int, *, first: int = 0) -> Estimator:
    estimator = Estimator().of(MODEL)
    for seed in range(first, first + num_batches):
        estimator = estimator.after(*week(seed))
    return estimator


def ask(estimator: Estimator, scores: np.ndarray, *, num_unlabelled: int = 0) -> Estimate:  # type: ignore[type-arg]
    return estimator.estimate(scores, min_rows=200, num_unlabelled=num_unlabelled, patience=3)


def figure(estimate: Estimate, name: str) -> tuple[float, float]:
    (found,) = [f for f in estimate.figures if f.name == name]
    return found.lower, found.upper


def test_intervals_hold_95_of_100_next_batches_also_when_rows_become_harder() -> None:
    held = known = 0
    for seed in range(100):
        estimator = taught(8, first=1_000 * seed)
        labels, scores = week(1_000 * seed + 500, difficulty=1.0 + seed % 3)
        estimate = ask(estimator, scores)
        if not estimate.is_known:  # a calm world surprises one batch in twenty
            continue
        known += 1
        low, high = figure(estimate, "log_loss")
        clipped = np.clip(scores, 1e-7, 1 - 1e-7)
        found = -np.mean(labels * np.log(clipped) + (1 - labels) * np.log1p(-clipped))
        held += low <= found <= high
    assert known >= 85
    # At 95 %, ten misses of 85 have a chance of 1 in 90.
    assert known - held < 10


def test_it_takes_labels_of_some_batches_before_anything_is_said() -> None:
    _, scores = week(99)
    assert not ask(taught(4), scores).is_known
    known = ask(taught(5), scores)
    assert known.is_known
    assert {f.name for f in known.figures} == {"log_loss", "brier", "auc", "mean_label"}
    assert all(f.lower <= f.value <= f.upper for f in known.figures)


def test_a_changed_meaning_that_labels_show_makes_it_unknown() -> None:
    labels, scores = week(50)
    surprised = taught(8).after(1 - labels, scores)
    found = ask(surprised, scores)
    assert not found.is_known
    assert "what inputs mean seems to have changed" in found.reason
    assert found.figures == ()


def test_labels_that_stop_make_it_unknown_after_a_while() -> None:
    _, scores = week(99)
    assert ask(taught(8), scores, num_unlabelled=2).is_known
    silent = ask(taught(8), scores, num_unlabelled=3)
    assert not silent.is_known
    assert "no labels for this champion in 3 batches" in silent.reason


def test_scores_where_no_label_was_met_make_it_unknown() -> None:
    estimator = Estimator().of(MODEL)
    for seed in range(6):
        labels, scores = week(seed)
        low = scores < 0.5
        estimator = estimator.after(labels[low], scores[low])
    assert not ask(estimator, np.linspace(0.6, 0.9, 500)).is_known
    assert ask(estimator, np.linspace(0.1, 0.4, 500)).is_known


def test_few_or_broken_scores_are_unknown() -> None:
    assert not ask(taught(8), np.linspace(0.1, 0.9, 199)).is_known
    assert not ask(taught(8), np.full(500, np.nan)).is_known


def test_a_new_champion_keeps_what_the_world_does_and_forgets_what_scores_were_worth() -> None:
    old = taught(8)
    new = old.of("b" * 64)
    assert new.errors == old.errors
    assert sum(new.calibration.num_rows) == 0
    assert old.of(MODEL) is old


def test_the_state_survives_json() -> None:
    state = taught(3)
    assert from_jsonable(Estimator, json.loads(json.dumps(to_jsonable(state)))) == state


@pytest.mark.parametrize("num_batches", [60])
def test_the_state_stays_small(num_batches: int) -> None:
    state = dataclasses.replace(taught(2), errors=taught(2).errors * 26)
    for seed in range(52, num_batches):
        state = state.after(*week(seed))
    assert len(state.errors) == 52
    assert len(json.dumps(to_jsonable(state))) < 10_000
