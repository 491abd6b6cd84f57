"""Tokens are the bytes of UTF-8, and one mark that stands before every document. Nothing to train, nothing unknown.

In a stream of documents the mark after a document is also its end: what a model has to predict after the last byte.
"""

import numpy as np
import numpy.typing as npt

MARK = 256
VOCAB_SIZE = 257
# As stored: little-endian, two bytes each; room for 65,536 tokens.
STORED = np.dtype("<u2")

Tokens = npt.NDArray[np.uint16]


def tokens_of(text: str) -> Tokens:
    """A document: the mark, then its bytes."""
    data = np.frombuffer(text.encode(), np.uint8)
    return np.concatenate([np.array([MARK], np.uint16), data.astype(np.uint16)])


def text_of(tokens: npt.NDArray[np.integer]) -> str:
    """The bytes as text; marks are left out, and bytes that are no UTF-8 become U+FFFD."""
    return tokens[tokens < MARK].astype(np.uint8).tobytes().decode(errors="replace")
