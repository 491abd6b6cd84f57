"""The counts of a batch made by Spark: the same histograms as `measures.tally`, by one pass where the rows lie.

What comes back is one number per feature, day and bin, however many rows there were: no row, no sample. One code for
Sail and the JVM: conditional columns, one explode, one broadcast join, one group-by; no quantile, no user function.

Shapes: B bins (or categories), D days.
"""

import math
from collections.abc import Mapping, Sequence
from datetime import date

import numpy as np
import pyarrow as pa
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F  # noqa: N812 - its usual name
from pyspark.sql.types import BooleanType

from clearway.infra.datasets import DAY
from clearway.measures.bins import NUMERIC, Bins
from clearway.measures.grid import MAX_STEP, STEP
from clearway.measures.size import NOTHING
from clearway.measures.tally import ColumnTally, Entry, Tally

EPOCH = date(1970, 1, 1)
# Of a feature, summed over its cells.
SUMMED = ("unseen", "told", "sized", "log_sum")


def spark_tally(entries: Mapping[str, Entry], frame: DataFrame) -> Tally:
    """Every column of `entries`, counted on the rows of `frame` for each DAY.

    Args: entries: name to reference entry; see `distance.build_reference`.
    """
    names = list(entries)
    kinds = {field.name: field.dataType for field in frame.schema.fields}
    cells = [
        _number_cell(at, _number(name, is_truth=isinstance(kinds[name], BooleanType)), entries[name])
        if entries[name]["kind"] == NUMERIC
        else _text_cell(at, F.col(name).cast("string"), entries[name])
        for at, name in enumerate(names)
    ]
    long = frame.select(F.col(DAY).alias("day"), F.explode(F.array(*cells)).alias("cell")).select("day", "cell.*")
    marked = _beside_points(long, [entries[name] for name in names])
    size = F.abs(F.col("value"))
    sized = marked.withColumn("size", F.when(size > F.lit(NOTHING), F.log(size)))
    counted = sized.groupBy("day", "feature", "bin").agg(
        F.count(F.lit(1)).alias("rows"),
        F.sum("value").alias("total"),
        F.sum("unseen").alias("unseen"),
        F.count("step").alias("told"),
        F.count("size").alias("sized"),
        F.sum("size").alias("log_sum"),
    )
    return _tally_of(entries, counted.toArrow())


def _number(name: str, *, is_truth: bool) -> Column:
    return (F.col(name).cast("int") if is_truth else F.col(name)).cast("double")


def _number_cell(at: int, value: Column, entry: Entry) -> Column:
    is_finite = value.isNotNull() & ~F.isnan(value) & (F.abs(value) != F.lit(float("inf")))
    found = F.when(~is_finite, F.lit(None).cast("int"))
    for place, edge in enumerate(entry["edges"]):  # open below, closed above
        found = found.when(value <= F.lit(float(edge)), F.lit(place))
    step = F.lit(None).cast("bigint")
    if entry.get("grid"):
        steps = F.rint(value / F.lit(STEP * entry["sd"]))
        bounded = F.least(F.greatest(steps, F.lit(-MAX_STEP)), F.lit(MAX_STEP))
        step = F.when(is_finite & (steps != 0), bounded.cast("bigint"))
    return _cell(
        at,
        found.otherwise(F.lit(len(entry["edges"]))),
        value=F.when(is_finite, value / F.lit(_scale(entry))).otherwise(F.lit(0.0)),
        unseen=F.lit(0),
        step=step,
    )


def _scale(entry: Entry) -> float:
    """What values are counted in, so that one bound says of every feature which of them are zero; see `size`."""
    return float(entry["sd"]) or 1.0


def _text_cell(at: int, text: Column, entry: Entry) -> Column:
    found = F.when(text.isNull(), F.lit(None).cast("int"))
    for place, kept in enumerate(entry["values"]):
        found = found.when(text == F.lit(kept), F.lit(place))
    unseen = F.lit(0)
    if entry.get("seen") is not None:
        unseen = F.when(text.isNotNull() & ~text.isin(*entry["seen"]), F.lit(1)).otherwise(F.lit(0))
    return _cell(
        at,
        found.otherwise(F.lit(len(entry["values"]))),
        value=F.lit(0.0),
        unseen=unseen,
        step=F.lit(None).cast("bigint"),
    )


def _cell(at: int, found: Column, *, value: Column, unseen: Column, step: Column) -> Column:
    return F.struct(
        F.lit(at).alias("feature"),
        found.alias("bin"),
        value.alias("value"),
        unseen.cast("int").alias("unseen"),
        step.alias("step"),
    )


def _beside_points(long: DataFrame, entries: Sequence[Entry]) -> DataFrame:
    """With `unseen` 1 for values beside every point that training held; see `grid.off_grid`."""
    near = {
        at: np.unique(np.asarray(entry["grid"], dtype=np.int64)[:, None] + np.asarray([-1, 0, 1]))
        for at, entry in enumerate(entries)
        if entry["kind"] == NUMERIC and entry.get("grid")
    }
    if not near:
        return long
    columns = {
        "of": pa.array(np.concatenate([np.full(len(points), at) for at, points in near.items()]), pa.int32()),
        "point": pa.array(np.concatenate(list(near.values())), pa.int64()),
    }
    points = long.sparkSession.createDataFrame(pa.table(columns))
    joined = long.join(
        F.broadcast(points), (long["feature"] == points["of"]) & (long["step"] == points["point"]), "left"
    )
    is_beside = F.col("step").isNotNull() & F.col("point").isNull()
    return joined.withColumn("unseen", F.when(is_beside, F.lit(1)).otherwise(F.col("unseen")))


def _tally_of(entries: Mapping[str, Entry], counted: pa.Table) -> Tally:
    rows = counted.to_pylist()
    days = sorted({(row["day"] - EPOCH).days for row in rows})
    at_day = {day: place for place, day in enumerate(days)}
    sizes = [len(e["edges"] if e["kind"] == NUMERIC else e["values"]) + 1 for e in entries.values()]
    held = [Bins(np.zeros((len(days), b)), np.zeros((len(days), b)), np.zeros(len(days))) for b in sizes]
    others = [dict.fromkeys(SUMMED, 0.0) for _ in sizes]
    scales = [_scale(entry) for entry in entries.values()]
    for row in rows:
        bins, day = held[row["feature"]], at_day[(row["day"] - EPOCH).days]
        for name in SUMMED:
            others[row["feature"]][name] += row[name] or 0
        if row["bin"] is None:
            bins.missing[day] = row["rows"]
        else:
            bins.counts[day, row["bin"]], bins.sums[day, row["bin"]] = (
                row["rows"],
                row["total"] * scales[row["feature"]],
            )
    columns = {
        name: _column(entry, bins, own) for (name, entry), bins, own in zip(entries.items(), held, others, strict=True)
    }
    return Tally(days=tuple(days), columns=columns)


def _column(entry: Entry, bins: Bins, own: Mapping[str, float]) -> ColumnTally:
    """With the same words for new values as `tally.tally_column`. `own`: sums over its cells."""
    num_unseen, rows = int(own["unseen"]), int(bins.counts.sum() + bins.missing.sum())
    has_size = bool(entry.get("size"))
    if entry["kind"] == NUMERIC:
        return ColumnTally(
            bins=bins,
            num_unseen=num_unseen if entry.get("grid") else None,
            num_asked=int(own["told"]),
            num_sized=int(own["sized"]) if has_size else 0,
            log_sum=own["log_sum"] + own["sized"] * math.log(_scale(entry)) if has_size else 0.0,
        )
    has_word = entry.get("seen") is not None
    return ColumnTally(bins=bins, num_unseen=num_unseen if has_word else None, num_asked=rows if has_word else 0)
