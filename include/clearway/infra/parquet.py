"""Tables to Parquet bytes and back, always the same bytes for the same rows."""

import io
from collections.abc import Sequence
from datetime import date
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from clearway.infra.storage import to_path

# Large enough for one row group per weekly batch, small enough to read a column of a big batch in parts.
ROWS_PER_GROUP = 1_000_000


def to_parquet(table: pa.Table) -> bytes:
    """Bytes that depend on rows, names and types alone: not on chunks, the clock or the machine.

    They do depend on the pyarrow version, which signs its files.
    """
    sink = io.BytesIO()
    writer: Any = pq
    writer.write_table(
        table.combine_chunks().replace_schema_metadata(None),
        sink,
        row_group_size=ROWS_PER_GROUP,
        compression="zstd",
        version="2.6",
        data_page_version="1.0",
    )
    return sink.getvalue()


def open_parquet(uri: str) -> pq.ParquetFile:
    """A file of the store, to be read in parts: nothing but what is asked for is fetched."""
    if uri.startswith("file://"):
        return pq.ParquetFile(to_path(uri))
    from clearway.infra.aws.s3_storage import open_s3_file  # noqa: PLC0415 - what one machine never needs

    return pq.ParquetFile(open_s3_file(uri), pre_buffer=True)


def read_parquet(uri: str, *, columns: Sequence[str] | None = None) -> pa.Table:
    """`columns` of a file of the store, None for all."""
    with open_parquet(uri) as file:
        return file.read(columns=None if columns is None else list(columns))


def read_since(uri: str, column: str, since: date, *, columns: Sequence[str] | None = None) -> pa.Table:
    """The rows whose date in `column` is `since` or later; of a file that has none by its own statistics, nothing else
    is read."""
    with open_parquet(uri) as file:
        place, groups = file.schema_arrow.get_field_index(column), range(file.num_row_groups)
        found = [file.metadata.row_group(group).column(place).statistics for group in groups]
        late = [g for g, s in zip(groups, found, strict=True) if s is None or not s.has_min_max or s.max >= since]
        table = file.read_row_groups(late, columns=None if columns is None else [*columns, column])
    kept = table.filter(pc.greater_equal(table[column], pa.scalar(since, pa.date32())))
    return kept if columns is None else kept.select(list(columns))


def from_parquet(data: bytes) -> pa.Table:
    """The table in `data`. Raises: pyarrow.ArrowInvalid for bytes that are no Parquet file."""
    return pq.read_table(pa.BufferReader(data))
