"""How large values are, zeros apart: another unit moves it by its factor, whatever else there is."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clearway.measures.size import MIN_BATCHES, MIN_VALUES, Sizes, size_sum, sizes_of, times_beyond

NUM_BATCHES = 8
BATCHES = np.arange(4_000) % NUM_BATCHES


def rain(*, seed: int = 0, num_rows: int = 4_000, dry: float = 0.9) -> np.ndarray:  # type: ignore[type-arg]
    """Mostly none, else skewed."""
    rng = np.random.default_rng(seed)
    return np.where(rng.random(num_rows) < dry, 0.0, rng.lognormal(-1.0, 1.0, num_rows))


def trained() -> tuple[tuple[float, float], float]:
    values = rain()
    spread = float(values.std())
    usual = sizes_of(values, BATCHES, num_batches=NUM_BATCHES, spread=spread).usual()
    assert usual is not None
    return usual, spread


def beyond(values: np.ndarray, usual: tuple[float, float], spread: float) -> float | None:  # type: ignore[type-arg]
    return times_beyond(*size_sum(values, spread=spread), usual)


def test_values_worked_by_hand() -> None:
    values, batches = np.asarray([1.0, math.e, 0.0, -(math.e**3)]), np.asarray([0, 0, 1, 1])
    found = sizes_of(values, batches, num_batches=2, spread=1.0)
    assert found.counts.tolist() == [2.0, 1.0]
    assert found.sums.tolist() == pytest.approx([1.0, 3.0])
    assert size_sum(values, spread=1.0) == (3, pytest.approx(4.0))
    assert times_beyond(MIN_VALUES, 2.0 * MIN_VALUES, (0.5, 1.0)) == pytest.approx(math.e)
    assert times_beyond(MIN_VALUES, 0.0, (0.5, 1.0)) == pytest.approx(math.exp(0.5))
    assert times_beyond(MIN_VALUES, 0.7 * MIN_VALUES, (0.5, 1.0)) == 1.0


@pytest.mark.parametrize("factor", [25.4, 60.0, 1 / 60, 100.0, 1e300, 1e-300])
def test_another_unit_is_beyond_by_its_factor_less_the_range_of_training(factor: float) -> None:
    usual, spread = trained()
    found = beyond(rain(seed=1) * factor, usual, spread)
    least = math.exp(abs(math.log(factor)) - (usual[1] - usual[0]) - 0.5)
    if factor < 1e-100:
        assert found is None, "what is as good as zero has no size"
    else:
        assert found is not None and least < found


@pytest.mark.parametrize("dry", [0.3, 0.9, 0.97])
def test_wet_and_dry_weeks_keep_their_size(dry: float) -> None:
    usual, spread = trained()
    found = beyond(rain(seed=2, dry=dry), usual, spread)
    assert found is not None and found < 1.3


@given(st.floats(0.001, 1e6), st.integers(0, 50))
def test_the_unit_of_training_and_batch_together_does_not_matter(factor: float, seed: int) -> None:
    values, later = rain() * factor, rain(seed=seed) * 12.0
    usual, spread = trained()
    scaled = sizes_of(values, BATCHES, num_batches=NUM_BATCHES, spread=float(values.std())).usual()
    assert scaled is not None
    assert beyond(later * factor, scaled, float(values.std())) == pytest.approx(beyond(later, usual, spread))


def test_few_values_few_batches_and_constants_have_no_size() -> None:
    usual, spread = trained()
    assert beyond(np.full(MIN_VALUES - 1, 1e9), usual, spread) is None
    assert sizes_of(np.full(4_000, 3.0), BATCHES, num_batches=NUM_BATCHES, spread=0.0).usual() is None
    few = sizes_of(rain(), BATCHES, num_batches=NUM_BATCHES, spread=spread).of(np.arange(MIN_BATCHES - 1))
    assert few.usual() is None
    thin = Sizes(np.full(NUM_BATCHES, MIN_VALUES - 1.0), np.zeros(NUM_BATCHES))
    assert thin.usual() is None
