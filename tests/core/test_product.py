import calendar
import itertools
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from croniter import croniter
from hypothesis import given
from hypothesis import strategies as st

from clearway.contracts.errors import ConfigError
from clearway.product import Batch, Features, LoadedProduct, Table
from clearway.product_monitor import Monitor

FIRST = {"day": "2012-02-29", "week": "2012-12-31", "month": "2012-12-01", "quarter": "2012-10-01"}
EVERY = st.sampled_from(sorted(FIRST))


def batch(every: str) -> Batch:
    return Batch.model_validate({"every": every, "first": FIRST[every]})


@given(EVERY, st.integers(1, 60))
def test_intervals_tile_the_line(every: str, num_intervals: int) -> None:
    clock = batch(every)
    end = clock.first
    for _ in range(num_intervals):
        end = clock.end_of(end)
    found = clock.intervals(clock.first, end)
    assert len(found) == num_intervals
    assert found[0][0] == clock.first
    assert found[-1][1] == end
    assert all(left[1] == right[0] for left, right in itertools.pairwise(found))
    assert clock.intervals(clock.first, end - timedelta(seconds=1)) == found[:-1]


@given(EVERY, st.integers(0, 400))
def test_the_clock_ticks_when_its_cron_does(every: str, num_ticks: int) -> None:
    clock = batch(every)
    cron, start = croniter(clock.cron, clock.first), clock.first
    for _ in range(num_ticks % 40):
        start = clock.end_of(start)
        assert cron.get_next(datetime) == start


@given(EVERY, st.integers(0, 60))
def test_a_batch_id_leads_back_to_its_start(every: str, number: int) -> None:
    clock = batch(every)
    start = clock.first
    for _ in range(number):
        start = clock.end_of(start)
    assert clock.start_of(clock.batch_id(start)) == start


@given(st.integers(2000, 2100), st.integers(1, 12))
def test_a_month_is_as_long_as_the_calendar_says(year: int, month: int) -> None:
    start = datetime(year, month, 1, tzinfo=UTC)
    assert (batch("month").end_of(start) - start).days == calendar.monthrange(year, month)[1]


@given(st.integers(2000, 2100), st.sampled_from([1, 4, 7, 10]))
def test_a_quarter_is_its_three_months(year: int, month: int) -> None:
    start = end = datetime(year, month, 1, tzinfo=UTC)
    for _ in range(3):
        end = batch("month").end_of(end)
    assert batch("quarter").end_of(start) == end
    assert batch("quarter").back(end, 1) == max(start, batch("quarter").first)


@given(EVERY, st.integers(0, 30), st.integers(0, 120))
def test_looking_back_covers_the_days_asked_for_and_little_more(every: str, number: int, days: int) -> None:
    clock = batch(every)
    start = clock.first
    for _ in range(number):
        start = clock.end_of(start)
    back = clock.back(start, days)
    clock.batch_id(back)
    assert clock.first <= back <= start
    assert back == clock.first or back <= start - timedelta(days=days)
    assert days == 0 or back == clock.first or clock.end_of(back) > start - timedelta(days=days)


@pytest.mark.parametrize(
    ("every", "first"), [("week", "2013-01-01"), ("month", "2013-01-02"), ("day", "2013-01-01T01:00:00Z")]
)
def test_a_first_batch_off_the_clock_is_refused(every: str, first: str) -> None:
    with pytest.raises(ValueError, match=f"not the start of a {every} in UTC; the one before is"):
        Batch.model_validate({"every": every, "first": first})
    with pytest.raises(ValueError, match=f"not the start of a {every} in UTC"):
        Batch.model_validate({"every": every, "first": FIRST[every], "last": first})


@pytest.mark.parametrize(
    "text", ["2013-01-07", "2013-01-07T00:00:00Z", "2013-01-07T01:00:00+01:00", datetime(2013, 1, 7, tzinfo=UTC)]
)
def test_an_instant_may_be_written_in_several_ways(text: Any) -> None:
    assert Batch.model_validate({"every": "week", "first": text}).first == datetime(2013, 1, 7, tzinfo=UTC)


def test_ids_and_starts_off_the_clock_are_refused() -> None:
    clock = batch("week")
    with pytest.raises(ConfigError, match="does not start a week"):
        clock.batch_id(datetime(2013, 1, 8, tzinfo=UTC))
    with pytest.raises(ConfigError, match="is no date; allowed: YYYY-MM-DD"):
        clock.start_of("last week")
    with pytest.raises(ConfigError, match="does not start a week"):
        clock.start_of("2013-01-08")


def features(**changes: Any) -> dict[str, Any]:
    base = {"function": "features.py:build", "key": "key", "time": "at", "lookback_days": 7, "numeric": ["a", "b"]}
    return {**base, "categorical": ["c"], **changes}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"categorical": ["a"]}, r"columns \['a'\] are listed twice"),
        ({"deny": ["b"]}, r"columns \['b'\] are both features and denied"),
        ({"slices": ["a"]}, r"slices \['a'\] are not categorical features; allowed: \['c'\]"),
        ({"function": "features.build"}, "String should match pattern"),
        ({"lookback_days": -1}, "greater than or equal to 0"),
    ],
)
def test_contradicting_features_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Features.model_validate(features(**changes))


def test_model_inputs_keep_their_order() -> None:
    assert Features.model_validate(features()).columns == ("a", "b", "c")


def test_a_table_names_only_columns_it_declares() -> None:
    with pytest.raises(ValueError, match=r"columns \['when'\] that are not declared; declared: \['id'\]"):
        Table.model_validate({"columns": {"id": "string"}, "time": "when", "key": ["id"]})


@pytest.mark.parametrize("persistence", [(0, 3), (4, 3)])
def test_persistence_is_k_of_n(persistence: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="k of n"):
        Monitor(persistence=persistence)


@pytest.mark.parametrize(("tier", "expected"), [("low", False), ("medium", True), ("high", True)])
def test_a_person_approves_every_tier_but_the_lowest(flights: LoadedProduct, tier: str, *, expected: bool) -> None:
    assert flights.spec.model_copy(update={"risk_tier": tier}).needs_person is expected


def test_a_function_beside_the_product_is_found(flights: LoadedProduct, tmp_path: Path) -> None:
    (tmp_path / "features.py").write_text("TIMES = 2\ndef double(x):\n    return TIMES * x\n", encoding="utf-8")
    product = flights.model_copy(update={"folder": tmp_path})
    assert product.function("features.py:double")(21) == 42
    with pytest.raises(ConfigError, match=r"no function 'triple'; names there: \['TIMES', 'double'\]"):
        product.function("features.py:triple")
    with pytest.raises(ConfigError, match="no function 'TIMES'"):
        product.function("features.py:TIMES")
    with pytest.raises(ConfigError, match="has no file"):
        product.function("absent.py:build")
