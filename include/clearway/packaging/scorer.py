"""What a loaded model offers, whatever its kind: rows in, one number per row out. A server knows no more of it."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import pyarrow as pa


class RowEncoder(Protocol):
    """From rows to what a network takes; it knows the columns, and has the words for a row that is not acceptable."""

    @property
    def kind(self) -> str:
        """Kind of the models that take what it makes, as product.yaml names it."""
        ...

    @property
    def numeric(self) -> tuple[str, ...]:
        """Columns of numbers."""
        ...

    @property
    def categorical(self) -> tuple[str, ...]:
        """Columns of strings."""
        ...

    @property
    def vocabulary(self) -> Mapping[str, tuple[str, ...]]:
        """By column of strings, the values it knows one by one; () where every text is as good as another."""
        ...

    def json_schema(self) -> dict[str, Any]:
        """JSON Schema of one row, for the server's description of itself."""
        ...

    def encode_rows(self, rows: Sequence[dict[str, Any]]) -> tuple[Any, ...]:
        """Arguments of `Scorer.score`, from plain dicts. Raises: RowError."""
        ...

    def encode_table(self, table: "pa.Table") -> tuple[Any, ...]:
        """The same from a table that has at least the columns. Raises: RowError."""
        ...

    def to_json(self) -> bytes:
        """Canonical JSON, the content of encoder.json."""
        ...


class Scorer(Protocol):
    """One loaded model. `kinds.scorers.open_scorer` makes it."""

    digest: str

    @property
    def encoder(self) -> RowEncoder:
        """Of its package."""
        ...

    @property
    def is_quick(self) -> bool:
        """Whether a few rows take so little that they are scored on the server's event loop, and together with those of
        other requests. Otherwise every request is scored by itself, in a thread."""
        ...

    def score(self, *encoded: Any) -> npt.NDArray[np.floating]:
        """One number per encoded row. [B] Raises: DataError if the model answers with anything but finite numbers."""
        ...

    def score_rows(self, rows: Sequence[dict[str, Any]]) -> npt.NDArray[np.floating]:
        """Scores of plain dicts, as a request carries them. [B] Raises: RowError, DataError."""
        ...

    def score_table(self, table: "pa.Table") -> npt.NDArray[np.floating]:
        """Scores of a table that has at least the model's columns. [B] Raises: RowError, DataError."""
        ...
