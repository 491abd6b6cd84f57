"""Bytes of a request to rows of values, strictly: every bad body has its own clear refusal.

The fast path is one typed decode. Whatever it refuses is parsed again slowly, only to say precisely what is wrong.
"""

import json
import math
import re
from datetime import datetime
from typing import Any, NoReturn

import msgspec

from clearway.infra.clock import parse_instant
from clearway.serve.refusal import Refusal, shown

MAX_ROWS = 1_000
MAX_KEY_LENGTH = 200
MAX_DEPTH = 16
_BATCH_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", re.ASCII)
_FIELDS = ("instances", "dataframe_split", "keys", "event_times", "batch_id")

Row = dict[str, int | float | str | None]


class _Split(msgspec.Struct, forbid_unknown_fields=True):
    columns: list[str]
    data: list[list[int | float | str | None]]


class _Body(msgspec.Struct, forbid_unknown_fields=True):
    instances: list[Row] | None = None
    dataframe_split: _Split | None = None
    keys: list[str] | None = None
    event_times: list[str] | None = None
    batch_id: str | None = None


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """Rows to score and what the prediction log should keep of them; lists are as long as `rows`, or None.

    A struct of msgspec, since a frozen dataclass takes eight times as long to make.

    `is_text`: numbers are still texts, as in CSV; only the model knows which columns are numbers (`formats.typed`).
    """

    rows: list[Row]
    keys: list[str] | None = None
    event_times: list[datetime] | None = None
    batch_id: str | None = None
    is_text: bool = False


_decode = msgspec.json.Decoder(_Body).decode


def decode(data: bytes) -> Request:
    """Raises: Refusal 400 for what is no JSON, 413 for too many rows, 422 for JSON of another shape."""
    try:
        body = _decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        _explain(data, error)
    rows, num_pairs = _rows(body)
    has_rows_only = body.keys is None and body.event_times is None and body.batch_id is None
    # Each name-value pair brings at least one colon; more colons than pairs means colons in texts, or a name twice.
    if data.count(b":") != num_pairs + (1 if has_rows_only else _num_fields(body)):
        parse_strictly(data)
    if has_rows_only:
        return Request(rows=rows)
    _check_lengths(body, len(rows))
    return Request(
        rows=rows, keys=body.keys, event_times=_instants(body.event_times), batch_id=batch_id_of(body.batch_id)
    )


def _rows(body: _Body) -> tuple[list[Row], int]:
    if (body.instances is None) == (body.dataframe_split is None):
        raise Refusal(422, "bad_body", 'the body needs exactly one of "instances" or "dataframe_split"')
    if body.instances is not None:
        check_num_rows(len(body.instances))
        return body.instances, sum(map(len, body.instances))
    assert body.dataframe_split is not None
    return _split_rows(body.dataframe_split), 2  # its own two fields


def _split_rows(split: _Split) -> list[Row]:
    check_num_rows(len(split.data))
    columns = split.columns
    try:
        rows = [dict(zip(columns, row, strict=True)) for row in split.data]
    except ValueError:
        rows = []
    if rows and len(rows[0]) == len(columns):
        return rows
    if len(set(columns)) != len(columns):
        twice = next(c for c in columns if columns.count(c) > 1)
        raise Refusal(
            422, "duplicate_key", f"dataframe_split.columns names {shown(twice)} twice; name each column once"
        )
    index, row = next((i, row) for i, row in enumerate(split.data) if len(row) != len(columns))
    text = f"row {index} of dataframe_split.data has {len(row)} values; allowed: {len(columns)}, one per column"
    raise Refusal(422, "bad_row", text)


def _num_fields(body: _Body) -> int:
    return (
        (body.instances is not None)
        + (body.dataframe_split is not None)
        + (body.keys is not None)
        + (body.event_times is not None)
        + (body.batch_id is not None)
    )


def check_num_rows(num_rows: int) -> None:
    """Raises: Refusal 422 for none, 413 for too many."""
    if num_rows == 0:
        raise Refusal(422, "no_rows", "the body has no rows; send at least one")
    if num_rows > MAX_ROWS:
        raise Refusal(413, "too_many_rows", f"the body has {num_rows} rows; allowed: {MAX_ROWS}, split the request")


def _check_lengths(body: _Body, num_rows: int) -> None:
    for name in ("keys", "event_times"):
        values: list[str] | None = getattr(body, name)
        if values is not None and len(values) != num_rows:
            raise Refusal(422, "bad_body", f'"{name}" has {len(values)} entries for {num_rows} rows; send one per row')
    for index, key in enumerate(body.keys or ()):
        if not 0 < len(key) <= MAX_KEY_LENGTH:
            text = f"key {index} has {len(key)} characters; allowed: 1 to {MAX_KEY_LENGTH}"
            raise Refusal(422, "bad_key", text)


def _instants(texts: list[str] | None) -> list[datetime] | None:
    if texts is None:
        return None
    found = []
    for index, text in enumerate(texts):
        try:
            found.append(parse_instant(text))
        except (ValueError, OverflowError) as error:
            message = f"event_times[{index}] is {shown(text)}; allowed: ISO 8601, e.g. 2013-04-01T12:00:00Z"
            raise Refusal(422, "bad_time", message) from error
    return found


def batch_id_of(text: str | None) -> str | None:
    """The batch a caller named. Raises: Refusal 422 for a name that is no plain file name."""
    if text is not None and not _BATCH_ID.fullmatch(text):
        raise Refusal(422, "bad_batch_id", f"batch_id is {shown(text)}; allowed: 1 to 64 letters, digits, '-' or '_'")
    return text


def _explain(data: bytes, error: Exception) -> NoReturn:
    """Raise the most precise refusal for a body that the typed decode did not take."""
    parsed = parse_strictly(data)
    if not isinstance(parsed, dict):
        raise Refusal(422, "bad_body", f"the body is {_kind(parsed)}; allowed: an object with {_FIELDS}") from error
    unknown = sorted(set(parsed) - set(_FIELDS))
    if unknown:
        raise Refusal(422, "unknown_field", f"the body has field {shown(unknown[0])}; allowed: {_FIELDS}") from error
    instances = parsed.get("instances")
    for index, row in enumerate(instances if isinstance(instances, list) else ()):
        _explain_row(index, row)
    # The decoder's own text names the path and the types, never the value.
    raise Refusal(422, "bad_body", f"the body is not as expected: {error}") from error


def _explain_row(index: int, row: Any) -> None:
    if not isinstance(row, dict):
        raise Refusal(422, "bad_row", f"row {index} is {_kind(row)}; allowed: an object of column names and values")
    for name, value in row.items():
        where = f"row {index}, field {shown(name)}"
        if isinstance(value, (dict, list, bool)):
            raise Refusal(422, "bad_value", f"{where}: value is {_kind(value)}; allowed: number, string or null")
        if isinstance(value, float) and not math.isfinite(value):
            raise Refusal(422, "not_finite", f"{where}: the number is too large; allowed: a finite float32, or null")
        if isinstance(value, str) and _has_half_pair(value):
            raise Refusal(400, "bad_encoding", f"{where}: the text has half a surrogate pair; send whole characters")


def parse_strictly(data: bytes) -> Any:
    """Plain JSON with exact reasons: NaN and Infinity, duplicate names, surrogates, depth, encoding."""
    try:
        text = data.decode("utf-8")
        _check_depth(text)
        parsed = json.loads(text, parse_constant=_refuse_constant, object_pairs_hook=_without_duplicates)
    except UnicodeDecodeError as error:
        raise Refusal(400, "bad_encoding", f"the body is not UTF-8 at byte {error.start}; send UTF-8") from error
    except json.JSONDecodeError as error:
        message = f"the body is no JSON: {error.msg} at character {error.pos}"
        raise Refusal(400, "bad_json", message) from error
    except ValueError as error:  # an integer with thousands of digits
        raise Refusal(400, "bad_number", "the body has a number with too many digits; send at most 300") from error
    return parsed


def parse_whole(data: bytes) -> Any:
    """`parse_strictly`, and every text in it can be written as UTF-8. Raises: Refusal 400."""
    parsed = parse_strictly(data)
    if b"\\u" in data:
        try:
            json.dumps(parsed, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            text = "a text in the body has half a surrogate pair; send whole characters"
            raise Refusal(400, "bad_encoding", text) from error
    return parsed


def _check_depth(text: str) -> None:
    """A bound on nesting before the recursive parser runs; brackets inside texts only make it stricter on nonsense."""
    depth = deepest = 0
    in_text = is_escaped = False
    for mark in text:
        if in_text:
            if is_escaped:
                is_escaped = False
            elif mark == "\\":
                is_escaped = True
            elif mark == '"':
                in_text = False
        elif mark == '"':
            in_text = True
        elif mark in "[{":
            depth += 1
            deepest = max(deepest, depth)
            if deepest > MAX_DEPTH:
                raise Refusal(400, "too_deep", f"the body nests deeper than {MAX_DEPTH}; a request needs 4")
        elif mark in "]}":
            depth -= 1


def _refuse_constant(name: str) -> NoReturn:
    raise Refusal(
        400, "not_finite", f"the body has the literal {name}, which is no JSON; send null for a missing value"
    )


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise Refusal(400, "duplicate_key", f"the body names {shown(twice)} twice in one object; name it once")
    for name in found:
        if _has_half_pair(name):
            text = f"field name {shown(name)} has half a surrogate pair; send whole characters"
            raise Refusal(400, "bad_encoding", text)
    return found


def _has_half_pair(text: str) -> bool:
    return not text.isascii() and any("\ud800" <= mark <= "\udfff" for mark in text)


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", bool: "a boolean", str: "a string", type(None): "null"}
    return names.get(type(value), "a number")
