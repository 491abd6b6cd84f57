"""A long row of tokens in files that are mapped, not read: what is cut from it is a function of a number.

Letters: B sequences, S tokens of each.
"""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

import numpy as np
import numpy.typing as npt

from clearway.contracts.errors import DataError
from clearway.language.tokens import MARK, STORED, Tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenStream:
    """Shards one after the other, as one row of tokens. `starts`: where each shard begins, and where the last ends."""

    shards: tuple[Tokens, ...]
    starts: tuple[int, ...]

    @classmethod
    def of(cls, shards: Sequence[Tokens]) -> "TokenStream":
        """A stream of arrays in memory or mapped. Raises: DataError if one does not begin with a document."""
        for number, shard in enumerate(shards):
            if not len(shard) or shard[0] != MARK:
                first = shard[0] if len(shard) else "nothing"
                raise DataError(
                    f"token shard {number} begins with {first}, not with mark {MARK}; make the shards again"
                )
        return cls(shards=tuple(shards), starts=(0, *accumulate(len(shard) for shard in shards)))

    @classmethod
    def open(cls, paths: Sequence[Path], lengths: Sequence[int] | None = None) -> "TokenStream":
        """Map files of STORED tokens, whole or the first `lengths` tokens of each.

        Raises: DataError for an empty file, one that is no row of tokens, or a length that is not a document's end.
        """
        for path in paths:
            num_bytes = path.stat().st_size
            if not num_bytes or num_bytes % STORED.itemsize:
                raise DataError(f"token shard {path} has {num_bytes} bytes; allowed: a multiple of {STORED.itemsize}")
        mapped = [np.memmap(path, STORED, mode="r") for path in paths]
        if lengths is None:
            return cls.of(mapped)
        for path, shard, length in zip(paths, mapped, lengths, strict=True):
            if length > len(shard) or (length < len(shard) and shard[length] != MARK):
                raise DataError(
                    f"token shard {path} of {len(shard)} tokens has no document that ends at {length}, as its rows "
                    "say; make the shards again"
                )
        return cls.of([shard[:length] for shard, length in zip(mapped, lengths, strict=True)])

    def __len__(self) -> int:
        return self.starts[-1]

    def read(self, start: int, stop: int) -> Tokens:
        """Tokens [start, stop), across shards where they meet."""
        parts = []
        number = bisect_right(self.starts, start) - 1
        while start < stop:
            offset = self.starts[number]
            end = min(stop, self.starts[number + 1])
            parts.append(self.shards[number][start - offset : end - offset])
            start, number = end, number + 1
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def num_windows(self, length: int) -> int:
        """Sequences of `length` tokens that each still have a next token to predict; the rest at the end is left out.

        Raises: DataError if there is not even one.
        """
        found = (len(self) - 1) // length
        if found < 1:
            raise DataError(
                f"{len(self)} tokens do not fill one sequence of {length} and its next token; use more text, "
                "or a shorter context_length"
            )
        return found

    def windows(self, index: npt.NDArray[np.int64], length: int) -> npt.NDArray[np.int64]:
        """The windows of these numbers, each with the token after it. int64 [B, S + 1]"""
        found = np.empty((len(index), length + 1), np.int64)
        for row, number in zip(found, index.tolist(), strict=True):
            row[:] = self.read(number * length, number * length + length + 1)
        return found


def documents_of(tokens_BS: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """(position of each token in its document, number of the document in its sequence), both [B, S].

    A sequence that begins in the middle of a document counts from there: only distances matter to the model.
    """
    is_mark = tokens_BS == MARK
    place = np.arange(tokens_BS.shape[1])
    begun = np.maximum.accumulate(np.where(is_mark, place, 0), axis=1)
    return place - begun, np.cumsum(is_mark, axis=1)
