"""Rows of one text each, for models that read it: strict about what a text is and how long it may be."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

from clearway.contracts.manifest import canonical_json
from clearway.packaging.encoder import RowError

if TYPE_CHECKING:
    import pyarrow as pa

LANGUAGE = "language"
# Of all texts of one request together, in lengths of the longest text: what it costs is bounded, and many short texts
# still go in one request.
MAX_TEXTS = 8


def beginning(text: str, max_bytes: int) -> str:
    """As much of a text as a caller may send: whole characters of at most so many bytes of UTF-8."""
    data = text.encode()
    return text if len(data) <= max_bytes else data[:max_bytes].decode(errors="ignore")


@dataclass(frozen=True, slots=True, kw_only=True)
class TextEncoder:
    """`column`: holds the text. `max_bytes`: of UTF-8, longest text that is taken; all texts of a request together may
    have MAX_TEXTS times as many. A table, which no caller sends, is bounded by neither."""

    column: str
    max_bytes: int

    @property
    def kind(self) -> str:
        """As product.yaml names it."""
        return LANGUAGE

    @property
    def numeric(self) -> tuple[str, ...]:
        """There are none."""
        return ()

    @property
    def categorical(self) -> tuple[str, ...]:
        """Columns of strings."""
        return (self.column,)

    @property
    def vocabulary(self) -> Mapping[str, tuple[str, ...]]:
        """No text is known one by one."""
        return {self.column: ()}

    @property
    def allowed(self) -> str:
        """In words."""
        return f"a text of 1 to {self.max_bytes} bytes"

    def json_schema(self) -> dict[str, Any]:
        """JSON Schema of one row. A character may take up to four bytes, which JSON Schema cannot count."""
        text = {"type": "string", "minLength": 1, "maxLength": self.max_bytes, "description": self.allowed}
        columns = {self.column: text}
        return {"type": "object", "additionalProperties": False, "required": [self.column], "properties": columns}

    def encode_rows(self, rows: Sequence[dict[str, Any]]) -> tuple[list[str]]:
        """The texts, from dicts with exactly the one column. Raises: RowError."""
        texts, num_bytes = list[str](), 0
        for i, row in enumerate(rows):
            text = self._text(i, row)
            length = len(text.encode())
            num_bytes += length
            if not 1 <= length <= self.max_bytes:
                self._refuse(i, None, f"has {length} bytes")
            if num_bytes > MAX_TEXTS * self.max_bytes:
                most = f"{MAX_TEXTS * self.max_bytes} bytes of text in one request"
                raise RowError(
                    row=i, field=self.column, value=None, allowed=most, problem=f"is beyond them by {num_bytes}"
                )
            texts.append(text)
        return (texts,)

    def encode_table(self, table: "pa.Table") -> tuple[list[str]]:
        """The texts of a table. Raises: RowError if the column is absent, holds something else, or lacks a text."""
        if self.column not in table.column_names:
            self._refuse(0, None, "is missing")
        texts = table[self.column].to_pylist()
        for i, text in enumerate(texts):
            if not isinstance(text, str) or not text:
                self._refuse(i, text, "is empty" if text == "" else f"is a {type(text).__name__}")
        return (texts,)

    def to_json(self) -> bytes:
        """Canonical JSON, the content of encoder.json."""
        return canonical_json({"column": self.column, "max_bytes": self.max_bytes})

    @classmethod
    def from_json(cls, data: bytes) -> "TextEncoder":
        """Inverse of `to_json`. Raises: ValueError for other keys."""
        raw = json.loads(data)
        if set(raw) != {"column", "max_bytes"}:
            raise ValueError(f"encoder has keys {sorted(raw)}; allowed: column, max_bytes")
        return cls(**raw)

    def _text(self, i: int, row: Any) -> str:
        if not isinstance(row, dict):
            raise RowError(row=i, field="", value=row, allowed="an object", problem=f"is a {type(row).__name__}")
        if self.column not in row:
            self._refuse(i, None, "is missing")
        for name in row:
            if name != self.column:
                allowed = f"{[self.column]}"
                raise RowError(row=i, field=str(name), value=row[name], allowed=allowed, problem="is not a column")
        text = row[self.column]
        if type(text) is not str:
            self._refuse(i, text, f"is a {type(text).__name__}")
        return text

    def _refuse(self, i: int, value: object, problem: str) -> NoReturn:
        raise RowError(row=i, field=self.column, value=value, allowed=self.allowed, problem=problem)
