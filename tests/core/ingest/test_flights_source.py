"""The flights product's own functions: instants in UTC, labels apart, faults that do what they say."""

from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from clearway.ingest.cut import conform_all
from clearway.ingest.sources import open_source
from clearway.product import LoadedProduct

# The whole year is read and put into UTC.
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def shaped(flights: LoadedProduct) -> dict[str, pa.Table]:
    tables: dict[str, pa.Table] = flights.function("source.py:shape")(open_source(flights).read(""))
    return tables


def minutes(table: pa.Table, later: str, earlier: str) -> pa.ChunkedArray:
    difference = pc.subtract(pc.cast(table[later], pa.int64()), pc.cast(table[earlier], pa.int64()))
    return pc.divide(difference, 60_000_000)


def test_every_table_is_as_product_yaml_declares_it(flights: LoadedProduct, shaped: dict[str, pa.Table]) -> None:
    conformed = conform_all(flights.spec, shaped)
    assert conformed.problems == ()
    assert len(conformed.tables["flights"]) == 336_776


def test_keys_are_unique_and_the_first_flight_is_right(shaped: dict[str, pa.Table]) -> None:
    table = shaped["flights"]
    assert len(table["key"].unique()) == len(table)
    first = table.slice(0, 1).to_pylist()[0]
    assert first["key"] == "2013-01-01-UA-1545-EWR"
    assert first["sched_dep_utc"] == datetime(2013, 1, 1, 10, 15, tzinfo=UTC)
    assert first["sched_arr_utc"] == datetime(2013, 1, 1, 14, 19, tzinfo=UTC)  # 8:19 in Houston
    assert first["dep_time_utc"] == datetime(2013, 1, 1, 10, 17, tzinfo=UTC)
    assert first["utc_offset_min"] == -300


def test_time_zones_leave_a_plausible_time_on_the_ground_for_every_flight(shaped: dict[str, pa.Table]) -> None:
    flights, labels = shaped["flights"], shaped["labels"]
    block = minutes(flights, "sched_arr_utc", "sched_dep_utc")
    elapsed = pc.subtract(pc.add(block, labels["arr_delay"]), flights["dep_delay"])
    on_ground = pc.min_max(pc.subtract(elapsed, labels["air_time"])).as_py()
    assert on_ground == {"min": 5, "max": 235}


def test_the_label_is_late_by_more_than_fifteen_minutes_of_completed_flights(shaped: dict[str, pa.Table]) -> None:
    labels = shaped["labels"]
    assert pc.sum(pc.is_valid(labels["late15"])).as_py() == 327_346
    is_late = pc.cast(pc.greater(labels["arr_delay"], 15), pa.int64())
    assert is_late.equals(labels["late15"])


def test_arrivals_are_only_in_the_label_table(shaped: dict[str, pa.Table]) -> None:
    for name, table in shaped.items():
        assert name == "labels" or not {"arr_delay", "air_time", "late15"} & set(table.column_names)


def test_unit_change_makes_celsius_of_fahrenheit(flights: LoadedProduct, shaped: dict[str, pa.Table]) -> None:
    changed = flights.function("source.py:plant")("unit_change", shaped)
    assert shaped["weather"]["temp"][0].as_py() == pytest.approx(39.02)
    assert changed["weather"]["temp"][0].as_py() == pytest.approx(3.9)
    assert changed["flights"] is shaped["flights"]


def test_feed_outage_silences_one_airport(flights: LoadedProduct, shaped: dict[str, pa.Table]) -> None:
    changed = flights.function("source.py:plant")("feed_outage", shaped)
    assert "EWR" not in changed["weather"]["origin"].unique().to_pylist()
    silent = changed["flights"].filter(pc.equal(changed["flights"]["origin"], "EWR"))
    assert len(silent) > 100_000
    assert silent["dep_time_utc"].null_count == len(silent)
    others = changed["flights"].filter(pc.not_equal(changed["flights"]["origin"], "EWR"))
    assert others.equals(shaped["flights"].filter(pc.not_equal(shaped["flights"]["origin"], "EWR")))


def test_carrier_remap_permutes_the_codes(flights: LoadedProduct, shaped: dict[str, pa.Table]) -> None:
    changed = flights.function("source.py:plant")("carrier_remap", shaped)
    before, after = shaped["flights"]["carrier"], changed["flights"]["carrier"]
    assert sorted(before.unique().to_pylist()) == sorted(after.unique().to_pylist())
    assert pc.sum(pc.equal(before, after)).as_py() == 0


def test_an_unknown_fault_is_refused_with_the_known_ones(flights: LoadedProduct) -> None:
    with pytest.raises(ValueError, match="carrier_remap"):
        flights.function("source.py:plant")("gremlins", {})
