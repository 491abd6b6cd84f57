"""Landed tables of the rain product: what a day was like, and whether the next one was wet."""

import pyarrow as pa
import pyarrow.compute as pc

DAY_US = 86_400_000_000
INSTANT = pa.timestamp("us", tz="UTC")


def shape(raw: dict[str, pa.Table]) -> dict[str, pa.Table]:
    """Days with the midnight that ends them; the last day has no next one, so no label."""
    weather = raw["weather"].sort_by("date")
    dates = pc.cast(pc.strptime(weather["date"], format="%Y/%m/%d", unit="us"), pa.int64())
    key = pc.strftime(pc.cast(dates, pa.timestamp("us")), format="%Y-%m-%d")
    day_end = pc.cast(pc.add(dates, DAY_US), INSTANT)
    wet = pc.cast(pc.greater(weather["precipitation"], 0.0), pa.int64()).combine_chunks()
    numbers = {name: pc.cast(weather[name], pa.float64()) for name in ("precipitation", "temp_max", "temp_min", "wind")}
    labels = pa.table({"key": key, "day_end": day_end}).slice(0, len(weather) - 1)
    return {
        "days": pa.table({"key": key, "day_end": day_end, **numbers, "weather": weather["weather"]}),
        "labels": labels.append_column("rain", wet.slice(1)),
    }
