"""The yardstick of a language model: a compressor of the standard library that has read the training text.

DEFLATE (RFC 1951) with the newest training text as its dictionary, document by document, as the model scores them. Its
window is 32 KiB, so that is all it can have read, and all that has to be kept to ask it again.
"""

import zlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

# Its dictionary, written by the evaluate stage beside its evaluation.
DICTIONARY_FILE = "compressor.bin"
WINDOW_BYTES = 32_768
_RAW = -15  # no header, no checksum: not one bit that says nothing of the text


class Compressor:
    """`dictionary`: the text it has read, at most WINDOW_BYTES."""

    def __init__(self, dictionary: bytes) -> None:
        self.dictionary = dictionary
        self._primed = zlib.compressobj(9, zlib.DEFLATED, _RAW, 9, zlib.Z_DEFAULT_STRATEGY, dictionary)

    @classmethod
    def after(cls, training: Sequence[str]) -> "Compressor":
        """One that has read `training`: texts, oldest first; repetitions would only waste the window."""
        kept, size = list[bytes](), 0
        for text in dict.fromkeys(reversed(training)):
            if size > WINDOW_BYTES:
                break
            kept.append(text.encode())
            size += len(kept[-1]) + 1
        return cls(b"\n".join(reversed(kept))[-WINDOW_BYTES:])

    def bits_per_byte(self, texts: Sequence[str]) -> npt.NDArray[np.float64]:
        """Of each text, its end included. [B]"""
        return np.array([8 * self._size(data) / len(data) for data in (text.encode() for text in texts)])

    def _size(self, data: bytes) -> int:
        engine = self._primed.copy()
        return len(engine.compress(data)) + len(engine.flush())
