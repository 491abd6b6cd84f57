"""Columns of an Arrow table as the encoder takes them. Apart from it, since the server encodes rows without Arrow."""

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from clearway.packaging.encoder import NUMBER, STRING, RowError


def frequent(table: pa.Table, name: str, min_count: int) -> tuple[str, ...]:
    """Values that a column holds at least `min_count` times, sorted."""
    counts = _strings(table, name).value_counts()
    pairs = zip(counts.field("values").to_pylist(), counts.field("counts").to_pylist(), strict=True)
    return tuple(sorted(value for value, count in pairs if value is not None and count >= min_count))


def _column(table: pa.Table, name: str) -> pa.ChunkedArray:
    if name not in table.column_names:
        raise RowError(row=0, field=name, value=None, allowed="every column present", problem="is missing")
    return table[name]


def numbers(table: pa.Table, name: str) -> npt.NDArray[np.float32]:
    """A column with NaN for missing. [B] Raises: RowError."""
    column = _column(table, name)
    if not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type)):
        raise RowError(row=0, field=name, value=None, allowed=NUMBER, problem=f"is a {column.type} column")
    # Through float64, as a JSON number goes: an int64 straight to float32 could round once where the rows round twice.
    with np.errstate(over="ignore"):
        values: npt.NDArray[np.float32] = column.cast(pa.float64(), safe=False).to_numpy().astype(np.float32)
    wrong = ~np.isfinite(values) & column.is_valid().to_numpy()
    if wrong.any():
        row = int(np.argmax(wrong))
        raise RowError(
            row=row, field=name, value=column[row].as_py(), allowed=NUMBER, problem="is not finite in float32"
        )
    return values


def places(table: pa.Table, name: str, known: tuple[str, ...]) -> npt.NDArray[np.int64]:
    """Where each value of a column stands among the known ones; -1 for any other, and for a missing one. [B]"""
    found = pc.index_in(_strings(table, name), value_set=pa.array(known, pa.string()), skip_nulls=True)
    return found.fill_null(-1).to_numpy()  # type: ignore[no-any-return]


def _strings(table: pa.Table, name: str) -> pa.Array:
    column = _column(table, name)
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
        raise RowError(row=0, field=name, value=None, allowed=STRING, problem=f"is a {column.type} column")
    return pa.concat_arrays(column.cast(pa.string()).chunks) if column.num_chunks else pa.array([], pa.string())
