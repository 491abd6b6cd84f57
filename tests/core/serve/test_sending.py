"""What of a batch is sent, and in which portions."""

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clearway.packaging.text import MAX_TEXTS, beginning
from clearway.serve.sending import CHUNK_BYTES, CHUNK_ROWS, CHUNK_VALUES, TableRows, TextRows

TEXTS = st.lists(st.one_of(st.none(), st.text(max_size=40)), max_size=40)


def of_texts(texts: list[str | None]) -> pa.Table:
    return pa.table({"key": [f"k{i}" for i in range(len(texts))], "text": pa.array(texts, pa.string())})


@given(st.text(max_size=40), st.integers(1, 60))
def test_a_beginning_is_as_long_as_may_be_and_of_whole_characters(text: str, max_bytes: int) -> None:
    found = beginning(text, max_bytes)
    assert text.startswith(found)
    assert len(found.encode()) <= max_bytes
    if found != text:
        assert len(text[: len(found) + 1].encode()) > max_bytes


@settings(max_examples=60)
@given(TEXTS, st.integers(1, 60))
def test_texts_are_sent_once_each_in_order_within_what_a_request_takes(texts: list[str | None], max_bytes: int) -> None:
    sending = TextRows("text", max_bytes)
    rows = sending.sendable(of_texts(texts))
    expected = [(f"k{i}", beginning(t, max_bytes)) for i, t in enumerate(texts) if t and beginning(t, max_bytes)]
    assert list(zip(rows["key"].to_pylist(), rows["text"].to_pylist(), strict=True)) == expected
    portions = list(sending.portions(rows))
    assert [key for part in portions for key in part["key"].to_pylist()] == rows["key"].to_pylist()
    for part in portions:
        assert 1 <= len(part) <= CHUNK_ROWS
        num_bytes = sum(len(text.encode()) for text in part["text"].to_pylist())
        assert len(part) == 1 or num_bytes <= min(CHUNK_BYTES, MAX_TEXTS * max_bytes)


@pytest.mark.parametrize(
    ("num_texts", "num_bytes", "expected"),
    [
        (3, 30_000, [1, 1, 1]),
        (10, 4_096, [4, 4, 2]),
        (CHUNK_ROWS + 5, 1, [CHUNK_ROWS, 5]),
        (0, 1, []),
    ],
    ids=["each too long for company", "by bytes", "by rows", "none"],
)
def test_portions_are_bounded_in_bytes_and_rows(num_texts: int, num_bytes: int, expected: list[int]) -> None:
    sending = TextRows("text", 65_536)
    assert [len(part) for part in sending.portions(of_texts(["a" * num_bytes] * num_texts))] == expected


@pytest.mark.parametrize(("num_columns", "num_rows"), [(3, CHUNK_ROWS), (100, CHUNK_VALUES // 100)])
def test_rows_of_a_table_are_bounded_in_values(num_columns: int, num_rows: int) -> None:
    columns = tuple(f"x{i}" for i in range(num_columns))
    table = pa.table({name: [0.0] * 1_100 for name in columns})
    sending = TableRows(columns)
    assert sending.sendable(table) is table
    sizes = [len(part) for part in sending.portions(table)]
    assert sum(sizes) == 1_100 and set(sizes[:-1]) == {num_rows}
