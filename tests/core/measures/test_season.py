"""A product with more than a year behind it is held against the same season of earlier years."""

from datetime import date, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from clearway.infra.datasets import DAY
from clearway.measures.distance import build_reference
from clearway.measures.season import MIN_BATCHES, in_season, season_batches, season_of
from clearway.monitor.drift import measure_drift

EPOCH, FIRST = date(1970, 1, 1), date(2020, 1, 6)
NAMES = tuple(f"x{i}" for i in range(10))
NUM_ROWS, NUM_WAVING, HEIGHT = 150, 7, 1.2


def day_of(week: int) -> int:
    return (FIRST + timedelta(weeks=week) - EPOCH).days


def week_of(week: int, *, looks_like: int | None = None) -> pa.Table:
    """Seven of ten numbers follow the year, all weeks differ a little. `looks_like`: the week its values are from."""
    source = week if looks_like is None else looks_like
    rng = np.random.default_rng(source)
    values = rng.normal(size=(NUM_ROWS, len(NAMES))) + rng.normal(0, 0.15, len(NAMES))
    values[:, :NUM_WAVING] -= HEIGHT * np.cos(2 * np.pi * (day_of(source) - day_of(0)) / 365.25)
    days = pa.array(day_of(week) + np.arange(NUM_ROWS) % 7, pa.int32()).cast(pa.date32())
    columns = dict(zip(NAMES, values.T, strict=True))
    return pa.table(columns | {"batch_id": [f"{week:03}"] * NUM_ROWS, DAY: days})


def trained(num_weeks: int, *, day_column: str | None = DAY) -> dict[str, Any]:
    training = pa.concat_tables([week_of(week) for week in range(num_weeks)])
    return build_reference(training, numeric=NAMES, categorical=[], batch_column="batch_id", day_column=day_column)


@pytest.fixture(scope="module")
def two_years() -> dict[str, Any]:
    return trained(104)


def share_over(reference: dict[str, Any], batch: pa.Table) -> float:
    share = measure_drift(reference, batch, ignore=(), scores=None, false_discovery_rate=0.1).share_over
    assert share is not None
    return share


def test_a_third_year_like_those_before_is_no_drift(two_years: dict[str, Any]) -> None:
    assert max(share_over(two_years, week_of(week)) for week in range(104, 156, 3)) <= 0.5


def test_summer_in_winter_is_drift_that_all_of_training_does_not_see(two_years: dict[str, Any]) -> None:
    winter, summer = 106, 130
    strange = week_of(winter, looks_like=summer)
    assert share_over(two_years, strange) >= NUM_WAVING / len(NAMES)
    assert share_over(trained(104, day_column=None), strange) < 0.5


def test_a_season_holds_the_weeks_of_all_its_years(two_years: dict[str, Any]) -> None:
    entry = two_years["features"]["x0"]
    assert list(two_years["seasons"]) == ["winter", "spring", "summer", "autumn"]
    of_seasons = np.sum([entry["seasons"][season]["counts"] for season in two_years["seasons"]], axis=0)
    assert of_seasons.tolist() == entry["counts"]
    for week, season in ((108, "winter"), (130, "summer")):
        chosen = in_season(two_years, day_of(week))
        assert chosen["features"]["x0"]["limit"] == entry["seasons"][season]["limit"] < entry["limit"]
        assert chosen["features"]["x0"]["edges"] == entry["edges"]
        weeks = [w for w in range(104) if season_of(day_of(w)) == season]
        assert len(chosen["null_shares"]) == len(weeks)


def test_a_season_is_described_as_its_batches_alone_would_be(two_years: dict[str, Any]) -> None:
    summer = [week for week in range(104) if season_of(day_of(week)) == "summer"]
    rows = pa.concat_tables([week_of(week) for week in summer])
    entry = two_years["features"]["x0"]
    values = rows["x0"].to_numpy()
    bins = np.searchsorted(entry["edges"], values, side="left")
    assert entry["seasons"]["summer"]["counts"] == np.bincount(bins, minlength=10).tolist()
    means = [values[bins == b].mean() for b in range(10)]
    assert entry["seasons"]["summer"]["means"] == pytest.approx(means)


@pytest.mark.parametrize("num_weeks", [13, 51])
def test_less_than_a_year_has_no_seasons(num_weeks: int) -> None:
    reference = trained(num_weeks)
    assert reference["seasons"] == {}
    assert in_season(reference, day_of(60)) == reference


def test_a_season_of_few_batches_is_not_held_against_them() -> None:
    batches = season_batches(np.asarray([day_of(week) for week in range(54)]), np.arange(54))
    assert sorted(batches) == ["autumn", "spring", "summer", "winter"]
    monthly = np.asarray([(date(2020, month, 1) - EPOCH).days for month in range(1, 13)] + [day_of(54)])
    assert season_batches(monthly, np.arange(13)).keys() == {"winter"}  # January, February, December, January
    assert MIN_BATCHES == 4


@pytest.mark.parametrize(
    ("day", "season"),
    [
        (date(2020, 2, 29), "winter"),
        (date(2020, 3, 1), "spring"),
        (date(2019, 8, 31), "summer"),
        (date(2021, 11, 30), "autumn"),
        (date(2021, 12, 1), "winter"),
        (date(1969, 12, 31), "winter"),
    ],
)
def test_seasons_are_three_whole_months(day: date, season: str) -> None:
    assert season_of((day - EPOCH).days) == season
