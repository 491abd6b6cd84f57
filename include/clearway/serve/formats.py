"""Which format a body has and an answer gets, by content type and accept header. Every format ends in `decode.Request`.

Arrow streams are read by `columnar.py`, loaded when the first such body comes. Parquet is not taken: Arrow's reader
ends the whole process on some broken files.
"""

import csv
import io
import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec

from clearway.packaging.scorer import RowEncoder
from clearway.serve.decode import Request, Row, check_num_rows, decode, parse_strictly
from clearway.serve.refusal import Refusal, shown

MAX_COLUMNS = 1_000
JSON, JSON_LINES, CSV = "application/json", "application/jsonlines", "text/csv"
ARROW = "application/vnd.apache.arrow.stream"
_NUMBER = re.compile(r"[+-]?(\d{1,300}(\.\d{0,300})?|\.\d{1,300})([eE][+-]?\d{1,4})?", re.ASCII)
_decode_row = msgspec.json.Decoder(Row).decode


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """How scores are written: the content type and the bytes of scores by one version."""

    content_type: bytes
    write: Callable[[Sequence[float], str], bytes]


def reader_of(headers: dict[bytes, bytes]) -> Callable[[bytes], Request]:
    """What decodes a body of the given content type. Raises: Refusal 415."""
    kind, _, parameters = headers.get(b"content-type", b"").partition(b";")
    reader = _READERS.get(kind.strip().lower())
    if reader is None or parameters.strip().lower().replace(b'"', b"") not in {b"", b"charset=utf-8"}:
        allowed = ", ".join(name.decode() for name in _READERS)
        raise Refusal(415, "bad_content_type", f"the content type is not taken; allowed, text in UTF-8: {allowed}")
    check_not_compressed(headers)
    return reader


def check_not_compressed(headers: dict[bytes, bytes]) -> None:
    """Raises: Refusal 415; a compressed body could unfold to any size."""
    if headers.get(b"content-encoding", b"identity") != b"identity":
        raise Refusal(415, "bad_content_encoding", "compressed bodies are not taken; send the body as it is")


def answer_of(accept: bytes) -> Answer:
    """The format the caller likes best of those there are; JSON where it does not mind. Raises: Refusal 406."""
    best, best_weight = None, 0.0
    for part in accept.lower().split(b","):
        name, *parameters = (piece.strip() for piece in part.split(b";"))
        weight = _weight(parameters)
        if weight > best_weight and name in _ANSWERS:
            best, best_weight = _ANSWERS[name], weight
    if best is None:
        raise Refusal(
            406, "not_acceptable", f"no answer fits the accept header; there are: {JSON}, {JSON_LINES}, {CSV}"
        )
    return best


def typed(request: Request, encoder: RowEncoder) -> Request:
    """Numbers of a body of texts, by the columns of the model that will answer. Raises: Refusal 422."""
    numeric = frozenset(encoder.numeric)
    rows = [
        {name: _number(index, name, value) if name in numeric else value for name, value in row.items()}
        for index, row in enumerate(request.rows)
    ]
    return msgspec.structs.replace(request, rows=rows, is_text=False)


def _number(index: int, name: str, value: int | float | str | None) -> int | float | None:
    if value is None or isinstance(value, (int, float)):
        return value
    if _NUMBER.fullmatch(value) is None or not math.isfinite(number := float(value)):
        text = f"row {index}, field {shown(name)}: is no finite number; allowed: a number such as 12.5, or nothing"
        raise Refusal(422, "bad_value", text)
    return number


def _read_json_lines(data: bytes) -> Request:
    """One object per line; a line without one is left out only at the very end."""
    lines = data.removesuffix(b"\n").split(b"\n") if data else []
    check_num_rows(len(lines))
    return Request(rows=[_json_line(index, line) for index, line in enumerate(lines)])


def _json_line(index: int, line: bytes) -> Row:
    try:
        row = _decode_row(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        parse_strictly(line)
        text = f"line {index + 1} is no row; allowed: an object of column names and numbers, strings or nulls"
        raise Refusal(422, "bad_row", text) from error
    if line.count(b":") != len(row):  # a colon in a text, or a name twice
        parse_strictly(line)
    return row


def _read_csv(data: bytes) -> Request:
    """A header row, then one row per line; an empty field is a missing value."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Refusal(400, "bad_encoding", f"the body is not UTF-8 at byte {error.start}; send UTF-8") from error
    lines = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        columns = check_columns(next(lines, []))
        rows: list[Row] = []
        for values in lines:
            if len(values) != len(columns):
                problem = f"row {len(rows)} has {len(values)} values; allowed: {len(columns)}, one per column"
                raise Refusal(422, "bad_row", problem)
            rows.append({name: value or None for name, value in zip(columns, values, strict=True)})
    except csv.Error as error:
        raise Refusal(
            400, "bad_csv", f"the body is no CSV near line {lines.line_num}; quote texts by RFC 4180"
        ) from error
    check_num_rows(len(rows))
    return Request(rows=rows, is_text=True)


def check_columns(columns: Sequence[str]) -> Sequence[str]:
    """Raises: Refusal 422 for too many, or a name twice."""
    if not columns:
        raise Refusal(422, "no_rows", "the body names no columns; send column names first")
    if len(columns) > MAX_COLUMNS:
        raise Refusal(422, "too_many_columns", f"the body has {len(columns)} columns; allowed: {MAX_COLUMNS}")
    if len(set(columns)) != len(columns):
        twice = Counter(columns).most_common(1)[0][0]
        raise Refusal(422, "duplicate_key", f"the body names column {shown(twice)} twice; name each column once")
    return columns


def _read_arrow(data: bytes) -> Request:
    from clearway.serve import columnar  # noqa: PLC0415 - heavy, and most servers never get such a body

    return columnar.read_arrow(data)


def write_json(scores: Sequence[float], digest: str) -> bytes:
    """The answer most callers get."""
    return msgspec.json.encode({"predictions": scores, "model_digest": digest})


def _write_json_lines(scores: Sequence[float], digest: str) -> bytes:
    return b"".join(msgspec.json.encode({"prediction": s, "model_digest": digest}) + b"\n" for s in scores)


def _write_csv(scores: Sequence[float], digest: str) -> bytes:
    return "".join(["prediction,model_digest\r\n", *(f"{score!r},{digest}\r\n" for score in scores)]).encode()


def _weight(parameters: list[bytes]) -> float:
    for parameter in parameters:
        if parameter.startswith(b"q="):
            try:
                weight = float(parameter[2:])
            except ValueError:
                return 0.0
            return weight if 0 <= weight <= 1 else 0.0
    return 1.0


AS_JSON = Answer(content_type=JSON.encode(), write=write_json)
_LINES_ANSWER = Answer(content_type=JSON_LINES.encode(), write=_write_json_lines)
_CSV_ANSWER = Answer(content_type=b"text/csv; charset=utf-8", write=_write_csv)
_ANSWERS = {
    b"*/*": AS_JSON,
    b"application/*": AS_JSON,
    JSON.encode(): AS_JSON,
    JSON_LINES.encode(): _LINES_ANSWER,
    b"text/*": _CSV_ANSWER,
    CSV.encode(): _CSV_ANSWER,
}
_READERS: dict[bytes, Callable[[bytes], Request]] = {
    JSON.encode(): decode,
    JSON_LINES.encode(): _read_json_lines,
    CSV.encode(): _read_csv,
    ARROW.encode(): _read_arrow,
}
