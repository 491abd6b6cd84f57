"""The declared schema decides: what fits lands in one form, whatever differs is named."""

import math
from datetime import UTC, datetime

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clearway.ingest.schema import ARROW_TYPES, ProblemKind, check_rows, conform
from clearway.product import ColumnType, Table

DECLARED = Table(
    columns={
        "key": ColumnType.STRING,
        "at": ColumnType.TIMESTAMP,
        "n": ColumnType.INT,
        "x": ColumnType.FLOAT,
        "ok": ColumnType.BOOL,
    },
    time="at",
    key=("key",),
)
NOON = datetime(2024, 1, 1, 12, tzinfo=UTC)
OTHER_TYPES = {
    "key": pa.int64(),
    "at": pa.timestamp("us"),
    "n": pa.float64(),
    "x": pa.string(),
    "ok": pa.int8(),
}


def delivered(num_rows: int = 3) -> pa.Table:
    return pa.table(
        {
            "key": pa.array([f"k{i}" for i in range(num_rows)]),
            "at": pa.array([NOON] * num_rows, ARROW_TYPES[ColumnType.TIMESTAMP]),
            "n": pa.array(range(num_rows), pa.int64()),
            "x": pa.array([0.5] * num_rows, pa.float64()),
            "ok": pa.array([True] * num_rows, pa.bool_()),
        }
    )


mutations = st.one_of(
    st.tuples(st.just("drop"), st.sampled_from(list(DECLARED.columns))),
    st.tuples(st.just("rename"), st.sampled_from(list(DECLARED.columns))),
    st.tuples(st.just("retype"), st.sampled_from(list(DECLARED.columns))),
    st.tuples(st.just("null"), st.sampled_from(["key", "at"])),
    st.tuples(st.just("strict"), st.just("extra")),
)
harmless = st.one_of(
    st.tuples(st.just("extra"), st.sampled_from(["note", "zz", "x2"])),
    st.tuples(st.just("narrow"), st.sampled_from(["n", "x"])),
    st.tuples(st.just("seconds"), st.just("at")),
    st.tuples(st.just("dictionary"), st.just("key")),
    st.tuples(st.just("reorder"), st.just("")),
)


def mutate(table: pa.Table, kind: str, column: str) -> pa.Table:
    if kind in {"extra", "strict"}:
        field = pa.field(column, pa.int64(), nullable=kind == "extra")
        return table if column in table.column_names else table.append_column(field, pa.array([1] * len(table)))
    if kind == "drop":
        return table.drop_columns([column])
    if kind == "rename":
        return table.rename_columns([f"{c}_" if c == column else c for c in table.column_names])
    if kind == "reorder":
        return table.select(table.column_names[::-1])
    index = table.schema.get_field_index(column)
    replaced = {
        "retype": lambda: pa.nulls(len(table), OTHER_TYPES[column]),
        "null": lambda: pa.array([None, *table[column].to_pylist()[1:]], table[column].type),
        "narrow": lambda: table[column].cast({"n": pa.int16(), "x": pa.float32()}.get(column, pa.int16())),
        "seconds": lambda: table[column].cast(pa.timestamp("s", tz="UTC")),
        "dictionary": lambda: table[column].combine_chunks().dictionary_encode(),
    }[kind]()
    return table.set_column(index, column, replaced)


@given(mutation=mutations, before=st.lists(harmless, max_size=2, unique_by=lambda m: m[0]))
def test_every_difference_that_matters_refuses_the_table_and_names_the_column(
    mutation: tuple[str, str], before: list[tuple[str, str]]
) -> None:
    table = delivered()
    for kind, column in before:
        table = mutate(table, kind, column)
    table = mutate(table, *mutation)
    clean, problems = conform("t", DECLARED, table)
    assert clean is None
    assert {p.kind for p in problems} == {ProblemKind.SCHEMA}
    assert any(repr(mutation[1]) in p.text for p in problems)


@given(changes=st.lists(harmless, max_size=5, unique_by=lambda m: m[0]))
def test_harmless_differences_give_the_very_same_table(changes: list[tuple[str, str]]) -> None:
    table = delivered()
    for kind, column in changes:
        table = mutate(table, kind, column)
    clean, problems = conform("t", DECLARED, table)
    assert problems == []
    assert clean is not None
    assert clean.equals(delivered())


def test_a_whole_number_too_large_for_its_type_is_a_problem_and_no_crash() -> None:
    table = delivered().set_column(2, "n", pa.array([2**63, 1, 2], pa.uint64()))
    clean, (problem,) = conform("t", DECLARED, table)
    assert clean is None
    assert "do not fit" in problem.text


def test_a_number_that_is_none_is_a_missing_value() -> None:
    """Engines disagree about NaN (its order, whether a mean keeps it); a null they all skip."""
    table = delivered().set_column(3, "x", pa.array([math.nan, None, 0.5], pa.float64()))
    clean, _ = conform("t", DECLARED, table)
    assert clean is not None
    assert clean["x"].to_pylist() == [None, None, 0.5]


def test_a_table_that_was_not_delivered_lacks_every_column() -> None:
    _, problems = conform("t", DECLARED, pa.table({}))
    assert len(problems) == len(DECLARED.columns)


@pytest.mark.parametrize(
    ("num_rows", "is_expected", "kinds"),
    [
        pytest.param(3, True, [], id="enough"),
        pytest.param(1, True, [ProblemKind.TRUNCATED], id="short"),
        pytest.param(0, True, [ProblemKind.EMPTY], id="none"),
        pytest.param(0, False, [], id="none_yet"),
    ],
)
def test_row_counts(num_rows: int, is_expected: bool, kinds: list[ProblemKind]) -> None:
    declared = DECLARED.model_copy(update={"min_rows": 2})
    found = check_rows("t", declared, delivered(num_rows), is_expected=is_expected)
    assert [p.kind for p in found] == kinds


def test_a_repeated_key_is_counted() -> None:
    doubled = pa.concat_tables([delivered(), delivered(2)])
    (problem,) = check_rows("t", DECLARED, doubled, is_expected=True)
    assert problem.kind is ProblemKind.DUPLICATE_KEYS
    assert "2 rows" in problem.text
