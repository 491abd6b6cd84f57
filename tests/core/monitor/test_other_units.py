"""A column that varies by its own size from week to week, delivered in another unit: held, and never in calm weeks."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from clearway.infra.datasets import DAY
from clearway.measures.distance import build_reference
from clearway.monitor.carried import Arrived, Carried, carry
from clearway.monitor.decide import Answer, Window, decide
from clearway.monitor.drift import measure_drift
from clearway.product_monitor import Monitor, Signal

NUM_TRAINING, NUM_ROWS = 12, 500
MODEL = "a" * 64
KNOT_MPH, MPS = 1.15078, 0.44704
POLICY = Monitor(triggers=((Signal.TIME,),), every_batches=1, cooldown_batches=0)


def week(number: int, *, factor: float = 1.0) -> pa.Table:
    """Wind between calm and storm, in miles an hour; visibility, ten miles nearly always; and something measured: rain,
    mostly none, and a mean delay that is another every week."""
    rng = np.random.default_rng(number)
    columns: dict[str, Any] = {
        "wind": rng.poisson(rng.uniform(4, 14), NUM_ROWS) * KNOT_MPH * factor,
        "visibility": np.minimum(10, rng.integers(1, rng.integers(20, 200), NUM_ROWS)) * factor,
        "humidity": rng.normal(rng.uniform(40, 80), 10, NUM_ROWS),
        "rain": np.where(rng.random(NUM_ROWS) < 0.85, 0.0, rng.lognormal(rng.uniform(-3, -2), 1, NUM_ROWS)) * factor,
        "delay": rng.normal(rng.uniform(5, 25), 8, NUM_ROWS) * factor,
    }
    days = pa.array(np.arange(NUM_ROWS) % 7 + 7 * number, pa.int32()).cast(pa.date32())
    return pa.table(columns | {"batch_id": [f"{number:03}"] * NUM_ROWS, DAY: days})


@pytest.fixture(scope="module")
def reference() -> dict[str, Any]:
    training = pa.concat_tables([week(number) for number in range(NUM_TRAINING)])
    return build_reference(
        training, numeric=["wind", "visibility", "humidity", "rain", "delay"], categorical=[], batch_column="batch_id"
    )


def watched(reference: dict[str, Any], factors: list[float]) -> list[Carried]:
    """One state per week after training, delivered in these units."""
    state, found = Carried(), []
    for number, factor in enumerate(factors, start=NUM_TRAINING):
        drift = measure_drift(reference, week(number, factor=factor), ignore=(), scores=None, false_discovery_rate=0.1)
        state = carry(
            state,
            champion=MODEL,
            num_passed=1,
            drift=drift,
            is_faulty=False,
            arrived=Arrived(labels=[], scores=[], num_rows=0),
            policy=POLICY,
        )
        found.append(state)
    return found


def test_a_calm_year_of_all_weathers_holds_nothing(reference: dict[str, Any]) -> None:
    assert {state.held for state in watched(reference, [1.0] * 39)} == {()}


@pytest.mark.parametrize("factor", [MPS, 1.609344, 1 / 60, 25.4, 1 / KNOT_MPH])
def test_another_unit_is_held_until_it_is_repaired(reference: dict[str, Any], factor: float) -> None:
    states = watched(reference, [1.0, 1.0, factor, factor, 1.0])
    assert [state.held for state in states[:2]] == [(), ()]
    assert all({"wind", "visibility"} == set(state.strange) for state in states[2:4])
    assert states[4].strange == ()


@pytest.mark.parametrize("factor", [1 / 60, 25.4, 100.0])
def test_what_has_no_grid_is_held_for_its_size(reference: dict[str, Any], factor: float) -> None:
    states = watched(reference, [1.0, 1.0, factor, factor, 1.0])
    assert [state.held for state in states[:2]] == [(), ()]
    assert all({"rain", "delay"} <= set(state.resized) for state in states[2:4])
    assert not {"rain", "delay"} & {name for state in states for name in state.strange}
    assert states[4].held == ()


def test_a_distance_alone_would_not_have_seen_the_delay(reference: dict[str, Any]) -> None:
    assert not {"rain", "delay"} & set(watched(reference, [1.0, 1.0, 1 / 60])[-1].sudden)


def test_a_distance_alone_would_not_have_seen_the_wind(reference: dict[str, Any]) -> None:
    assert "wind" not in watched(reference, [1.0, 1.0, MPS])[-1].sudden


def test_what_is_held_is_not_trained_on(reference: dict[str, Any]) -> None:
    answers = []
    for state in watched(reference, [1.0, MPS]):
        window = Window(
            batch_id="2024-01-01", model_digest=MODEL, drift_share=0.0, sudden=state.held, num_batches=state.num_batches
        )
        answers.append(decide([window], [], POLICY, product="p", as_of="2024-01-08T00:00:00+00:00").answer)
    assert answers == [Answer.RETRAIN, Answer.ALERT]
