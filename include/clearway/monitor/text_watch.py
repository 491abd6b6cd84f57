"""A language model is judged on the batch itself: a text is its own label, so its loss is known with the answer."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc

from clearway.infra.datasets import DAY, KEY
from clearway.measures.length import LENGTHS, HeldLengths, doublings, share_longest, usual_doublings
from clearway.measures.surprise import HELD_OUT, HeldOut, cost, usual_excess
from clearway.monitor.carried import Arrived
from clearway.monitor.drift import THINNED_BY
from clearway.monitor.kinds import Case, Judged
from clearway.monitor.length_part import LengthPart
from clearway.monitor.surprise_part import Surprise, SurprisePart
from clearway.packaging.text import TextEncoder, beginning

# Texts of a hundred kilobytes are 200 MB then; of the usual ones some megabytes.
ROWS_PER_PIECE = 2_048


@dataclass(frozen=True, slots=True, kw_only=True)
class _Texts:
    """The batch's rows, without their texts: bytes of each as it came and as sent, its block, the champion's answer or
    NaN. [N]"""

    whole_bytes: npt.NDArray[np.int64]
    num_bytes: npt.NDArray[np.int64]
    blocks: npt.NDArray[np.object_]
    scores: npt.NDArray[np.float64]
    num_cut: int

    @property
    def is_judged(self) -> npt.NDArray[np.bool_]:
        return np.isfinite(self.scores) & (self.num_bytes > 0)


class TextWatch:
    """A `kinds.Watched`."""

    rows_per_piece = ROWS_PER_PIECE

    def judged(self, case: Case) -> Judged:
        texts = _texts(case)
        is_judged = texts.is_judged
        num_empty = int((texts.num_bytes == 0).sum())
        measured, reason = _measured(case, texts)
        part = SurprisePart(
            num_documents=len(texts.num_bytes),
            num_empty=num_empty,
            num_cut=texts.num_cut,
            num_unanswered=int((~is_judged).sum()) - num_empty,
            num_judged=int(is_judged.sum()),
            num_bytes=int(texts.num_bytes[is_judged].sum()),
            measured=measured,
            reason=reason,
        )
        length = _length(case, texts)
        arrived = Arrived(labels=None, scores=None, num_rows=part.num_judged if part.over is not None else 0)
        faults = (*_faults(case, part), *_cut(length))
        return Judged(performance=None, surprise=part, length=length, arrived=arrived, faults=faults)


def _texts(case: Case) -> _Texts:
    """Every row of the batch, a piece at a time."""
    parts = case.product.spec.language
    block, max_bytes = parts.gates.block or DAY, _max_bytes(case)
    answers = dict(zip(case.served["key"].to_pylist(), case.served["score"].to_pylist(), strict=True))
    whole, num_bytes, blocks, scores, num_cut = list[int](), list[int](), list[str](), list[float](), 0
    for piece in case.batch.pieces(columns=list(dict.fromkeys([KEY, parts.text, block]))):
        lengths = pc.fill_null(pc.binary_length(piece[parts.text]), 0).to_numpy().copy()
        whole += lengths.tolist()
        for place in np.flatnonzero(lengths > max_bytes).tolist():
            lengths[place] = len(beginning(piece[parts.text][place].as_py(), max_bytes).encode())
            num_cut += 1
        num_bytes += lengths.tolist()
        blocks += [str(value) for value in piece[block].to_pylist()]
        scores += [answers.get(key, np.nan) for key in piece[KEY].to_pylist()]
    return _Texts(
        whole_bytes=np.asarray(whole, dtype=np.int64),
        num_bytes=np.asarray(num_bytes, dtype=np.int64),
        blocks=np.asarray(blocks, dtype=object),
        scores=np.asarray(scores, dtype=np.float64),
        num_cut=num_cut,
    )


def _max_bytes(case: Case) -> int:
    """Of a text, as the champion takes it; before there is one as the next model will."""
    encoder = case.champion.encoder if case.champion else None
    return encoder.max_bytes if isinstance(encoder, TextEncoder) else case.product.spec.language.model.max_text_bytes


def _measured(case: Case, texts: _Texts) -> tuple[Surprise | None, str]:
    """What the champion's texts cost, or None and why not."""
    is_judged, min_rows = texts.is_judged, case.product.spec.monitor.min_rows
    if case.champion is None:
        return None, "no champion serves"
    raw = case.champion.reference.get(HELD_OUT)
    if raw is None:
        return None, f"package {case.champion.digest} does not say what held-out texts cost; release a model anew"
    if is_judged.sum() < min_rows:
        return None, f"the champion answered for {is_judged.sum()} texts, at least {min_rows} are needed"
    held = HeldOut.from_json(raw)
    found = cost(texts.scores[is_judged], texts.num_bytes[is_judged], texts.blocks[is_judged])
    limit = usual_excess(held, num_blocks=found.num_blocks)
    surprise = Surprise(
        bits_per_byte=found.bits_per_byte,
        lower=found.lower,
        upper=found.upper,
        block=case.product.spec.language.gates.block or DAY,
        num_blocks=found.num_blocks,
        held_bits_per_byte=held.bits_per_byte,
        num_held_blocks=len(held.bits),
        limit=limit,
    )
    return surprise, ""


def _length(case: Case, texts: _Texts) -> LengthPart | None:
    """Of texts as they came, whoever answered; None without a champion, or one whose package does not say."""
    raw = (case.champion.reference if case.champion else {}).get(HELD_OUT, {}).get(LENGTHS)
    told = texts.whole_bytes > 0
    if raw is None or told.sum() < case.product.spec.monitor.min_rows:
        return None
    held, num_bytes = HeldLengths.from_json(raw), texts.whole_bytes[told]
    num_blocks = len(set(texts.blocks[told].tolist()))
    return LengthPart(
        num_texts=len(num_bytes),
        doublings=doublings(num_bytes, held),
        limit=usual_doublings(held, num_blocks=num_blocks),
        num_blocks=num_blocks,
        num_held_blocks=len(held.counts),
        longest=int(num_bytes.max()),
        num_longest=round(share_longest(num_bytes) * len(num_bytes)),
        held_share_longest=held.share_longest,
    )


def _cut(part: LengthPart | None) -> Iterator[str]:
    """Texts that were cut are an outage of their source: what is left may well be read at the usual cost."""
    if part is not None and part.is_cut:
        yield (
            f"{part.num_longest} of {part.num_texts} texts end at {part.longest} bytes, where the longest does, of "
            f"held-out ones {part.held_share_longest:.1%} did: they look cut; look at their source"
        )


def _faults(case: Case, part: SurprisePart) -> Iterator[str]:
    """Texts that are empty are an outage of their source; they cost nothing, so no loss would show it."""
    usual = _usual_empty(case.champion.reference if case.champion else {})
    if part.num_documents and part.num_empty / part.num_documents - usual > THINNED_BY:
        seen = f"{part.num_empty} of {part.num_documents} texts are empty"
        yield f"{seen}, in training {usual:.1%} were; look at their source"


def _usual_empty(reference: dict[str, Any]) -> float:
    return float(reference.get(HELD_OUT, {}).get("share_empty", 0.0))
