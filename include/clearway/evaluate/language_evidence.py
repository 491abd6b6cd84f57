"""What was measured on held-out documents: bits per byte of every model on the same texts. Pure.

A mean over documents is weighted by their bytes: it is then the size of all of them together over their length, and
the same however the text is cut into documents. Shapes: N documents.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from clearway.evaluate.evidence import CANDIDATE, CHAMPION, fair_rows
from clearway.measures.resample import Interval, mean_difference

COMPRESSOR = "compressor"
Array = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Texts:
    """Held-out documents no model under judgement may have been trained on.

    Args:
        num_bytes: [N]. blocks: what is resampled whole [N]. slices: column → values [N].
        scores: model → bits per byte [N].
        is_new_to_champion: documents the champion was not trained on [N]; None without a champion to compare with.
        num_repeated: held-out documents that were left out, since they stand in the training part.
    """

    num_bytes: Array
    blocks: npt.NDArray[np.object_]
    slices: Mapping[str, npt.NDArray[np.object_]]
    scores: Mapping[str, Array]
    is_new_to_champion: npt.NDArray[np.bool_] | None
    num_repeated: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TextComparison:
    """Candidate minus `other` on the documents both may be judged on, bits per byte; above zero is worse.

    Args:
        bits_other, bits_compressor: on the same documents.
    """

    other: str
    num_documents: int
    bits_other: float
    bits_compressor: float
    difference: Interval


@dataclass(frozen=True, slots=True, kw_only=True)
class TextSlice:
    """One group. `over_*`: candidate minus that other, bits per byte; None without a champion. `is_gated`: large
    enough to count."""

    name: str
    num_documents: int
    num_bytes: int
    bits: float
    over_compressor: float
    over_champion: float | None
    is_gated: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class TextEvidence:
    """Everything the gates read. `bits`: per byte, by model."""

    num_documents: int
    num_bytes: int
    num_repeated: int
    num_blocks: int
    bits: dict[str, float]
    comparisons: dict[str, TextComparison]
    slices: tuple[TextSlice, ...]


def gather(
    texts: Texts,
    *,
    num_resamples: int,
    confidence: float,
    min_blocks: int,
    min_slice: int,
    make_rng: Callable[[str], np.random.Generator],
) -> TextEvidence:
    """Measure every model and every pair; a champion that knows too many documents is left out.

    Raises: Unmeasurable.
    """
    comparisons = {}
    for other in (name for name in texts.scores if name != CANDIDATE):
        is_used = fair_rows(other, texts.is_new_to_champion, num_rows=texts.num_bytes.size)
        if np.unique(texts.blocks[is_used]).size < min_blocks:
            continue
        weights = texts.num_bytes[is_used]
        difference = mean_difference(
            texts.scores[CANDIDATE][is_used],
            texts.scores[other][is_used],
            texts.blocks[is_used],
            num_resamples=num_resamples,
            confidence=confidence,
            rng=make_rng(f"against {other}"),
            weights=weights,
        )
        comparisons[other] = TextComparison(
            other=other,
            num_documents=int(is_used.sum()),
            bits_other=_mean(texts.scores[other][is_used], weights),
            bits_compressor=_mean(texts.scores[COMPRESSOR][is_used], weights),
            difference=difference,
        )
    return TextEvidence(
        num_documents=texts.num_bytes.size,
        num_bytes=int(texts.num_bytes.sum()),
        num_repeated=texts.num_repeated,
        num_blocks=int(np.unique(texts.blocks).size),
        bits={name: _mean(scores, texts.num_bytes) for name, scores in texts.scores.items()},
        comparisons=comparisons,
        slices=tuple(_slices(texts, has_champion=CHAMPION in comparisons, min_slice=min_slice)),
    )


def _slices(texts: Texts, *, has_champion: bool, min_slice: int) -> list[TextSlice]:
    found = []
    for column, values in texts.slices.items():
        for value in sorted(set(values)):
            is_in = values == value
            weights = texts.num_bytes[is_in]
            bits = {name: _mean(scores[is_in], weights) for name, scores in texts.scores.items()}
            found.append(
                TextSlice(
                    name=f"{column}={value}",
                    num_documents=int(is_in.sum()),
                    num_bytes=int(weights.sum()),
                    bits=bits[CANDIDATE],
                    over_compressor=bits[CANDIDATE] - bits[COMPRESSOR],
                    over_champion=bits[CANDIDATE] - bits[CHAMPION] if has_champion else None,
                    is_gated=int(is_in.sum()) >= min_slice,
                )
            )
    return found


def _mean(scores: Array, num_bytes: Array) -> float:
    return float(np.average(scores, weights=num_bytes))
