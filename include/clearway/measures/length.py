"""How long the texts of a batch are, beside held-out ones; their tokens cannot tell, which weigh every text alike.

Two questions. Are they longer or shorter: a distance of histograms in doublings, with a limit drawn from held-out
blocks, since texts of one service (or day) are akin. Were they cut: then many end where the longest one does.

Shapes: N texts, H held-out blocks, B bins, K blocks of the batch, R draws.
"""

# ruff: noqa: N803, N806 - shape letters in names

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from clearway.measures.bins import NUMERIC, Bins, Floats, Ints, bin_rule, count_rows
from clearway.measures.by_chance import limit_by_chance
from clearway.measures.wasserstein import wasserstein

# Where a package's reference holds it, beside what held-out texts cost.
LENGTHS = "lengths"
# A hundredth of a doubling is not worth a word, however alike held-out texts are.
LIMIT_FLOOR = 0.01
# Of the longest text: where a cut falls into a character of UTF-8, up to three bytes are lost as well.
CHARACTER_BYTES = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldLengths:
    """Held-out texts: log2 of their bytes in bins, per block, and the share that is as long as the longest.

    Args:
        edges: inner ones, at the deciles of all of them.
        counts, sums: texts, and their logarithms. [H, B]
    """

    edges: tuple[float, ...]
    counts: Floats
    sums: Floats
    share_longest: float

    def to_json(self) -> dict[str, Any]:
        """As a package carries it."""
        return {
            "edges": list(self.edges),  # every digit: they lie at values, which would change their bin
            "counts": self.counts.astype(np.int64).tolist(),
            "sums": [[float(f"{value:.9g}") for value in row] for row in self.sums],
            "share_longest": self.share_longest,
        }

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> "HeldLengths":
        """Inverse of `to_json`."""
        return cls(
            edges=tuple(map(float, raw["edges"])),
            counts=np.asarray(raw["counts"], dtype=np.float64),
            sums=np.asarray(raw["sums"], dtype=np.float64),
            share_longest=float(raw["share_longest"]),
        )

    @property
    def total(self) -> tuple[Floats, Floats]:
        """Texts and mean logarithm per bin, all blocks together. [B]"""
        counts = self.counts.sum(axis=0)
        return counts, _means(counts, self.sums.sum(axis=0))


def held_lengths(num_bytes_N: npt.ArrayLike, blocks: npt.ArrayLike) -> HeldLengths:
    """Of held-out texts, each of which has a byte."""
    num_bytes = np.asarray(num_bytes_N, dtype=np.int64)
    names, code_N = np.unique(np.asarray(blocks).astype(str), return_inverse=True)
    edges = bin_rule(_column(num_bytes), NUMERIC)["edges"]
    bins = _counted(num_bytes, edges, code_N, num_blocks=len(names))
    return HeldLengths(edges=tuple(edges), counts=bins.counts, sums=bins.sums, share_longest=share_longest(num_bytes))


def share_longest(num_bytes_N: npt.ArrayLike) -> float:
    """Share of texts that end where the longest does, within a character: of texts that were cut the share that was
    longer, of others about one in N."""
    num_bytes = np.asarray(num_bytes_N, dtype=np.int64)
    return float((num_bytes >= num_bytes.max() - CHARACTER_BYTES).mean())


def doublings(num_bytes_N: npt.ArrayLike, held: HeldLengths) -> float:
    """Distance of a batch's lengths from held-out ones: Wasserstein of log2 of bytes. A batch of texts twice as long as
    those is 1 away, one of halves as well. Every text has a byte."""
    num_bytes = np.asarray(num_bytes_N, dtype=np.int64)
    bins = _counted(num_bytes, held.edges, np.zeros(num_bytes.size, dtype=np.int64), num_blocks=1)
    return wasserstein(*held.total, bins.counts[0], bins.means)


def usual_doublings(held: HeldLengths, *, num_blocks: int) -> float | None:
    """How far a batch of so many blocks lies away by chance if it is like the held-out ones; None where too few blocks
    were held out."""

    def apart(batch_RH: Floats, held_RH: Floats) -> Floats:
        return np.array([_between(held, now_H, then_H) for now_H, then_H in zip(batch_RH, held_RH, strict=True)])

    return limit_by_chance(apart, num_held=len(held.counts), num_blocks=num_blocks, floor=LIMIT_FLOOR)


def _between(held: HeldLengths, now_H: Floats, then_H: Floats) -> float:
    (now, now_sums), (then, then_sums) = ((times_H @ held.counts, times_H @ held.sums) for times_H in (now_H, then_H))
    return wasserstein(then, _means(then, then_sums), now, _means(now, now_sums))


def _means(counts_B: Floats, sums_B: Floats) -> Floats:
    return Bins(counts=counts_B[None], sums=sums_B[None], missing=np.zeros(1)).means


def _counted(num_bytes_N: Ints, edges: Any, code_N: Ints, *, num_blocks: int) -> Bins:
    return count_rows(_column(num_bytes_N), {"kind": NUMERIC, "edges": edges}, code_N, num_batches=num_blocks)


def _column(num_bytes_N: Ints) -> pa.ChunkedArray:
    return pa.chunked_array([pa.array(np.log2(num_bytes_N), pa.float64())])
