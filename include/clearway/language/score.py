"""What a trained model says of a text: how many bits it needs for it, and how it goes on."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

from clearway.contracts.errors import DataError
from clearway.language.model import LanguageModel
from clearway.language.stream import documents_of
from clearway.language.tokens import MARK, Tokens, text_of, tokens_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Surprise:
    """Of one text. `bits`: minus the base-2 logarithm of its probability, its end included; it has `num_bytes`."""

    bits: float
    num_bytes: int

    @property
    def bits_per_byte(self) -> float:
        """Comparable between models whatever their tokens are."""
        return self.bits / self.num_bytes


def surprises(model: LanguageModel, texts: Sequence[str], *, batch_size: int) -> list[Surprise]:
    """Bits of each text. A text longer than the context is cut: each piece is predicted from its own beginning on.

    Raises: DataError for an empty text, or a model that gives anything but finite numbers.
    """
    pieces = [(number, piece) for number, text in enumerate(texts) for piece in _pieces(model, number, text)]
    # Long beside long: least padding.
    pieces.sort(key=lambda found: len(found[1]))
    nats = np.zeros(len(texts))
    for start in range(0, len(pieces), batch_size):
        chosen = pieces[start : start + batch_size]
        for (number, _), lost in zip(chosen, _nats(model, [piece for _, piece in chosen]), strict=True):
            nats[number] += lost
    if not np.isfinite(nats).all():
        raise DataError(f"text {int(np.argmin(np.isfinite(nats)))} has a probability that is no number; train again")
    return [
        Surprise(bits=float(lost) / math.log(2), num_bytes=len(text.encode()))
        for text, lost in zip(texts, nats, strict=True)
    ]


def continuation(model: LanguageModel, text: str, *, max_bytes: int) -> str:
    """The likeliest next byte, again and again, until the text ends or `max_bytes` are there."""
    tokens = tokens_of(text)
    begun = len(tokens)
    while len(tokens) - begun < max_bytes:
        likeliest = int(np.argmax(next_byte(model, tokens)))
        if likeliest == MARK:
            break
        tokens = np.append(tokens, np.uint16(likeliest))
    return text_of(tokens[begun:])


def next_byte(model: LanguageModel, tokens: Tokens) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    """Probability of every token after these, of which the newest that fit the context are looked at. [V]"""
    seen = tokens[-model.shape.context_length :].astype(np.int64)[None]
    with torch.no_grad():
        logits = model(*_inputs(seen))[0, -1].float()
    probability: np.ndarray[tuple[int], np.dtype[np.float32]] = functional.softmax(logits, dim=-1).numpy()
    return probability


def _pieces(model: LanguageModel, number: int, text: str) -> list[Tokens]:
    if not text:
        raise DataError(f"text {number} is empty; nothing can be said of it, leave it out")
    tokens, length = np.append(tokens_of(text), np.uint16(MARK)), model.shape.context_length
    return [tokens[start : start + length + 1] for start in range(0, len(tokens) - 1, length)]


def _nats(model: LanguageModel, pieces: Sequence[Tokens]) -> list[float]:
    """Minus the natural logarithm of each piece's probability, given its first token."""
    longest = max(len(piece) for piece in pieces)
    padded = np.full((len(pieces), longest), MARK, np.int64)
    counts = np.zeros((len(pieces), longest - 1), np.float32)
    for row, (line, piece) in enumerate(zip(padded, pieces, strict=True)):
        line[: len(piece)] = piece
        counts[row, : len(piece) - 1] = 1
    with torch.no_grad():
        logits = model(*_inputs(padded[:, :-1])).float()
        lost = functional.cross_entropy(
            logits.flatten(0, 1), torch.from_numpy(padded[:, 1:].flatten()), reduction="none"
        )
    return [float(value) for value in (lost.view(counts.shape) * torch.from_numpy(counts)).sum(dim=1)]


def _inputs(tokens: np.ndarray[tuple[int, int], np.dtype[np.int64]]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    positions, documents = documents_of(tokens)
    return torch.from_numpy(tokens), torch.from_numpy(positions), torch.from_numpy(documents)
