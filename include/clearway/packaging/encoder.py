"""Rows to the two arrays a model eats, by one definition for training tables and for served requests.

Shapes: B rows, N numeric columns, C categorical columns. Both paths give the same bits, see the tests. A missing number
is null in the input and NaN in the result; a NaN in the input is refused, since NaN is never a number.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, cycle
from operator import itemgetter
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from clearway.contracts.manifest import canonical_json

if TYPE_CHECKING:
    import pyarrow as pa

Arrays = tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]
_Take = Callable[[dict[str, Any]], tuple[Any, ...]]

TABULAR = "tabular"
UNKNOWN = 0  # category index of a missing value and of any value the training data did not hold often enough
_NUMBER_TYPES = frozenset((int, float, type(None)))
_STRING_TYPES = frozenset((str, type(None)))
NUMBER = "a finite number within float32, or null"
STRING = "a string, or null"
_MAX_SHOWN_VALUES = 20  # of a vocabulary; a list of 4,000 tail numbers helps nobody


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
    _numbers_of: _Take = field(init=False, repr=False, compare=False)
    _strings_of: _Take = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        names = (*self.numeric, *self.categorical)
        if len(set(names)) != len(names) or set(self.vocabulary) != set(self.categorical):
            raise ValueError(
                f"columns {names} must be unique and vocabulary {sorted(self.vocabulary)} must cover {self.categorical}"
            )
        index = tuple({v: i + 1 for i, v in enumerate(self.vocabulary[c])} for c in self.categorical)
        object.__setattr__(self, "_fields", frozenset(names))
        object.__setattr__(self, "_index", index)
        object.__setattr__(self, "_numbers_of", _take(self.numeric))
        object.__setattr__(self, "_strings_of", _take(self.categorical))

    @classmethod
    def fit(cls, table: "pa.Table", *, numeric: Sequence[str], categorical: Sequence[str], min_count: int) -> "Encoder":
        """Learn the vocabularies: values seen at least `min_count` times, in sorted order."""
        from clearway.packaging.columns import frequent  # noqa: PLC0415 - Arrow, half of the server's start

        vocabulary = {name: frequent(table, name, min_count) for name in categorical}
        return cls(numeric=tuple(numeric), categorical=tuple(categorical), vocabulary=vocabulary)

    @property
    def kind(self) -> str:
        """Kind of the models that take what it makes, as product.yaml names it."""
        return TABULAR

    @property
    def cardinalities(self) -> tuple[int, ...]:
        """Number of indices per categorical column, the unknown one included. [C]"""
        return tuple(len(self.vocabulary[c]) + 1 for c in self.categorical)

    def encode_table(self, table: "pa.Table") -> Arrays:
        """(float32 [B, N] with NaN for missing, int64 [B, C]); other columns are ignored. Raises: RowError."""
        from clearway.packaging.columns import numbers, places  # noqa: PLC0415 - as above

        numeric = np.empty((len(table), len(self.numeric)), np.float32)
        for i, name in enumerate(self.numeric):
            numeric[:, i] = numbers(table, name)
        categorical = np.empty((len(table), len(self.categorical)), np.int64)
        for i, name in enumerate(self.categorical):
            categorical[:, i] = places(table, name, self.vocabulary[name]) + 1
        return numeric, categorical

    def encode_rows(self, rows: Sequence[dict[str, Any]]) -> Arrays:
        """The serving path: same arrays from plain dicts with exactly the encoder's fields. Raises: RowError."""
        found = self._encode_together(rows)
        if found is not None:
            return found
        for i, row in enumerate(rows):
            if self._encode_together([row]) is None:
                self._refuse(i, row)
        raise AssertionError("rows that are taken one by one are taken together")

    def json_schema(self) -> dict[str, Any]:
        """JSON Schema of one row."""
        columns: dict[str, Any] = {name: {"type": ["number", "null"]} for name in self.numeric}
        for name in self.categorical:
            known = list(self.vocabulary[name][:_MAX_SHOWN_VALUES])
            columns[name] = {"type": ["string", "null"], "examples": known}
        return {"type": "object", "additionalProperties": False, "required": list(columns), "properties": columns}

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

    def _encode_together(self, rows: Sequence[Any]) -> Arrays | None:
        """All rows by the same few calls, which cost more than the values of one row; None if any is unacceptable."""
        num_fields = len(self._fields)
        if not all(type(row) is dict and len(row) == num_fields for row in rows):
            return None
        try:
            numbers = list(chain.from_iterable(map(self._numbers_of, rows)))
            strings = list(chain.from_iterable(map(self._strings_of, rows)))
            if not (_NUMBER_TYPES.issuperset(map(type, numbers)) and _STRING_TYPES.issuperset(map(type, strings))):
                return None
            wide = np.array(numbers, np.float64)  # None becomes NaN
        except (KeyError, OverflowError):
            return None
        with np.errstate(over="ignore"):
            numeric = wide.astype(np.float32)
        if np.count_nonzero(np.isfinite(numeric)) + numbers.count(None) != len(numbers):
            return None
        indices = [index.get(value, UNKNOWN) for index, value in zip(cycle(self._index), strings, strict=False)]
        shape = len(rows), len(self.categorical)
        return numeric.reshape(len(rows), len(self.numeric)), np.array(indices, np.int64).reshape(shape)

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
                raise RowError(row=i, field=name, value=row[name], allowed=STRING, problem=problem)
        raise RowError(row=i, field="", value=row, allowed="a plain JSON object", problem=f"is a {type(row).__name__}")


def _take(names: tuple[str, ...]) -> _Take:
    """A row's values of these columns; `itemgetter` alone gives a tuple for two names or more only."""
    return itemgetter(*names) if len(names) > 1 else partial(_take_few, names)


def _take_few(names: tuple[str, ...], row: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(row[name] for name in names)


def _check_number(i: int, name: str, value: Any) -> None:
    if type(value) not in _NUMBER_TYPES:
        raise RowError(row=i, field=name, value=value, allowed=NUMBER, problem=f"is a {type(value).__name__}")
    if value is None:
        return
    try:
        with np.errstate(over="ignore"):
            is_finite = bool(np.isfinite(np.float32(float(value))))
    except OverflowError:
        is_finite = False
    if not is_finite:
        raise RowError(row=i, field=name, value=value, allowed=NUMBER, problem="is not finite in float32")
