"""Compare delivered tables with their declaration. Pure: a table in, problems and the clean table out."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import types

from clearway.product import ColumnType, Table

ARROW_TYPES: dict[ColumnType, pa.DataType] = {
    ColumnType.STRING: pa.string(),
    ColumnType.INT: pa.int64(),
    ColumnType.FLOAT: pa.float64(),
    ColumnType.BOOL: pa.bool_(),
    ColumnType.TIMESTAMP: pa.timestamp("us", tz="UTC"),
}


class ProblemKind(StrEnum):
    """Why a batch is refused."""

    SCHEMA = "schema"
    EMPTY = "empty"
    TRUNCATED = "truncated"
    DUPLICATE_KEYS = "duplicate_keys"
    INFINITE = "infinite"
    UNREADABLE = "unreadable"
    LATE = "late"


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One reason; `text` says what was found and what was declared."""

    kind: ProblemKind
    table: str
    text: str

    def __str__(self) -> str:
        return f"{self.table}: {self.text} ({self.kind})"


def conform(name: str, declared: Table, delivered: pa.Table) -> tuple[pa.Table | None, list[Problem]]:
    """The table with exactly the declared columns, in their order and types; None with the reasons if it differs.

    Widths are not types: int32 is an int, a second-resolution UTC instant is a timestamp. An extra nullable column is
    dropped; column order does not matter. NaN is a missing value: engines disagree about its order and its mean.
    """
    texts = [*_missing(declared, delivered), *_extra(declared, delivered), *_retyped(declared, delivered)]
    if texts:
        return None, [Problem(kind=ProblemKind.SCHEMA, table=name, text=text) for text in texts]
    try:
        columns = {c: _cast(delivered[c], t) for c, t in declared.columns.items()}
    except pa.ArrowInvalid as error:
        problem = Problem(kind=ProblemKind.SCHEMA, table=name, text=f"values do not fit their declared types: {error}")
        return None, [problem]
    table = pa.table(columns)
    problems = [Problem(kind=ProblemKind.SCHEMA, table=name, text=text) for text in _null_names(declared, table)]
    return (None, problems) if problems else (table, [])


def _cast(column: pa.ChunkedArray, declared: ColumnType) -> pa.ChunkedArray:
    cast = pc.cast(column, ARROW_TYPES[declared])
    if declared is not ColumnType.FLOAT:
        return cast
    return pc.if_else(pc.is_nan(cast), pa.scalar(None, cast.type), cast)


def check_rows(name: str, declared: Table, table: pa.Table, *, is_expected: bool) -> list[Problem]:
    """Row count, key and numbers of one batch of a table.

    `is_expected`: False where the interval, shifted by the table's delay, lies before the first batch: nothing can be
    known yet.
    """
    problems = []
    if is_expected and len(table) < declared.min_rows:
        kind = ProblemKind.TRUNCATED if len(table) else ProblemKind.EMPTY
        text = f"{len(table)} rows, at least {declared.min_rows} declared"
        problems.append(Problem(kind=kind, table=name, text=text))
    if declared.key and len(table):
        num_keys = len(table.group_by(list(declared.key)).aggregate([]))
        if num_keys < len(table):
            text = f"{len(table) - num_keys} rows repeat the key {', '.join(declared.key)}"
            problems.append(Problem(kind=ProblemKind.DUPLICATE_KEYS, table=name, text=text))
    infinite = _infinite(declared, table)
    return [*problems, *(Problem(kind=ProblemKind.INFINITE, table=name, text=text) for text in infinite)]


def _infinite(declared: Table, table: pa.Table) -> list[str]:
    """No mean, scale or distance survives one infinite number, and no engine says so before a feature is made of it."""
    columns = [column for column, kind in declared.columns.items() if kind is ColumnType.FLOAT]
    counts = {column: pc.sum(pc.is_inf(table[column])).as_py() for column in columns}
    return [
        f"column {column!r} is infinite in {count} of {len(table)} rows; allowed: finite numbers, or no value"
        for column, count in counts.items()
        if count
    ]


def _missing(declared: Table, delivered: pa.Table) -> list[str]:
    absent = sorted(set(declared.columns) - set(delivered.column_names))
    return [f"column {c!r} is missing; delivered {sorted(delivered.column_names)}" for c in absent]


def _extra(declared: Table, delivered: pa.Table) -> list[str]:
    names = delivered.column_names
    twice = sorted({c for c in names if names.count(c) > 1})
    strict = [f.name for f in delivered.schema if f.name not in declared.columns and not f.nullable]
    return [f"column {c!r} is there twice" for c in twice] + [
        f"column {c!r} is new and not nullable; only an extra nullable column is tolerated" for c in strict
    ]


def _retyped(declared: Table, delivered: pa.Table) -> list[str]:
    names = delivered.column_names
    found = {c: delivered.schema.field(c).type for c in declared.columns if names.count(c) == 1}
    return [
        f"column {c!r} is {found[c]}, declared {t.value}"
        for c, t in declared.columns.items()
        if c in found and not _is_kind(t, found[c])
    ]


def _is_utc(found: pa.DataType) -> bool:
    return types.is_timestamp(found) and found.tz in {"UTC", "+00:00", "Etc/UTC"}


_KINDS: dict[ColumnType, Callable[[pa.DataType], bool]] = {
    ColumnType.STRING: lambda t: types.is_string(t) or types.is_large_string(t),
    ColumnType.INT: types.is_integer,
    ColumnType.FLOAT: types.is_floating,
    ColumnType.BOOL: types.is_boolean,
    ColumnType.TIMESTAMP: _is_utc,
}


def _is_kind(declared: ColumnType, found: pa.DataType) -> bool:
    """Whether `found` can hold what was declared; a column of nothing but nulls has no type to disagree."""
    if types.is_dictionary(found):
        found = found.value_type
    return types.is_null(found) or _KINDS[declared](found)


def _null_names(declared: Table, table: pa.Table) -> list[str]:
    """Key and time columns place and name a row; they are never null."""
    columns = dict.fromkeys(c for c in (declared.time, *declared.key) if c is not None)
    counts = {c: table[c].null_count for c in columns}
    return [
        f"{count} rows have no {c!r}, which is part of the key or the clock" for c, count in counts.items() if count
    ]
