"""One encoding for training tables and for served rows."""

import json
import math

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clearway.packaging.encoder import Encoder, RowError

ENCODER = Encoder(
    numeric=("delay", "count"),
    categorical=("carrier", "origin"),
    vocabulary={"carrier": ("AA", "UA", "é"), "origin": ("", "JFK")},
)
GOOD = {"delay": 1.5, "count": 3, "carrier": "UA", "origin": "JFK"}

NUMBER = st.none() | st.floats(allow_nan=False, allow_infinity=False, width=32) | st.floats(-3e38, 3e38)
COUNT = st.none() | st.integers(-(2**63), 2**63 - 1)
TEXT = st.none() | st.sampled_from(["AA", "UA", "é", "", "JFK", "zz"]) | st.text(max_size=3)
ROWS = st.lists(
    st.fixed_dictionaries({"delay": NUMBER, "count": COUNT, "carrier": TEXT, "origin": TEXT}), min_size=0, max_size=20
)


def table_of(rows: list[dict[str, object]]) -> pa.Table:
    schema = {"delay": pa.float64(), "count": pa.int64(), "carrier": pa.string(), "origin": pa.string()}
    return pa.Table.from_pylist(rows, pa.schema(list(schema.items())))


@settings(max_examples=300, deadline=None)
@given(rows=ROWS.filter(lambda rows: all(_is_utf8(v) for r in rows for v in r.values())))
def test_tables_and_rows_give_the_same_bits(rows):
    for table_part, row_part in zip(ENCODER.encode_table(table_of(rows)), ENCODER.encode_rows(rows), strict=True):
        assert table_part.dtype == row_part.dtype
        assert table_part.shape == row_part.shape
        assert table_part.tobytes() == row_part.tobytes()


def _is_utf8(value: object) -> bool:
    return not isinstance(value, str) or value.isprintable() or max(value, default="") < "\ud800"


def test_known_values_count_from_one_and_the_rest_is_zero():
    rows = [GOOD, GOOD | {"carrier": "??", "origin": None}, GOOD | {"carrier": "AA", "origin": ""}]
    assert ENCODER.encode_rows(rows)[1].tolist() == [[2, 2], [0, 0], [1, 1]]


def test_missing_number_is_nan():
    numeric, _ = ENCODER.encode_rows([GOOD | {"delay": None}])
    assert math.isnan(numeric[0, 0])
    assert numeric[0, 1] == 3.0


@pytest.mark.parametrize("chunked", [False, True], ids=["one chunk", "many chunks"])
@pytest.mark.parametrize("type_", [pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())], ids=str)
def test_string_layouts_are_equal(type_, chunked):
    table = pa.table(
        {
            "delay": pa.array([1.0, None], pa.float32()),
            "count": [1, 2],
            "carrier": pa.array(["UA", None]).cast(type_),
            "origin": pa.array(["JFK", "x"]).cast(type_),
        }
    )
    table = pa.concat_tables([table.slice(0, 1), table.slice(1)]) if chunked else table
    assert ENCODER.encode_table(table)[1].tolist() == [[2, 2], [0, 0]]


@pytest.mark.parametrize(
    ("row", "field", "word"),
    [
        ({k: v for k, v in GOOD.items() if k != "delay"}, "delay", "missing"),
        ({k: v for k, v in GOOD.items() if k != "delay"} | {"dely": 1.0}, "delay", "missing"),
        (GOOD | {"label": 1}, "label", "not a column"),
        (GOOD | {"delay": "1.5"}, "delay", "str"),
        (GOOD | {"delay": True}, "delay", "bool"),
        (GOOD | {"delay": math.nan}, "delay", "finite"),
        (GOOD | {"delay": math.inf}, "delay", "finite"),
        (GOOD | {"delay": -math.inf}, "delay", "finite"),
        (GOOD | {"delay": 1e39}, "delay", "finite"),
        (GOOD | {"count": 10**400}, "count", "finite"),
        (GOOD | {"delay": [1.0]}, "delay", "list"),
        (GOOD | {"delay": {}}, "delay", "dict"),
        (GOOD | {"carrier": 7}, "carrier", "int"),
        (GOOD | {"carrier": True}, "carrier", "bool"),
        (GOOD | {"origin": ["JFK"]}, "origin", "list"),
        ([1.5, 3, "UA", "JFK"], "", "list"),
        (None, "", "NoneType"),
    ],
)
def test_wrong_rows_are_refused_with_row_and_field(row, field, word):
    with pytest.raises(RowError, match=word) as caught:
        ENCODER.encode_rows([GOOD, row])
    assert (caught.value.row, caught.value.field) == (1, field)
    assert caught.value.allowed


@given(value=st.recursive(st.none() | st.booleans() | st.floats() | st.integers() | st.text(), st.lists, max_leaves=4))
def test_any_value_is_encoded_finitely_or_refused(value):
    for name in GOOD:
        try:
            numeric, categorical = ENCODER.encode_rows([GOOD | {name: value}])
        except RowError as error:
            assert error.field == name
        else:
            assert np.isfinite(numeric).sum() == 2 - (value is None and name in ENCODER.numeric)
            assert ((categorical >= 0) & (categorical < ENCODER.cardinalities)).all()


@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("delay", pa.array([math.nan])),
        ("delay", pa.array([math.inf])),
        ("delay", pa.array([1e39])),
        ("delay", pa.array(["1"])),
        ("delay", pa.array([True])),
        ("carrier", pa.array([1])),
    ],
    ids=["nan", "inf", "overflow", "text", "bool", "int category"],
)
def test_wrong_tables_are_refused(column, values):
    table = table_of([GOOD])
    table = table.set_column(table.column_names.index(column), column, values)
    with pytest.raises(RowError) as caught:
        ENCODER.encode_table(table)
    assert caught.value.field == column


def test_absent_column_is_refused():
    with pytest.raises(RowError, match="missing"):
        ENCODER.encode_table(table_of([GOOD]).drop_columns(["origin"]))


def test_fit_keeps_frequent_values_sorted():
    table = pa.table({"x": [1.0] * 6, "c": ["b", "a", "b", None, "a", "rare"]})
    encoder = Encoder.fit(table, numeric=["x"], categorical=["c"], min_count=2)
    assert encoder.vocabulary == {"c": ("a", "b")}
    assert encoder.cardinalities == (3,)


def test_json_round_trip_and_closed_keys():
    assert Encoder.from_json(ENCODER.to_json()) == ENCODER
    assert Encoder.from_json(ENCODER.to_json()).to_json() == ENCODER.to_json()
    with pytest.raises(ValueError, match="allowed"):
        Encoder.from_json(json.dumps(json.loads(ENCODER.to_json()) | {"extra": 1}).encode())


def test_columns_must_be_unique():
    with pytest.raises(ValueError, match="unique"):
        Encoder(numeric=("a", "a"), categorical=(), vocabulary={})
