"""Points a column lies on: a new unit leaves them, noise and weather do not."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clearway.measures.grid import MAX_POINTS, off_grid, points_of

KNOT_MPH = 1.15078
BATCHES = np.arange(4_000) % 10


def wind(*, seed: int = 0, num_rows: int = 4_000, strength: float = 9.0) -> np.ndarray:  # type: ignore[type-arg]
    """Whole knots, written in miles an hour."""
    return np.random.default_rng(seed).poisson(strength, num_rows) * KNOT_MPH


def share_off(values: np.ndarray, points: list[int], *, spread: float) -> float:  # type: ignore[type-arg]
    num_off, num_told = off_grid(values, points, spread=spread)
    return num_off / num_told


def trained() -> tuple[list[int], float]:
    values = wind()
    points = points_of(values, BATCHES, spread=float(values.std()))
    assert points is not None
    return points, float(values.std())


@pytest.mark.parametrize(
    ("factor", "offset"),
    [(0.44704, 0.0), (1.609344, 0.0), (1 / 60, 0.0), (1.0, 273.15), (1 / 1.8, -32.0), (1 / KNOT_MPH, 0.0)],
    ids=["m/s", "km", "hours", "kelvin", "celsius", "knots"],
)
def test_another_unit_leaves_the_grid(factor: float, offset: float) -> None:
    points, spread = trained()
    assert share_off((wind(seed=1) + offset) * factor, points, spread=spread) > 0.7


@pytest.mark.parametrize("strength", [3.0, 6.0, 13.0])
def test_calm_and_stormy_weeks_stay_on_it(strength: float) -> None:
    points, spread = trained()
    assert share_off(wind(seed=2, strength=strength), points, spread=spread) < 0.05


@given(st.integers(0, 1_000), st.floats(-4e-4, 4e-4))
def test_other_digits_of_the_same_reading_stay_on_it(seed: int, noise: float) -> None:
    points, spread = trained()
    values = wind(seed=seed, num_rows=50)
    kept = np.isin(np.rint(values / KNOT_MPH), np.rint(wind() / KNOT_MPH))
    assert off_grid(values[kept] + noise * spread, points, spread=spread)[0] == 0


@given(st.floats(0.01, 1e6), st.integers(0, 100))
def test_the_unit_of_training_and_batch_together_does_not_matter(factor: float, seed: int) -> None:
    values, later = wind() * factor, wind(seed=seed, num_rows=60, strength=14.0) * factor
    points = points_of(values, BATCHES, spread=float(values.std()))
    known, spread = trained()
    assert points is not None
    assert len(points) == len(known)
    assert off_grid(later, points, spread=float(values.std())) == off_grid(later / factor, known, spread=spread)


def test_measured_numbers_have_no_grid() -> None:
    values = np.random.default_rng(0).normal(size=4_000)
    assert points_of(values, BATCHES, spread=1.0) is None
    few = values[:300]  # fewer than MAX_POINTS, but each batch brings its own
    assert len(few) < MAX_POINTS
    assert points_of(few, BATCHES[:300], spread=1.0) is None


def test_one_batch_or_one_value_have_no_grid() -> None:
    values = wind()
    assert points_of(values, np.zeros(len(values), np.int64), spread=float(values.std())) is None
    assert points_of(np.full(10, 3.0), BATCHES[:10], spread=0.0) is None
    assert points_of(np.empty(0), np.empty(0, np.int64), spread=1.0) is None


def test_absurd_values_are_off() -> None:
    points, spread = trained()
    assert off_grid(np.empty(0), points, spread=spread) == (0, 0)
    assert off_grid(np.asarray([1e300, -1e300, 0.0]), points, spread=spread) == (2, 2)


def test_hours_without_rain_do_not_hide_the_unit_of_the_others() -> None:
    rng = np.random.default_rng(0)
    inches = np.where(rng.random(4_000) < 0.95, 0.0, rng.integers(1, 40, 4_000) / 100)
    points = points_of(inches, BATCHES, spread=float(inches.std()))
    assert points is not None and 0 not in points
    for delivered, share in ((inches, 0.0), (inches * 25.4, 1.0)):
        num_off, num_told = off_grid(delivered, points, spread=float(inches.std()))
        assert (num_off, num_told) == (share * num_told, np.count_nonzero(inches))
    assert points_of(np.where(inches > 0, 0.0, -0.0), BATCHES, spread=1.0) is None
