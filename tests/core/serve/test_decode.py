"""Bodies: what is taken, and the exact words for everything that is not."""

import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clearway.serve.decode import MAX_ROWS, decode
from clearway.serve.refusal import Refusal


def refusal_of(body):
    with pytest.raises(Refusal) as caught:
        decode(body if isinstance(body, bytes) else body.encode())
    return caught.value


def test_instances_and_dataframe_split_are_the_same_rows():
    instances = decode(b'{"instances":[{"a":1,"b":"x"},{"a":null,"b":"y:z"}]}')
    split = decode(b'{"dataframe_split":{"columns":["a","b"],"data":[[1,"x"],[null,"y:z"]]}}')
    assert instances.rows == split.rows == [{"a": 1, "b": "x"}, {"a": None, "b": "y:z"}]
    assert (instances.keys, instances.event_times, instances.batch_id) == (None, None, None)


def test_what_the_log_keeps_is_read():
    text = '{"instances":[{"a":1}],"keys":["k:1"],"event_times":["2013-04-01T12:00:00+02:00"],"batch_id":"2013-04-01"}'
    request = decode(text.encode())
    assert (request.keys, request.batch_id) == (["k:1"], "2013-04-01")
    assert request.event_times == [datetime(2013, 4, 1, 10, tzinfo=UTC)]


REFUSED = {
    "empty": ("", 400, "bad_json", "no JSON"),
    "half": ('{"instances":[{"a":1}', 400, "bad_json", "no JSON"),
    "trailing": ('{"instances":[{"a":1}]} x', 400, "bad_json", "Extra data"),
    "leading zero": ('{"instances":[{"a":01}]}', 400, "bad_json", "no JSON"),
    "NaN": ('{"instances":[{"a":NaN}]}', 400, "not_finite", "literal NaN"),
    "Infinity": ('{"instances":[{"a":-Infinity}]}', 400, "not_finite", "literal -Infinity"),
    "1e400": ('{"instances":[{"a":1},{"a":1e400}]}', 422, "not_finite", "row 1, field 'a'"),
    "5000 digits": ('{"instances":[{"a":' + "9" * 5000 + "}]}", 400, "bad_number", "digits"),
    "duplicate field": ('{"instances":[{"a":1,"a":2}]}', 400, "duplicate_key", "'a' twice"),
    "duplicate field, escaped": ('{"instances":[{"a":1,"\\u0061":2}]}', 400, "duplicate_key", "'a' twice"),
    "duplicate top": ('{"instances":[{"a":1}],"instances":[{"a":2}]}', 400, "duplicate_key", "'instances' twice"),
    "duplicate column": ('{"dataframe_split":{"columns":["a","a"],"data":[[1,2]]}}', 422, "duplicate_key", "'a' twice"),
    "surrogate value": ('{"instances":[{"a":"\\ud800"}]}', 400, "bad_encoding", "row 0, field 'a'"),
    "surrogate name": ('{"instances":[{"\\udc00":1}]}', 400, "bad_encoding", "surrogate"),
    "control character": ('{"instances":[{"a":"\x00"}]}', 400, "bad_json", "control character"),
    "not UTF-8": (b'{"instances":[{"a":"\xff"}]}', 400, "bad_encoding", "byte 20"),
    "UTF-16": ('{"instances":[{"a":1}]}'.encode("utf-16"), 400, "bad_encoding", "UTF-8"),
    "BOM": (b'\xef\xbb\xbf{"instances":[{"a":1}]}', 400, "bad_json", "BOM"),
    "deep": ("[" * 100_000, 400, "too_deep", "deeper"),
    "deep inside": ('{"instances":' + "[" * 50_000 + "]" * 50_000 + "}", 400, "too_deep", "deeper"),
    "list": ("[]", 422, "bad_body", "a list"),
    "null": ("null", 422, "bad_body", "null"),
    "text": ('"instances"', 422, "bad_body", "a string"),
    "no rows field": ("{}", 422, "bad_body", "exactly one"),
    "both": ('{"instances":[{}],"dataframe_split":{"columns":[],"data":[[]]}}', 422, "bad_body", "exactly one"),
    "unknown field": ('{"instances":[{"a":1}],"inputs":1}', 422, "unknown_field", "'inputs'"),
    "no row": ('{"instances":[]}', 422, "no_rows", "no rows"),
    "row is a list": ('{"instances":[[1]]}', 422, "bad_row", "row 0 is a list"),
    "boolean": ('{"instances":[{"a":1},{"a":true}]}', 422, "bad_value", "row 1, field 'a': value is a boolean"),
    "nested": ('{"instances":[{"a":{"b":1}}]}', 422, "bad_value", "field 'a': value is an object"),
    "short row": ('{"dataframe_split":{"columns":["a","b"],"data":[[1,2],[1]]}}', 422, "bad_row", "row 1"),
    "few keys": ('{"instances":[{"a":1}],"keys":[]}', 422, "bad_body", '"keys" has 0'),
    "empty key": ('{"instances":[{"a":1}],"keys":[""]}', 422, "bad_key", "0 characters"),
    "long key": ('{"instances":[{"a":1}],"keys":["' + "k" * 201 + '"]}', 422, "bad_key", "201 characters"),
    "number as key": ('{"instances":[{"a":1}],"keys":[1]}', 422, "bad_body", "keys"),
    "bad time": ('{"instances":[{"a":1}],"event_times":["noon"]}', 422, "bad_time", "event_times[0]"),
    "time too early": ('{"instances":[{"a":1}],"event_times":["0001-01-01T00:00:00+12:00"]}', 422, "bad_time", "[0]"),
    "path as batch": ('{"instances":[{"a":1}],"batch_id":"../x"}', 422, "bad_batch_id", "'../x'"),
    "line break in batch": ('{"instances":[{"a":1}],"batch_id":"a\\n"}', 422, "bad_batch_id", "letters"),
    "batch is a number": ('{"instances":[{"a":1}],"batch_id":7}', 422, "bad_body", "batch_id"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_bad_body_has_its_own_clear_refusal(name):
    body, status, code, words = REFUSED[name]
    refusal = refusal_of(body)
    assert (refusal.status, refusal.code) == (status, code)
    assert words in refusal.message
    assert len(refusal.message) < 1000


def test_one_row_more_than_allowed_is_too_many():
    rows = '{"a":1},' * MAX_ROWS
    assert len(decode(f'{{"instances":[{rows[:-1]}]}}'.encode()).rows) == MAX_ROWS
    refusal = refusal_of(f'{{"instances":[{rows}{{"a":1}}]}}')
    assert (refusal.status, refusal.code) == (413, "too_many_rows")


VALUE = st.none() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False) | st.text()


@given(st.lists(st.dictionaries(st.text(max_size=5), VALUE, max_size=4), min_size=1, max_size=4))
def test_every_json_row_of_plain_values_is_read_exactly(rows):
    for ensure_ascii in (True, False):
        body = json.dumps({"instances": rows}, ensure_ascii=ensure_ascii).encode("utf-8")
        assert decode(body).rows == rows


@given(st.dictionaries(st.text(max_size=5), VALUE, min_size=1, max_size=3), st.data())
def test_a_name_given_twice_is_always_found(row, data):
    twice = data.draw(st.sampled_from(sorted(row)))
    pairs = [*row.items(), (twice, 1)]
    text = ",".join(f"{json.dumps(name)}:{json.dumps(value)}" for name, value in pairs)
    refusal = refusal_of(f'{{"instances":[{{{text}}}]}}')
    assert refusal.code == "duplicate_key"
