"""Features of real flights against the plainest possible reading of their definition: loops over what was known."""

import bisect
import math
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from clearway.infra.datasets import open_dataset, read_features
from clearway.infra.environment import Environment
from clearway.infra.layout import Layout
from clearway.infra.parquet import from_parquet
from clearway.infra.raw_windows import open_batch, open_window
from clearway.infra.storage import open_storage
from clearway.ingest.spec import Outputs as Landed
from clearway.preprocess.run import run as preprocess
from clearway.preprocess.spec import Inputs
from clearway.product import LoadedProduct

NUM_ROWS = 200
HOLIDAYS = [date(2012, 12, 25), date(2013, 1, 1), date(2013, 1, 21), date(2013, 2, 18)]
Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class World:
    """Everything landed, and the features computed from it."""

    flights: list[Row]
    weather: dict[str, list[Row]]
    features: list[Row]


@pytest.fixture(scope="module")
def world(flights: LoadedProduct, tmp_path_factory: pytest.TempPathFactory, land: Callable[..., Landed]) -> World:
    home = tmp_path_factory.mktemp("flights")
    env = Environment.load({"CLEARWAY__HOME": str(home)})
    raw = land(flights, env, start="2013-01-14", end="2013-02-11").raw
    assert raw is not None
    outputs = preprocess(
        Inputs(product="flights", release_id="r", raw=raw, start="2013-02-04"), product=flights, env=env
    )
    storage, layout = open_storage(env.store_root), Layout(env.store_root, "flights")
    tables: dict[str, list[Row]] = {"flights": [], "weather": []}
    for batch in open_window(storage, raw).batches:
        for name in tables:
            uri = open_batch(storage, layout, batch).file_uri(f"{name}.parquet")
            tables[name] += from_parquet(storage.read(uri)).to_pylist()
    made = read_features(storage, layout, open_dataset(storage, outputs.dataset)).to_pylist()
    weather: dict[str, list[Row]] = {}
    for row in tables["weather"]:
        weather.setdefault(row["origin"], []).append(row)
    return World(flights=tables["flights"], weather=weather, features=made)


def after(rows: list[Row], clock: str, instant: datetime) -> list[Row]:
    """Rows, sorted by `clock`, that come after `instant`."""
    return rows[bisect.bisect_right(rows, instant, key=lambda r: r[clock]) :]


def mean(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None


def slot(flight: Row) -> int:
    return (flight["sched_dep_utc"] + timedelta(minutes=flight["utc_offset_min"])).hour


def expected(world: World, flight: Row, departures: list[Row], at: datetime) -> Iterator[tuple[str, float | None]]:
    """Feature by feature, straight from the words that define it."""

    within = {hours: after(departures, "dep_time_utc", at - timedelta(hours=hours)) for hours in (2, 6, 24, 168, 336)}

    def last(hours: int, **same: Any) -> list[Row]:
        return [d for d in within[hours] if all(d[k] == v for k, v in same.items())]

    def delay(rows: list[Row]) -> float | None:
        return mean([r["dep_delay"] for r in rows])

    def late(rows: list[Row]) -> float | None:
        return mean([float(r["dep_delay"] > 15) for r in rows])

    origin, carrier, dest = ({k: flight[k]} for k in ("origin", "carrier", "dest"))
    number = {**origin, **carrier, "flight": flight["flight"]}
    yield "all_late_2h", late(last(2))
    yield "origin_count_2h", len(last(2, **origin))
    yield "origin_late_6h", late(last(6, **origin))
    yield "origin_delay_168h", delay(last(168, **origin))
    yield "carrier_delay_24h", delay(last(24, **carrier))
    yield "carrier_late_168h", late(last(168, **carrier))
    yield "pair_count_2h", len(last(2, **origin, **carrier))
    yield "pair_delay_6h", delay(last(6, **origin, **carrier))
    yield "dest_late_168h", late(last(168, **dest))
    yield "route_delay_24h", delay(last(24, **origin, **dest))
    yield "route_count_168h", len(last(168, **origin, **dest))
    yield "flight_count_336h", len(last(336, **number))
    yield "flight_delay_336h", delay(last(336, **number))
    yield "slot_late_336h", late([d for d in last(336, **origin) if slot(d) == slot(flight)])
    yield from aircraft(flight, departures, last, at)
    yield from schedule(world, flight, at)


def aircraft(
    flight: Row, departures: list[Row], last: Callable[..., list[Row]], at: datetime
) -> Iterator[tuple[str, float | None]]:
    same = {"tailnum": flight["tailnum"]}
    yield "tail_count_24h", len(last(24, **same)) if flight["tailnum"] else 0
    own = [d for d in departures if flight["tailnum"] and d["tailnum"] == flight["tailnum"]]
    own.sort(key=lambda d: d["dep_time_utc"])
    newest = own[-1] if own and at - own[-1]["dep_time_utc"] <= timedelta(hours=72) else None
    if newest is None:
        yield from ((name, None) for name in ("tail_last_delay", "tail_hours_since", "tail_slack_min"))
        return
    block = newest["sched_arr_utc"] - newest["sched_dep_utc"]
    ready = newest["dep_time_utc"] + 2 * block + timedelta(minutes=45)
    yield "tail_last_delay", newest["dep_delay"]
    yield "tail_hours_since", (at - newest["dep_time_utc"]) / timedelta(hours=1)
    yield "tail_slack_min", (flight["sched_dep_utc"] - ready) / timedelta(minutes=1)


def schedule(world: World, flight: Row, at: datetime) -> Iterator[tuple[str, float | None]]:
    waiting = [
        f
        for f in after(world.flights, "sched_dep_utc", at - timedelta(hours=6))
        if f["sched_dep_utc"] <= at and not (f["dep_time_utc"] and f["dep_time_utc"] <= at)
    ]
    here = [(at - f["sched_dep_utc"]) / timedelta(minutes=1) for f in waiting if f["origin"] == flight["origin"]]
    yield "overdue_origin", len(here)
    yield "overdue_origin_min", mean(here)
    yield "overdue_dest", sum(f["dest"] == flight["dest"] for f in waiting)
    begin = flight["sched_dep_utc"] - timedelta(hours=3)
    planned = after(world.flights, "sched_dep_utc", begin)
    planned = [f for f in planned if f["sched_dep_utc"] <= flight["sched_dep_utc"]]
    planned = [f for f in planned if f["origin"] == flight["origin"]]
    yield "sched_origin_3h", len(planned)
    yield "sched_pair_3h", sum(f["carrier"] == flight["carrier"] for f in planned)
    seen = [w for w in world.weather[flight["origin"]] if at - timedelta(hours=3) < w["time_utc"] <= at]
    now = max(seen, key=lambda w: w["time_utc"])
    yield "weather_age_h", (at - now["time_utc"]) / timedelta(hours=1)
    yield "temp", now["temp"]
    earlier = {w["time_utc"]: w for w in world.weather[flight["origin"]]}
    before = earlier.get(now["time_utc"] - timedelta(hours=3))
    yield "temp_change_3h", now["temp"] - before["temp"] if before else None
    recent = [w for w in earlier.values() if now["time_utc"] - timedelta(hours=6) < w["time_utc"] <= now["time_utc"]]
    yield "precip_6h", sum(w["precip"] for w in recent)
    yield "visib_min_6h", min(w["visib"] for w in recent)
    local = flight["sched_dep_utc"] + timedelta(minutes=flight["utc_offset_min"])
    nearest = min(((local.date() - h).days for h in HOLIDAYS), key=lambda d: (abs(d), d < 0))
    yield "days_to_holiday", max(-7, min(7, nearest))
    yield "weekday", local.weekday()
    yield "dep_minute", local.hour * 60 + local.minute


@pytest.mark.slow
def test_features_are_what_a_plain_reading_of_the_past_gives(world: World) -> None:
    by_key = {f["key"]: f for f in world.flights}
    left = sorted((f for f in world.flights if f["dep_time_utc"]), key=lambda f: f["dep_time_utc"])
    rows = random.Random(2013).sample(world.features, NUM_ROWS)  # noqa: S311 - a sample, no secret
    wrong = []
    compared = 0
    for row in rows:
        flight = by_key[row["key"]]
        at = flight["sched_dep_utc"] - timedelta(hours=2)
        known = left[: len(left) - len(after(left, "dep_time_utc", at))]
        for name, value in expected(world, flight, known, at):
            compared += 1
            same = (
                row[name] is None
                if value is None
                else row[name] is not None and math.isclose(row[name], value, abs_tol=1e-9)
            )
            if not same:
                wrong.append((row["key"], name, row[name], value))
    assert wrong == []
    assert compared == NUM_ROWS * 31


@pytest.mark.slow
def test_every_row_of_the_week_is_there_once_and_nobody_leaves_before_it_is_predicted(world: World) -> None:
    week = [f for f in world.flights if f["sched_dep_utc"] >= datetime(2013, 2, 4, tzinfo=UTC)]
    assert sorted(f["key"] for f in week) == sorted(r["key"] for r in world.features)
    lead = min(f["dep_time_utc"] - f["sched_dep_utc"] for f in week if f["dep_time_utc"])
    assert lead > timedelta(hours=-2)
