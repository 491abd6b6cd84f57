"""Rows to the two arrays a model eats, by one definition for training tables and for served requests.

Shapes: B rows, N numeric columns, C categorical columns. Both paths give the same bits, see the tests. A missing number
is null in the input and NaN in the result; a NaN in the input is refused, since NaN is never a number.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from clearway.contracts.manifest import canonical_json

Arrays = tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]

UNKNOWN = 0  # category index of a missing value and of any value the training data did not hold often enough
_NUMBER_TYPES = frozenset((int, float, type(None)))
_STRING_TYPES = frozenset((str, type(None)))
_NUMBER = "a finite number within float32, or null"
_STRING = "a string, or null"


class RowError(ValueError):
    """One value of one row is unacceptable.

    Args:
        row: index of the row in what was passed. The text does not repeat foreign values; they are in `value`.
        field: the column.
        allowed: what would have been accepted, in words.
    """

    def __init__(self, *, row: int, field: str, value: object, allowed: str, problem: str) -> None:
        super().__init__(f"row {row}, field {field!r}: {problem}; allowed: {allowed}")
        self.row, self.field, self.value, self.allowed = row, field, value, allowed


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoder:
    """Fitted state: which columns in which order, and the known values of each category.

    Args:
        numeric: numeric columns in model order.
        categorical: categorical columns in model order.
        vocabulary: per categorical column the known values, sorted; the i-th has index i + 1, everything else 0.
    """

    numeric: tuple[str, ...]
    categorical: tuple[str, ...]
    vocabulary: dict[str, tuple[str, ...]]
    _fields: frozenset[str] = field(init=False, repr=False, compare=False)
    _index: tuple[dict[str | None, int], ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        names = (*self.numeric, *self.categorical)
        if len(set(names)) != len(names) or set(self.vocabulary) != set(self.categorical):
            raise ValueError(
                f"columns {names} must be unique and vocabulary {sorted(self.vocabulary)} must cover {self.categorical}"
            )
        index = tuple({v: i + 1 for i, v in enumerate(self.vocabulary[c])} for c in self.categorical)
        object.__setattr__(self, "_fields", frozenset(names))
        object.__setattr__(self, "_index", index)

    @classmethod
    def fit(cls, table: pa.Table, *, numeric: Sequence[str], categorical: Sequence[str], min_count: int) -> "Encoder":
        """Learn the vocabularies: values seen at least `min_count` times, in sorted order."""
        vocabulary = {name: _frequent(table, name, min_count) for name in categorical}
        return cls(numeric=tuple(numeric), categorical=tuple(categorical), vocabulary=vocabulary)

    @property
    def cardinalities(self) -> tuple[int, ...]:
        """Number of indices per categorical column, the unknown one included. [C]"""
        return tuple(len(self.vocabulary[c]) + 1 for c in self.categorical)

    def encode_table(self, table: pa.Table) -> Arrays:
        """(float32 [B, N] with NaN for missing, int64 [B, C]); other columns are ignored. Raises: RowError."""
        numeric = np.empty((len(table), len(self.numeric)), np.float32)
        for i, name in enumerate(self.numeric):
            numeric[:, i] = _numbers(table, name)
        categorical = np.empty((len(table), len(self.categorical)), np.int64)
        for i, name in enumerate(self.categorical):
            known = pa.array(self.vocabulary[name], pa.string())
            found = pc.index_in(_strings(table, name), value_set=known, skip_nulls=True)
            categorical[:, i] = found.fill_null(-1).to_numpy() + 1
        return numeric, categorical

    def encode_rows(self, rows: Sequence[dict[str, Any]]) -> Arrays:
        """The serving path: same arrays from plain dicts with exactly the encoder's fields. Raises: RowError."""
        numeric = np.empty((len(rows), len(self.numeric)), np.float32)
        categorical = np.empty((len(rows), len(self.categorical)), np.int64)
        with np.errstate(over="ignore"):  # once for all rows: entering costs as much as encoding ten values
            for i, row in enumerate(rows):
                if not self._encode_row(row, numeric[i], categorical[i]):
                    self._refuse(i, row)
        return numeric, categorical

    def to_json(self) -> bytes:
        """Canonical JSON, the content of encoder.json."""
        return canonical_json({"numeric": self.numeric, "categorical": self.categorical, "vocabulary": self.vocabulary})

    @classmethod
    def from_json(cls, data: bytes) -> "Encoder":
        """Inverse of `to_json`. Raises: ValueError for other keys."""
        raw = json.loads(data)
        if set(raw) != {"numeric", "categorical", "vocabulary"}:
            raise ValueError(f"encoder has keys {sorted(raw)}; allowed: categorical, numeric, vocabulary")
        vocabulary = {name: tuple(values) for name, values in raw["vocabulary"].items()}
        return cls(numeric=tuple(raw["numeric"]), categorical=tuple(raw["categorical"]), vocabulary=vocabulary)

    def _encode_row(
        self, row: dict[str, Any], numeric: npt.NDArray[np.float32], categorical: npt.NDArray[np.int64]
    ) -> bool:
        """Fast path; False sends the row to `_refuse`, which finds the words."""
        if type(row) is not dict or len(row) != len(self._fields):
            return False
        try:
            numbers = [row[name] for name in self.numeric]
            strings = [row[name] for name in self.categorical]
            if not (_NUMBER_TYPES.issuperset(map(type, numbers)) and _STRING_TYPES.issuperset(map(type, strings))):
                return False
            numeric[:] = np.array(numbers, np.float64)  # None becomes NaN
        except (KeyError, OverflowError):
            return False
        if np.count_nonzero(np.isfinite(numeric)) + numbers.count(None) != len(numbers):
            return False
        categorical[:] = [index.get(value, UNKNOWN) for index, value in zip(self._index, strings, strict=True)]
        return True

    def _refuse(self, i: int, row: Any) -> None:
        if not isinstance(row, dict):
            raise RowError(row=i, field="", value=row, allowed="an object", problem=f"is a {type(row).__name__}")
        for name in sorted(self._fields - row.keys()):
            raise RowError(row=i, field=name, value=None, allowed="every column present", problem="is missing")
        for name in row:
            if name not in self._fields:
                allowed = f"{sorted(self._fields)}"
                raise RowError(row=i, field=str(name), value=row[name], allowed=allowed, problem="is not a column")
        for name in self.numeric:
            _check_number(i, name, row[name])
        for name in self.categorical:
            if type(row[name]) not in _STRING_TYPES:
                problem = f"is a {type(row[name]).__name__}"
                raise RowError(row=i, field=name, value=row[name], allowed=_STRING, problem=problem)
        raise RowError(row=i, field="", value=row, allowed="a plain JSON object", problem=f"is a {type(row).__name__}")


def _check_number(i: int, name: str, value: Any) -> None:
    if type(value) not in _NUMBER_TYPES:
        raise RowError(row=i, field=name, value=value, allowed=_NUMBER, problem=f"is a {type(value).__name__}")
    if value is None:
        return
    try:
        with np.errstate(over="ignore"):
            is_finite = bool(np.isfinite(np.float32(float(value))))
    except OverflowError:
        is_finite = False
    if not is_finite:
        raise RowError(row=i, field=name, value=value, allowed=_NUMBER, problem="is not finite in float32")


def _frequent(table: pa.Table, name: str, min_count: int) -> tuple[str, ...]:
    counts = _strings(table, name).value_counts()
    pairs = zip(counts.field("values").to_pylist(), counts.field("counts").to_pylist(), strict=True)
    return tuple(sorted(value for value, count in pairs if value is not None and count >= min_count))


def _column(table: pa.Table, name: str) -> pa.ChunkedArray:
    if name not in table.column_names:
        raise RowError(row=0, field=name, value=None, allowed="every column present", problem="is missing")
    return table[name]


def _numbers(table: pa.Table, name: str) -> npt.NDArray[np.float32]:
    column = _column(table, name)
    if not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type)):
        raise RowError(row=0, field=name, value=None, allowed=_NUMBER, problem=f"is a {column.type} column")
    # Through float64, as a JSON number goes: an int64 straight to float32 could round once where the rows round twice.
    with np.errstate(over="ignore"):
        values: npt.NDArray[np.float32] = column.cast(pa.float64(), safe=False).to_numpy().astype(np.float32)
    wrong = ~np.isfinite(values) & column.is_valid().to_numpy()
    if wrong.any():
        row = int(np.argmax(wrong))
        raise RowError(
            row=row, field=name, value=column[row].as_py(), allowed=_NUMBER, problem="is not finite in float32"
        )
    return values


def _strings(table: pa.Table, name: str) -> pa.Array:
    column = _column(table, name)
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
        raise RowError(row=0, field=name, value=None, allowed=_STRING, problem=f"is a {column.type} column")
    return pa.concat_arrays(column.cast(pa.string()).chunks) if column.num_chunks else pa.array([], pa.string())
