"""What the day that just ended and the month before it say about tomorrow."""

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F  # noqa: N812 - its usual name

from clearway.preprocess.history import AT, ID, WHEN, ratio, seconds, trailing

HOURS = {"3d": 72, "7d": 168, "30d": 720}


def build(tables: dict[str, DataFrame]) -> DataFrame:
    """`key`, `day_end` and the features of the days in `tables["rows"]`."""
    city = F.lit("Seattle").alias("city")
    rows = tables["rows"].select("*", F.col("key").alias(ID), seconds("day_end").alias(AT), city)
    past = trailing(
        rows.select(ID, AT, "city"),
        _events(tables["days"]),
        by=["city"],
        windows={"wet": list(HOURS.values()), "tenths_mm": [168], "tenths_degree": [168], "days": [168]},
    )
    day = rows.join(past, ID, "left")
    # The date is that of the day that ended, not of the midnight after it.
    month = F.substring("key", 6, 2).cast("int")
    mean = ratio(F.col("tenths_degree_168h"), F.col("days_168h") * 10)
    return day.withColumns(
        {
            "temp_range": F.col("temp_max") - F.col("temp_min"),
            "month": month,
            "season": F.element_at(F.array(*map(F.lit, ("winter", "spring", "summer", "autumn"))), _season(month)),
            **{f"rain_days_{name}": F.col(f"wet_{hours}h") for name, hours in HOURS.items()},
            "precipitation_7d": F.col("tenths_mm_168h") / 10,
            "temp_mean_7d": mean,
            "temp_change_7d": F.col("temp_max") - mean,
        }
    )


def _season(month: Column) -> Column:
    return (F.floor(F.pmod(month, F.lit(12)) / 3) + 1).cast("int")


def _events(days: DataFrame) -> DataFrame:
    """One event per day, known as it ends; tenths are whole numbers and add up exactly."""
    return days.select(
        F.lit("Seattle").alias("city"),
        seconds("day_end").alias(WHEN),
        F.lit(1).alias("days"),
        (F.col("precipitation") > 0).cast("long").alias("wet"),
        F.round(F.col("precipitation") * 10).cast("long").alias("tenths_mm"),
        F.round(F.col("temp_max") * 10).cast("long").alias("tenths_degree"),
    )
