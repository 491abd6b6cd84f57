"""How much dearer a batch of texts is to a model than held-out ones were, in bits per byte; no label is waited for.

A text is its own label, so the loss of a batch is known with its answers. What a batch may cost more is drawn from
texts that the model was not trained on: as many of their blocks as the batch has, again and again. Blocks, since texts
of one service (or day) are akin.

Shapes: N texts, H held-out blocks, K blocks of the batch, R draws.
"""

# ruff: noqa: N803, N806 - shape letters in names

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from clearway.contracts.errors import Unmeasurable
from clearway.measures.binary import Array
from clearway.measures.by_chance import CONFIDENCE, NUM_DRAWS, SEED, limit_by_chance
from clearway.measures.resample import mean_difference

# Where a package's reference holds it.
HELD_OUT = "held_out"
# With fewer blocks in a batch its texts are drawn one by one.
MIN_BLOCKS = 3
# A hundredth of a bit per byte is not worth a word, however alike held-out texts are.
LIMIT_FLOOR = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldOut:
    """What texts cost that the model was not trained on, per block. [H]"""

    bits: tuple[float, ...]
    num_bytes: tuple[int, ...]

    @property
    def bits_per_byte(self) -> float:
        """Of all of them together."""
        return sum(self.bits) / sum(self.num_bytes)

    def to_json(self) -> dict[str, Any]:
        """As a package carries it."""
        return {"bits": [float(f"{b:.9g}") for b in self.bits], "num_bytes": list(self.num_bytes)}

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> "HeldOut":
        """Inverse of `to_json`."""
        return cls(bits=tuple(map(float, raw["bits"])), num_bytes=tuple(map(int, raw["num_bytes"])))


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """A batch's bits per byte. `lower`, `upper`: 95 % together, blocks drawn anew, or texts where there are fewer than
    MIN_BLOCKS; None for a single text."""

    bits_per_byte: float
    lower: float | None
    upper: float | None
    num_blocks: int


def held_out(scores_N: npt.ArrayLike, num_bytes_N: npt.ArrayLike, blocks: npt.ArrayLike) -> HeldOut:
    """Sums per block, in the order of the blocks' names. `scores_N`: bits per byte; every text has a byte."""
    num_bytes = np.asarray(num_bytes_N, dtype=np.int64)
    bits = np.asarray(scores_N, dtype=np.float64) * num_bytes
    _, code_N = np.unique(np.asarray(blocks).astype(str), return_inverse=True)
    return HeldOut(
        bits=tuple(np.bincount(code_N, weights=bits).tolist()),
        num_bytes=tuple(np.bincount(code_N, weights=num_bytes).astype(np.int64).tolist()),
    )


def cost(scores_N: npt.ArrayLike, num_bytes_N: npt.ArrayLike, blocks: npt.ArrayLike) -> Cost:
    """Of a batch's texts. Raises: Unmeasurable for none."""
    scores, num_bytes = np.asarray(scores_N, dtype=np.float64), np.asarray(num_bytes_N, dtype=np.float64)
    if not scores.size or not np.isfinite(scores).all():
        raise Unmeasurable(f"{scores.size} scores are none or not finite; pass bits per byte of at least one text")
    names = np.asarray(blocks).astype(str)
    num_blocks = len(np.unique(names))
    drawn = names if num_blocks >= MIN_BLOCKS else np.arange(scores.size)
    value = float(np.average(scores, weights=num_bytes))
    if len(np.unique(drawn)) == 1:
        return Cost(bits_per_byte=value, lower=None, upper=None, num_blocks=num_blocks)
    found = mean_difference(
        scores,
        np.zeros(scores.size),
        drawn,
        num_resamples=NUM_DRAWS,
        confidence=CONFIDENCE,
        rng=np.random.default_rng(SEED),
        weights=num_bytes,
    )
    return Cost(bits_per_byte=value, lower=found.lower, upper=found.upper, num_blocks=num_blocks)


def usual_excess(held: HeldOut, *, num_blocks: int) -> float | None:
    """Bits per byte that a batch of so many blocks may cost more than all held-out texts if it is like them; None where
    too few blocks were held out."""
    bits_H, bytes_H = np.asarray(held.bits), np.asarray(held.num_bytes, dtype=np.float64)

    def dearer(batch_RH: Array, held_RH: Array) -> Array:
        more: Array = (batch_RH @ bits_H) / (batch_RH @ bytes_H) - (held_RH @ bits_H) / (held_RH @ bytes_H)
        return more

    return limit_by_chance(dearer, num_held=len(bits_H), num_blocks=num_blocks, floor=LIMIT_FLOOR)
