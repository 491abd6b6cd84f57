"""Building blocks for features that know only the past. Plain DataFrame code: the same on every engine, linear in rows.

Words used here. A *row* is something to predict, with `id` and `at`: the moment of prediction in whole seconds since
1970. An *event* is something that became known `when` (same clock), with columns to add up. Everything counts that was
known by `at`, an event of that very second included.

How: a trailing sum is the running sum at `at` less the running sum at `at - window`. Both come from one ordered stream
of events and questions, so the cost is one sort, whatever the window, on an engine with or without fast range frames.
Values are whole numbers: sums are exact, so a batch with its look-back gives the values that a full recompute gives.
"""

from collections.abc import Iterable, Mapping, Sequence

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F  # noqa: N812 - its usual name

SECONDS_PER_HOUR = 3600
ID, AT, WHEN = "id", "at", "when"
_ORDER, _SHIFT = "_order", "_shift"


def seconds(column: str) -> Column:
    """A timestamp column as whole seconds since 1970, UTC."""
    return F.unix_seconds(F.col(column))


def trailing(
    rows: DataFrame,
    events: DataFrame,
    *,
    by: Sequence[str],
    windows: Mapping[str, Sequence[int]],
    levels: Iterable[str] = (),
    newest: Iterable[str] = (),
) -> DataFrame:
    """What the past of each row's group adds up to.

    Args:
        rows: `id`, `at`, the columns of `by`.
        events: `when`, the columns of `by`, whole-number columns named below; null counts as nothing.
        by: columns that an event must share with the row; null matches no event.
        windows: event column → windows in hours; gives `<column>_<hours>h`, the sum over (at - window, at].
        levels: event columns summed over all events up to `at`: for what enters (+1) and leaves (-1) again.
        newest: event columns whose largest value up to `at` is wanted; null if there is none. To pick the latest event,
            put its time into the highest digits.
    Returns: one line per row: `id` and the named sums, never null; `newest` may be.
    """
    hours = sorted({h for wanted in windows.values() for h in wanted})
    sums, tops = list(dict.fromkeys([*windows, *levels])), list(newest)
    stream = _stream(rows, events, by=by, hours=hours, sums=sums, tops=tops)
    until_now = Window.partitionBy(*by).orderBy(_ORDER).rowsBetween(Window.unboundedPreceding, Window.currentRow)
    running = stream.select(
        ID,
        _SHIFT,
        *(F.sum(name).over(until_now).alias(name) for name in sums),
        *(F.max(name).over(until_now).alias(name) for name in tops),
    )
    now = F.col(_SHIFT) == 0
    differences = [
        _difference(name, h).alias(f"{name}_{h}h") for name, wanted in windows.items() for h in sorted(set(wanted))
    ]
    at_once = [F.sum(F.when(now, F.col(name))).alias(name) for name in levels]
    largest = [F.max(F.when(now, F.col(name))).alias(name) for name in tops]
    return running.where(F.col(ID).isNotNull()).groupBy(ID).agg(*differences, *at_once, *largest)


def _stream(
    rows: DataFrame,
    events: DataFrame,
    *,
    by: Sequence[str],
    hours: Sequence[int],
    sums: Sequence[str],
    tops: Sequence[str],
) -> DataFrame:
    """Events and questions in one table. A question comes after the events of its own second: hence odd numbers."""
    nothing = F.lit(None).cast("long")
    shifts = F.array(*(F.lit(h * SECONDS_PER_HOUR).cast("long") for h in [0, *hours]))
    questions = rows.select(*by, ID, AT, F.explode(shifts).alias(_SHIFT)).select(
        *by,
        ((F.col(AT) - F.col(_SHIFT)) * 2 + 1).alias(_ORDER),
        ID,
        _SHIFT,
        *(F.lit(0).cast("long").alias(name) for name in sums),
        *(nothing.alias(name) for name in tops),
    )
    facts = events.dropna(subset=[*by, WHEN]).select(
        *by,
        (F.col(WHEN) * 2).alias(_ORDER),
        F.lit(None).cast("string").alias(ID),
        nothing.alias(_SHIFT),
        *(F.coalesce(F.col(name).cast("long"), F.lit(0)).alias(name) for name in sums),
        *(F.col(name).cast("long").alias(name) for name in tops),
    )
    return facts.unionByName(questions)


def _difference(name: str, hours: int) -> Column:
    """Running sum now, less the running sum `hours` ago."""
    ago = F.when(F.col(_SHIFT) == 0, F.col(name)).when(F.col(_SHIFT) == hours * SECONDS_PER_HOUR, -F.col(name))
    return F.coalesce(F.sum(ago), F.lit(0))


def ratio(numerator: Column, denominator: Column) -> Column:
    """A quotient as double; null where nothing was counted."""
    return F.when(denominator != 0, numerator.cast("double") / denominator.cast("double"))


def latest_time(rows: DataFrame, events: DataFrame, *, by: Sequence[str], tolerance_h: int) -> DataFrame:
    """`id` and `when` of the newest event up to `at`, null if it is `tolerance_h` hours old or older."""
    stamped = events.select(*by, WHEN, F.col(WHEN).alias("_newest"))
    found = trailing(rows, stamped, by=by, windows={}, newest=["_newest"]).join(rows.select(ID, AT), ID)
    is_fresh = F.col(AT) - F.col("_newest") < tolerance_h * SECONDS_PER_HOUR
    return found.select(ID, F.when(is_fresh, F.col("_newest")).alias(WHEN))
