"""Does a feature know the future? Change everything that was not known yet, and see whether the feature moves.

The question is put to the code, not to its author: at a few moments the raw data that came later are changed beyond
recognition, and the features of the rows predicted just before must not differ by a single bit. It finds every leak
that passes through a table; it cannot find one that is in the delivery itself, such as a column overwritten later.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pyarrow as pa
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F  # noqa: N812 - its usual name

from clearway.contracts.errors import DataError, LeakError
from clearway.contracts.refs import RawRef
from clearway.infra.environment import Environment
from clearway.infra.layout import Layout
from clearway.infra.raw_windows import open_batch, open_window
from clearway.infra.snapshots import Snapshot
from clearway.infra.spark import spark_session
from clearway.infra.storage import open_storage
from clearway.preprocess.job import ROWS, features_of, read_tables
from clearway.preprocess.plan import Stretch, needs_of, rows_table, stretches_of
from clearway.product import ColumnType, LoadedProduct, Table

LOG = logging.getLogger("clearway.preprocess")
# Rows are compared that were predicted this long before a moment: their own events are all still to come.
REACH = timedelta(hours=1)
# Later events move this much further into the future.
DELAY_S = 3 * 3600


@dataclass(frozen=True, slots=True, kw_only=True)
class LeakReport:
    """What was looked at: moments, compared rows and columns. There is a report only if nothing leaked."""

    moments: tuple[str, ...]
    num_rows: int
    num_columns: int


def check_leaks(
    raw: RawRef, *, product: LoadedProduct, env: Environment, batch_id: str, num_moments: int
) -> LeakReport:
    """Check the features of one batch of a raw window at `num_moments` moments inside it.

    Raises: LeakError naming columns, row and moment.
    """
    storage, layout = open_storage(env.store_root), Layout(env.store_root, product.name)
    window = open_window(storage, raw)
    batches = {b.batch_id: open_batch(storage, layout, b) for b in window.batches}
    start = product.spec.batch.start_of(batch_id)
    needs = needs_of(product.spec, window.batches, start=start, landed=[])[:1]
    if not needs or needs[0].batch.batch_id != batch_id:
        raise DataError(f"batch {batch_id} is not in the raw window {window.start} to {window.end}; ingest it first")
    (stretch,) = stretches_of(product.spec, needs, references={batch_id: ""})
    with spark_session(env) as session:
        return find_leaks(session, product, stretch, batches=batches, num_moments=num_moments)


def find_leaks(
    session: SparkSession,
    product: LoadedProduct,
    stretch: Stretch,
    *,
    batches: Mapping[str, Snapshot],
    num_moments: int,
) -> LeakReport:
    """Compare features made with and without the future, at moments of prediction drawn by hash. Raises: LeakError."""
    tables = read_tables(session, product.spec, stretch, batches=batches)
    moments = _moments(product, tables[ROWS], num_moments)
    num_rows = 0
    for moment in moments:
        true = _features(product, tables, moment)
        changed = _features(product, without_future(product, tables, moment), moment)
        _compare(true, changed, moment=moment, product=product)
        num_rows += len(true)
    LOG.info("no leak in %d rows at %d moments", num_rows, len(moments))
    return LeakReport(
        moments=tuple(m.isoformat() for m in moments), num_rows=num_rows, num_columns=len(product.spec.features.columns)
    )


def without_future(product: LoadedProduct, tables: dict[str, DataFrame], moment: datetime) -> dict[str, DataFrame]:
    """The tables, with everything changed that became known after `moment`.

    Rows that are not planned: half of those with a later clock vanish, the others change. Planned rows stay, but events
    after `moment` move further away and change, and events that never happened happen.
    """
    changed = dict(tables)
    for name, table in product.spec.tables.items():
        if name not in tables or table.time is None:
            continue
        frame = tables[name]
        if not table.is_planned:
            frame = _scrambled_rows(frame, table, _after(F.col(table.time), moment))
        for instant, columns in table.events.items():
            frame = _scrambled_event(frame, table, instant, columns, moment)
        changed[name] = frame
    changed[ROWS] = _near(changed[rows_table(product.spec)], product, moment)
    return changed


def _moments(product: LoadedProduct, rows: DataFrame, num_moments: int) -> list[datetime]:
    """Moments of prediction of a few rows; the hash of a key is the same on every engine."""
    features = product.spec.features
    drawn = rows.orderBy(F.xxhash64(features.key)).select(features.time).limit(num_moments).toArrow()
    lead = timedelta(hours=features.lead_hours)
    times = [t.as_py().astimezone(UTC) for t in drawn[features.time]]
    if not times:
        raise DataError("there are no rows to check for leaks; choose a batch that has some")
    return sorted({time - lead for time in times})


def _features(product: LoadedProduct, tables: dict[str, DataFrame], moment: datetime) -> pa.Table:
    near = {**tables, ROWS: _near(tables[rows_table(product.spec)], product, moment)}
    return features_of(product, near).toArrow().sort_by(product.spec.features.key)


def _near(rows: DataFrame, product: LoadedProduct, moment: datetime) -> DataFrame:
    """Rows predicted in (moment - REACH, moment]."""
    features = product.spec.features
    last = moment + timedelta(hours=features.lead_hours)
    return rows.where((F.col(features.time) > F.lit(last - REACH)) & (F.col(features.time) <= F.lit(last)))


def _after(instant: Column, moment: datetime) -> Column:
    return instant > F.lit(moment)


def _scrambled_rows(frame: DataFrame, table: Table, is_later: Column) -> DataFrame:
    kept = frame.where(~is_later | (F.pmod(F.xxhash64(*table.columns), F.lit(2)) == 0))
    fixed = {table.time, *table.key}
    values = {c: t for c, t in table.columns.items() if c not in fixed}
    return kept.withColumns({c: F.when(is_later, _other(c, t)).otherwise(F.col(c)) for c, t in values.items()})


def _scrambled_event(
    frame: DataFrame, table: Table, instant: str, columns: tuple[str, ...], moment: datetime
) -> DataFrame:
    is_later = F.col(instant).isNull() | _after(F.col(instant), moment)
    # What never happened happens an hour from now: nobody knows yet that it will not.
    happens = F.coalesce(F.col(instant), F.lit(moment + timedelta(hours=1)))
    moved = F.timestamp_seconds(F.unix_seconds(happens) + DELAY_S)
    values = {c: _other(c, table.columns[c]) for c in columns if c != instant} | {instant: moved}
    return frame.withColumns({c: F.when(is_later, value).otherwise(F.col(c)) for c, value in values.items()})


def _other(name: str, kind: ColumnType) -> Column:
    """A value of the same type, different for every value including null."""
    column = F.col(name)
    if kind is ColumnType.INT:
        return (F.coalesce(column, F.lit(0)) * -3 + 977).cast("long")
    if kind is ColumnType.FLOAT:
        return F.coalesce(column, F.lit(0.0)) * -3 + 977.5
    if kind is ColumnType.BOOL:
        return ~F.coalesce(column, F.lit(False))
    if kind is ColumnType.TIMESTAMP:
        return F.timestamp_seconds(F.coalesce(F.unix_seconds(column), F.lit(0)) + DELAY_S)
    return F.concat(F.coalesce(column, F.lit("")), F.lit("*"))


def _compare(true: pa.Table, changed: pa.Table, *, moment: datetime, product: LoadedProduct) -> None:
    names = product.spec.features.columns
    key = product.spec.features.key
    if true[key] != changed[key]:
        raise LeakError(
            f"data later than {moment.isoformat()} decide which rows there are; predict what is planned by then"
        )
    leaks = [name for name in names if not true[name].combine_chunks().equals(changed[name].combine_chunks())]
    if leaks:
        pairs = zip(true[leaks[0]].to_pylist(), changed[leaks[0]].to_pylist(), strict=True)
        row, (before, after) = next((i, p) for i, p in enumerate(pairs) if p[0] != p[1])
        raise LeakError(
            f"features {leaks} know the future: {leaks[0]!r} of {true[key][row].as_py()!r} is {before}, and {after} "
            f"once the data later than {moment.isoformat()} are changed; use only what was known by then"
        )
