"""Cut delivered tables into one batch: the rows of its interval, checked, sorted, in a fixed form."""

from dataclasses import dataclass
from datetime import datetime, timedelta

import pyarrow as pa
import pyarrow.compute as pc

from clearway.ingest.schema import ARROW_TYPES, Problem, check_rows, conform
from clearway.product import Batch, ColumnType, Product, Table


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """One batch as it would be landed; `problems` are the reasons against it."""

    tables: dict[str, pa.Table]
    problems: tuple[Problem, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Conformed:
    """All delivered tables in their declared form, before they are cut; the part that batches of a delivery share."""

    tables: dict[str, pa.Table]
    problems: tuple[Problem, ...]


def conform_all(spec: Product, delivered: dict[str, pa.Table]) -> Conformed:
    """Declared form of every table; a table that was not delivered counts as one without columns."""
    tables: dict[str, pa.Table] = {}
    problems: list[Problem] = []
    for name, declared in spec.tables.items():
        table, found = conform(name, declared, delivered.get(name, pa.table({})))
        problems += found
        if table is not None:
            tables[name] = table
    return Conformed(tables=tables, problems=tuple(problems))


def cut(spec: Product, conformed: Conformed, *, start: datetime, end: datetime) -> Cut:
    """Rows of [start, end), each table's interval shifted back by its delay; reference tables whole."""
    tables: dict[str, pa.Table] = {}
    problems = list(conformed.problems)
    for name, table in conformed.tables.items():
        declared = spec.tables[name]
        shift = timedelta(days=declared.delay_days)
        rows = _between(declared, table, start=start - shift, end=end - shift)
        problems += check_rows(name, declared, rows, is_expected=_is_expected(spec.batch, declared, end))
        tables[name] = rows.sort_by([(c, "ascending") for c in _order(declared)])
    return Cut(tables=tables, problems=tuple(problems))


def _is_expected(clock: Batch, declared: Table, end: datetime) -> bool:
    return declared.time is None or end - timedelta(days=declared.delay_days) > clock.first


def _between(declared: Table, table: pa.Table, *, start: datetime, end: datetime) -> pa.Table:
    if declared.time is None:
        return table
    kind = ARROW_TYPES[ColumnType.TIMESTAMP]
    column = table[declared.time]
    is_inside = pc.and_(
        pc.greater_equal(column, pa.scalar(start, type=kind)), pc.less(column, pa.scalar(end, type=kind))
    )
    return table.filter(is_inside)


def _order(declared: Table) -> list[str]:
    """Columns that fix the row order: clock, key, then the rest, so that a shuffled delivery gives the same bytes."""
    first = [c for c in (declared.time, *declared.key) if c is not None]
    return list(dict.fromkeys(first if declared.key else [*first, *declared.columns]))
