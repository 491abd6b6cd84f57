"""What is known about a flight two hours before its scheduled departure. Plain DataFrame code for any Spark engine.

Only departures count as history, never arrivals: so labels can be days late and features still up to the minute. All
history is bounded (14 days) and adds up whole numbers: a week with its look-back gives what a whole year gives.
"""

from datetime import date

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F  # noqa: N812 - its usual name

from clearway.preprocess.history import AT, ID, WHEN, latest_time, ratio, seconds, trailing

LEAD_S = 2 * 3600
DAY_MIN = 1440
LATE_MIN = 15
# A flight this long overdue has most likely been cancelled; the data never says when that became known.
OVERDUE_S = 6 * 3600
# Later departures would reach back beyond the look-back of 15 days; 1,301 minutes is the most in 2013.
MAX_DELAY_MIN = 22 * 60
# Time on the ground that an aircraft needs before its next flight.
TURN_MIN = 45
# Beyond three days an aircraft's last departure says nothing about its next one.
MAX_ROTATION_MIN = 72 * 60
# One wind speed of 1,048 mph is a typing error; the strongest gust on record anywhere is 253.
MAX_WIND_MPH = 253
WEATHER_TOLERANCE_H = 3
# US holidays with heavy traffic around them.
HOLIDAYS = (
    *(date(2012, 12, 25), date(2013, 1, 1), date(2013, 1, 21), date(2013, 2, 18), date(2013, 5, 27), date(2013, 7, 4)),
    *(date(2013, 9, 2), date(2013, 10, 14), date(2013, 11, 28), date(2013, 12, 25), date(2014, 1, 1)),
)
HOLIDAY_REACH_DAYS = 7
# group → columns that define it, and per window in hours what is wanted of the departures in it
HISTORY: dict[str, tuple[list[str], dict[int, str]]] = {
    "all": (["all"], {2: "delay late", 6: "delay late"}),
    "origin": (["origin"], dict.fromkeys((2, 6, 24, 168), "count delay late")),
    "carrier": (["carrier"], dict.fromkeys((6, 24, 168), "delay late")),
    "pair": (["origin", "carrier"], {2: "count delay", 6: "delay late", 24: "delay late", 168: "delay late"}),
    "dest": (["dest"], {6: "delay late", 168: "delay late"}),
    "route": (["origin", "dest"], {24: "delay", 168: "count delay late"}),
    "flight": (["carrier", "flight", "origin"], {336: "count delay late"}),
    "slot": (["origin", "slot"], {336: "delay late"}),
    "tail": (["tailnum"], {24: "count delay", 336: "delay"}),
}
# groups that also see what is overdue, and how many flights are planned in the hours up to the departure
OVERDUE = ("origin", "carrier", "pair", "dest")
PLANNED = {"origin": (1, 3), "pair": (3,)}
# A departure counts one in the low half of a tally, a late one also one in the high half: two sums at the price of one.
_LATE_BIT = 32
# digits of the number that stands for an aircraft's last departure: minute, delay, scheduled minutes gate to gate
_DELAY_BASE, _DELAY_SPAN, _BLOCK_SPAN = 4096, 8192, 2048


def build(tables: dict[str, DataFrame]) -> DataFrame:
    """`key`, `sched_dep_utc` and every feature of product.yaml for the flights in `tables["rows"]`."""
    rows = _schedule(tables["rows"])
    flights = _schedule(tables["flights"])
    weather = _weather(tables["weather"])
    seen = latest_time(rows, weather, by=["origin"], tolerance_h=WEATHER_TOLERANCE_H)
    joined = rows.join(seen, ID, "left").join(weather, ["origin", WHEN], "left")
    joined = joined.join(_airports(tables["airports"]), "dest", "left")
    joined = joined.join(_planes(tables["planes"]), "tailnum", "left")
    for history in _histories(rows, flights):
        joined = joined.join(history, ID, "left")
    return joined.withColumns({**_calendar(), **_aircraft()})


def _schedule(flights: DataFrame) -> DataFrame:
    """Flights with whole-number clocks, the groups they belong to and their moment of prediction."""
    sched = seconds("sched_dep_utc")
    local_min = (sched / 60).cast("long") + F.col("utc_offset_min")
    return flights.select(
        *("key", "sched_dep_utc", "carrier", "flight", "origin", "dest", "tailnum", "distance", "dep_delay"),
        F.col("key").alias(ID),
        (sched - LEAD_S).alias(AT),
        sched.alias("sched"),
        seconds("dep_time_utc").alias("left"),
        ((seconds("sched_arr_utc") - sched) / 60).cast("long").alias("block_min"),
        local_min.alias("local_min"),
        F.floor(F.pmod(local_min, F.lit(DAY_MIN)) / 60).cast("long").alias("slot"),
        F.lit(0).alias("all"),
    )


def _calendar() -> dict[str, Column]:
    day = F.floor(F.col("local_min") / DAY_MIN).cast("long")
    # Distance and side of the nearest holiday as one number, so that the smallest wins: 2 * |days| + is_before.
    distances = [day - (holiday - date(1970, 1, 1)).days for holiday in HOLIDAYS]
    nearest = F.least(*(F.abs(d) * 2 + (d < 0).cast("long") for d in distances))
    size = F.least(F.floor(nearest / 2).cast("long"), F.lit(HOLIDAY_REACH_DAYS))
    return {
        "dep_minute": F.pmod(F.col("local_min"), F.lit(DAY_MIN)),
        "weekday": F.pmod(day + 3, F.lit(7)),  # Monday is 0; 1 January 1970 was a Thursday
        "days_to_holiday": F.when(F.pmod(nearest, F.lit(2)) == 1, -size).otherwise(size),
        # Eight miles a minute is cruising speed; what is left is taxiing, climbing and the airline's caution.
        "block_gap": F.col("block_min") - F.col("distance") / 8,
        "weather_age_h": (F.col(AT) - F.col(WHEN)) / 3600,
        "plane_age": F.year("sched_dep_utc") - F.col("plane_year"),
        "overdue_origin_min": F.col(AT) / 60 - ratio(F.col("overdue_origin_sum"), F.col("overdue_origin")),
    }


def _aircraft() -> dict[str, Column]:
    """The last departure of the same aircraft from one of the three airports, unpacked from its number."""
    packed, now_min = F.col("tail_newest"), (F.col(AT) / 60).cast("long")
    last_min = F.floor(packed / (_DELAY_SPAN * _BLOCK_SPAN)).cast("long")
    delay = F.floor(F.pmod(packed, F.lit(_DELAY_SPAN * _BLOCK_SPAN)) / _BLOCK_SPAN).cast("long") - _DELAY_BASE
    block = F.pmod(packed, F.lit(_BLOCK_SPAN))
    is_recent = now_min - last_min <= MAX_ROTATION_MIN
    return {
        "tail_last_delay": F.when(is_recent, delay),
        "tail_hours_since": F.when(is_recent, (now_min - last_min) / 60),
        # There and back at the same pace, and a turn at the other end: what is left until the scheduled departure.
        "tail_slack_min": F.when(is_recent, (F.col("sched") / 60).cast("long") - (last_min + block * 2 + TURN_MIN)),
    }


def _histories(rows: DataFrame, flights: DataFrame) -> list[DataFrame]:
    """`id` and the features of one group each. A stream of its own for each kind of event keeps the streams short."""
    departed = [_departed(group, rows, flights) for group in HISTORY]
    overdue = [_overdue(group, rows, flights) for group in OVERDUE]
    return [*departed, *overdue, *(_planned(group, rows, flights) for group in PLANNED)]


def _departed(group: str, rows: DataFrame, flights: DataFrame) -> DataFrame:
    by, wanted = HISTORY[group]
    windows = {"tally": list(wanted), "delay": [h for h, stats in wanted.items() if "delay" in stats]}
    newest = ["packed"] if group == "tail" else []
    past = trailing(rows, _departures(flights, by), by=by, windows=windows, newest=newest)
    columns = [_stat(stat, h).alias(f"{group}_{stat}_{h}h") for h, stats in wanted.items() for stat in stats.split()]
    return past.select(ID, *columns, *(F.col(name).alias("tail_newest") for name in newest))


def _overdue(group: str, rows: DataFrame, flights: DataFrame) -> DataFrame:
    levels = ["overdue", "overdue_sum"] if group == "origin" else ["overdue"]
    past = trailing(rows, _waiting(flights, HISTORY[group][0]), by=HISTORY[group][0], windows={}, levels=levels)
    return past.select(ID, *(F.col(name).alias(name.replace("overdue", f"overdue_{group}")) for name in levels))


def _planned(group: str, rows: DataFrame, flights: DataFrame) -> DataFrame:
    """Flights planned up to a departure: known ahead, so they are moved back to where the questions are."""
    by, hours = HISTORY[group][0], PLANNED[group]
    events = flights.select(*by, F.col(AT).alias(WHEN), F.lit(1).cast("long").alias("sched"))
    past = trailing(rows, events, by=by, windows={"sched": hours})
    return past.select(ID, *(F.col(f"sched_{h}h").alias(f"sched_{group}_{h}h") for h in hours))


def _stat(stat: str, hours: int) -> Column:
    tally = F.col(f"tally_{hours}h")
    count = tally.bitwiseAND((1 << _LATE_BIT) - 1)
    if stat == "count":
        return count
    return ratio(F.col(f"delay_{hours}h") if stat == "delay" else F.shiftright(tally, _LATE_BIT), count)


def _departures(flights: DataFrame, by: list[str]) -> DataFrame:
    """One event per departure, known from the minute it left."""
    left = flights.where(F.col("left").isNotNull() & (F.col("dep_delay") < MAX_DELAY_MIN))
    minute, delay = (F.col("left") / 60).cast("long"), F.col("dep_delay")
    return left.select(
        *by,
        F.col("left").alias(WHEN),
        delay.alias("delay"),
        F.when(delay > LATE_MIN, (1 << _LATE_BIT) + 1).otherwise(1).cast("long").alias("tally"),
        ((minute * _DELAY_SPAN + delay + _DELAY_BASE) * _BLOCK_SPAN + F.col("block_min")).alias("packed"),
    )


def _waiting(flights: DataFrame, by: list[str]) -> DataFrame:
    """A flight enters the overdue ones at its scheduled minute, and leaves them as it departs or after six hours."""
    sched, left = F.col("sched"), F.col("left")
    late = flights.where(left.isNull() | (left > sched))
    # least() passes over nulls: a flight that never leaves is given up after six hours.
    ends = [(sched, 1), (F.least(left, sched + OVERDUE_S), -1)]
    parts = [
        late.select(
            *by,
            when.alias(WHEN),
            F.lit(sign).cast("long").alias("overdue"),
            ((sched / 60).cast("long") * sign).alias("overdue_sum"),
        )
        for when, sign in ends
    ]
    return parts[0].unionByName(parts[1])


def _weather(weather: DataFrame) -> DataFrame:
    """Every observation with its own recent past: changes over three hours, extremes and rain of six."""
    clean = weather.select(
        "origin",
        seconds("time_utc").alias(WHEN),
        *("temp", "dewp", "humid", "wind_dir", "precip", "pressure", "visib"),
        *(F.when(F.col(name) <= MAX_WIND_MPH, F.col(name)).alias(name) for name in ("wind_speed", "wind_gust")),
    )
    before = clean.select(
        "origin",
        (F.col(WHEN) + 3 * 3600).alias(WHEN),
        F.col("temp").alias("temp_3h"),
        F.col("pressure").alias("pressure_3h"),
    )
    hours = F.explode(F.array(*(F.lit(h).cast("long") for h in range(6)))).alias("later")
    recent = clean.select("*", hours).groupBy("origin", (F.col(WHEN) + F.col("later") * 3600).alias(WHEN))
    extremes = recent.agg(
        # Rain comes in hundredths of an inch; whole numbers add up the same in any order.
        (F.sum(F.round(F.col("precip") * 100).cast("long")) / 100).alias("precip_6h"),
        F.min("visib").alias("visib_min_6h"),
        F.max("wind_speed").alias("wind_max_6h"),
        F.max("wind_gust").alias("gust_max_6h"),
    )
    joined = clean.join(before, ["origin", WHEN], "left").join(extremes, ["origin", WHEN], "left")
    changes = [(F.col(name) - F.col(f"{name}_3h")).alias(f"{name}_change_3h") for name in ("temp", "pressure")]
    return joined.select("*", *changes).drop("temp_3h", "pressure_3h")


def _airports(airports: DataFrame) -> DataFrame:
    return airports.select(F.col("faa").alias("dest"), F.col("lat").alias("dest_lat"), F.col("lon").alias("dest_lon"))


def _planes(planes: DataFrame) -> DataFrame:
    renamed = {"year": "plane_year", "seats": "plane_seats", "engines": "plane_engines"}
    names = {"manufacturer": "plane_maker", "model": "plane_model"}
    return planes.select("tailnum", *(F.col(old).alias(new) for old, new in (renamed | names).items()))
