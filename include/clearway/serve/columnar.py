"""Arrow streams to rows. What they hold is counted before any of it is unpacked.

A body is at most 1 MiB, so the danger is what it unfolds to. Buffers must be plain, so they are read where they lie.
Texts that repeat are kept once, as a dictionary: a thousand rows may name one text, and it stays one text.
"""

import struct
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.ipc

from clearway.serve.decode import Request, check_num_rows
from clearway.serve.formats import check_columns
from clearway.serve.refusal import Refusal, shown

MAX_BATCHES = 100
# Fields of the tables in Arrow's Message.fbs and the header types there.
_HEADER_TYPE, _HEADER, _COMPRESSION, _DICTIONARY_DATA = 1, 2, 3, 1
_IS_DICTIONARY, _IS_BATCH = 2, 3


def read_arrow(data: bytes) -> Request:
    """Raises: Refusal 400 for what is no Arrow stream, 413 for too much, 422 for columns no row can have."""
    try:
        _check_messages(data)
        batches, num_rows = [], 0
        with pa.ipc.open_stream(pa.BufferReader(data)) as stream:
            _check_types(stream.schema)
            for batch in stream:
                num_rows += len(batch)
                check_num_rows(max(num_rows, 1))
                batch.validate(full=True)
                batches.append(batch)
            names = stream.schema.names
    except (pa.ArrowException, OSError, OverflowError, UnicodeDecodeError, struct.error) as error:
        raise _unreadable("Arrow stream") from error
    return _request(names, batches)


def _check_messages(data: bytes) -> None:
    """Before any buffer is unpacked: how many parts there are, and that none is compressed."""
    reader, num_parts = pa.ipc.MessageReader.open_stream(pa.BufferReader(data)), 0
    for message in reader:
        num_parts += 1
        if num_parts > MAX_BATCHES:
            raise Refusal(413, "too_many_parts", f"the stream has over {MAX_BATCHES} parts; send fewer, larger batches")
        metadata = message.metadata.to_pybytes()
        root = struct.unpack_from("<I", metadata)[0]
        kind_at = _field_at(metadata, root, _HEADER_TYPE)
        kind = metadata[kind_at] if kind_at else 0
        if kind not in {_IS_DICTIONARY, _IS_BATCH}:
            continue
        table = _table_at(metadata, root, _HEADER)
        if kind == _IS_DICTIONARY:
            table = _table_at(metadata, table, _DICTIONARY_DATA)
        if _field_at(metadata, table, _COMPRESSION):
            raise Refusal(422, "bad_compression", "the stream has compressed buffers; send it without compression")


def _field_at(data: bytes, table: int, field: int) -> int:
    """Where a FlatBuffers table keeps a field, 0 if it has none. The bytes have been verified by Arrow."""
    layout = table - struct.unpack_from("<i", data, table)[0]
    size = struct.unpack_from("<H", data, layout)[0]
    entry = 4 + 2 * field
    offset = struct.unpack_from("<H", data, layout + entry)[0] if entry < size else 0
    return table + offset if offset else 0


def _table_at(data: bytes, table: int, field: int) -> int:
    at = _field_at(data, table, field)
    if not at:
        raise pa.ArrowInvalid("a message without its header")
    return int(at + struct.unpack_from("<I", data, at)[0])


def _check_types(schema: pa.Schema) -> None:
    check_columns(schema.names)
    for field in schema:
        kind = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
        if not (_is_text(kind) or _is_number(field.type) or pa.types.is_null(field.type)):
            text = f"column {shown(field.name)} is {shown(str(field.type))}; allowed: numbers, booleans, texts"
            raise Refusal(422, "bad_column", text)


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind))


def _request(names: Sequence[str], batches: Sequence[pa.RecordBatch]) -> Request:
    try:
        rows = [
            dict(zip(names, values, strict=True))
            for batch in batches
            for values in zip(*map(_values, batch.columns), strict=True)
        ]
    except (pa.ArrowException, UnicodeDecodeError) as error:
        raise Refusal(400, "bad_encoding", "a text is not UTF-8; send UTF-8") from error
    check_num_rows(len(rows))
    return Request(rows=rows)


def _values(column: pa.Array) -> list[Any]:
    """Python values; true and false count as 1 and 0, as the training table has them."""
    if pa.types.is_dictionary(column.type):
        known = column.dictionary.to_pylist()
        return [None if index is None else known[index] for index in column.indices.to_pylist()]
    if pa.types.is_boolean(column.type):
        column = column.cast(pa.int8())
    return list(column.to_pylist())


def _unreadable(what: str) -> Refusal:
    return Refusal(400, "bad_columns", f"the body is no whole {what}; write it anew and send all of it")
