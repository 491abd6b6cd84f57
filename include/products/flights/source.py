"""Landed tables of the flights product, made from the package's CSV files. Pure: tables in, tables out."""

from collections.abc import Callable

import pyarrow as pa
import pyarrow.compute as pc

MINUTE_US = 60_000_000
DAY_MIN = 1440
LATE_MIN = 15  # the regulator's definition of a late arrival
# Four destinations are missing from the airports table; all lie in Puerto Rico.
FALLBACK_ZONE = "America/Puerto_Rico"
HOME_ZONE = "America/New_York"
INSTANT = pa.timestamp("us", tz="UTC")

Column = pa.ChunkedArray | pa.Array


def shape(raw: dict[str, pa.Table]) -> dict[str, pa.Table]:
    """Landed tables from the raw ones: UTC instants, one key per flight, outcomes apart from the schedule."""
    flights = _clocked(raw["flights"], zones=_zones(raw["airports"]))
    return {
        "flights": flights.select(
            [
                "key",
                "sched_dep_utc",
                "sched_arr_utc",
                "utc_offset_min",
                "carrier",
                "flight",
                "tailnum",
                "origin",
                "dest",
                "distance",
                "dep_time_utc",
                "dep_delay",
            ]
        ),
        "labels": flights.select(["key", "sched_dep_utc", "late15", "arr_delay", "air_time"]),
        "weather": _weather(raw["weather"]),
        "planes": raw["planes"].select(["tailnum", "year", "manufacturer", "model", "engines", "seats"]),
        "airports": raw["airports"].select(["faa", "lat", "lon", "alt", "tzone"]),
    }


def _clocked(flights: pa.Table, *, zones: dict[str, str]) -> pa.Table:
    """Adds key, UTC instants and the label. `time_hour` is UTC and right on every row, daylight saving included."""
    hour_us = pc.cast(flights["time_hour"], INSTANT)
    sched_dep = _plus_minutes(hour_us, flights["minute"])
    columns = {
        "key": _keys(flights),
        "sched_dep_utc": sched_dep,
        "sched_arr_utc": _plus_minutes(sched_dep, _block_minutes(flights, sched_dep, zones=zones)),
        "utc_offset_min": _offset_minutes(sched_dep, HOME_ZONE),
        # Equal to the local departure clock time on every row, without its day and daylight-saving ambiguities.
        "dep_time_utc": _plus_minutes(sched_dep, flights["dep_delay"]),
        "late15": pc.cast(pc.greater(flights["arr_delay"], LATE_MIN), pa.int64()),
    }
    for name, values in columns.items():
        flights = flights.append_column(name, values)
    return flights


def _keys(flights: pa.Table) -> Column:
    """`2013-01-01-UA-1545-EWR`: one Southwest number leaves two airports on one day, so the origin belongs to it."""

    def text(name: str, width: int = 0) -> Column:
        return pc.utf8_lpad(pc.cast(flights[name], pa.string()), width=width, padding="0")

    parts = (text("year"), text("month", 2), text("day", 2), flights["carrier"], text("flight"), flights["origin"])
    return pc.binary_join_element_wise(*parts, "-")


def _block_minutes(flights: pa.Table, sched_dep: Column, *, zones: dict[str, str]) -> Column:
    """Scheduled minutes from gate to gate: the arrival clock time is local to the destination."""
    arrival = flights["sched_arr_time"]
    arrival_min = pc.add(pc.multiply(pc.divide(arrival, 100), 60), _modulo(arrival, 100))
    departure_min = pa.nulls(len(flights), pa.int64())
    zone_of = pa.array([zones.get(code, FALLBACK_ZONE) for code in flights["dest"].to_pylist()])
    utc_min = pc.divide(pc.cast(sched_dep, pa.int64()), MINUTE_US)
    for zone in sorted(set(zone_of.to_pylist())):
        local_min = pc.add(utc_min, _offset_minutes(sched_dep, zone))
        departure_min = pc.if_else(pc.equal(zone_of, zone), local_min, departure_min)
    return _modulo(pc.subtract(arrival_min, departure_min), DAY_MIN)


def _offset_minutes(instants: Column, zone: str) -> Column:
    """Minutes that the clocks of `zone` are ahead of UTC."""
    local = pc.cast(pc.local_timestamp(pc.cast(instants, pa.timestamp("us", tz=zone))), pa.int64())
    return pc.divide(pc.subtract(local, pc.cast(instants, pa.int64())), MINUTE_US)


def _plus_minutes(instants: Column, minutes: Column) -> Column:
    microseconds = pc.add(pc.cast(instants, pa.int64()), pc.multiply(pc.cast(minutes, pa.int64()), MINUTE_US))
    return pc.cast(microseconds, INSTANT)


def _modulo(values: Column, modulus: int) -> Column:
    """Remainder in [0, modulus), also for negative values."""
    quotient = pc.cast(pc.floor(pc.divide(pc.cast(values, pa.float64()), float(modulus))), pa.int64())
    return pc.subtract(values, pc.multiply(quotient, modulus))


def _zones(airports: pa.Table) -> dict[str, str]:
    pairs = zip(airports["faa"].to_pylist(), airports["tzone"].to_pylist(), strict=True)
    return {code: zone for code, zone in pairs if zone is not None}


def _weather(weather: pa.Table) -> pa.Table:
    """Hourly observations by UTC hour: local hours repeat when daylight saving ends."""
    numbers = ["temp", "dewp", "humid", "wind_dir", "wind_speed", "wind_gust", "precip", "pressure", "visib"]
    columns = {"origin": weather["origin"], "time_utc": pc.cast(weather["time_hour"], INSTANT)}
    return pa.table(columns | {name: pc.cast(weather[name], pa.float64()) for name in numbers})


def plant(fault: str, tables: dict[str, pa.Table]) -> dict[str, pa.Table]:
    """One landed batch with an announced fault. Raises: ValueError for a name that is not in FAULTS."""
    if fault not in FAULTS:
        raise ValueError(f"fault {fault!r} is unknown; allowed: {sorted(FAULTS)}")
    return {**tables, **FAULTS[fault](tables)}


def _unit_change(tables: dict[str, pa.Table]) -> dict[str, pa.Table]:
    """The weather feed turns metric: degrees Celsius, metres per second, kilometres."""
    weather = tables["weather"]
    for name, factor in {"wind_speed": 0.44704, "wind_gust": 0.44704, "visib": 1.609344}.items():
        weather = _replaced(weather, name, pc.multiply(weather[name], factor))
    for name in ("temp", "dewp"):
        weather = _replaced(weather, name, pc.divide(pc.subtract(weather[name], 32.0), 1.8))
    return {"weather": weather}


def _feed_outage(tables: dict[str, pa.Table]) -> dict[str, pa.Table]:
    """Newark falls silent: no weather observations and no departure events, while its flights stay in the schedule."""
    weather, flights = tables["weather"], tables["flights"]
    is_silent = pc.equal(flights["origin"], "EWR")
    for name in ("dep_time_utc", "dep_delay"):
        nothing = pa.nulls(len(flights), flights.schema.field(name).type)
        flights = _replaced(flights, name, pc.if_else(is_silent, nothing, flights[name]))
    return {"weather": weather.filter(pc.not_equal(weather["origin"], "EWR")), "flights": flights}


def _carrier_remap(tables: dict[str, pa.Table]) -> dict[str, pa.Table]:
    """Carrier codes are handed on by one place in their alphabet, as after a botched mapping table."""
    flights = tables["flights"]
    known = sorted(c for c in flights["carrier"].unique().to_pylist() if c is not None)
    handed_on = dict(zip(known, [*known[1:], *known[:1]], strict=True))
    codes = pa.array([handed_on.get(code) for code in flights["carrier"].to_pylist()], pa.string())
    return {"flights": _replaced(flights, "carrier", codes)}


def _replaced(table: pa.Table, name: str, values: Column) -> pa.Table:
    return table.set_column(table.schema.get_field_index(name), name, values)


FAULTS: dict[str, Callable[[dict[str, pa.Table]], dict[str, pa.Table]]] = {
    "unit_change": _unit_change,
    "feed_outage": _feed_outage,
    "carrier_remap": _carrier_remap,
}
