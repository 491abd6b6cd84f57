"""A language model against a compressor and the champion, on later documents that it never saw."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from clearway.contracts.codec import from_jsonable, to_jsonable
from clearway.contracts.verdict import Check, Judgement
from clearway.evaluate.compressor import DICTIONARY_FILE, Compressor
from clearway.evaluate.evidence import CANDIDATE, CHAMPION
from clearway.evaluate.judging import first_unseen_day, unseen_check
from clearway.evaluate.kinds import Case, Frame
from clearway.evaluate.language_evidence import COMPRESSOR, TextEvidence, Texts, gather
from clearway.evaluate.language_gates import MIN_BLOCKS, SLICE_ROOM, TOLERATED_SHARE, TextCase, judge_texts
from clearway.evaluate.language_report import render
from clearway.evaluate.language_yardstick import TextYardstick, drawn
from clearway.evaluate.yardsticks import days_of, seeded, slice_values
from clearway.infra.datasets import DAY
from clearway.kinds.scorers import open_scorer
from clearway.language.documents import Documents, read_documents
from clearway.packaging.package import Package


class LanguageJudge:
    """A `kinds.Judge`."""

    def __init__(self, case: Case) -> None:
        self._case = case
        self._documents: Documents | None = None

    @property
    def latency_ms(self) -> float:
        return self._case.ground.product.spec.language.gates.latency_ms

    def read(self) -> None:
        ground = self._case.ground
        self._documents = read_documents(ground.storage, ground.dataset, product=ground.product, env=ground.env)

    def judge(self, operational: Callable[[], Sequence[Check]]) -> "LanguageFound":
        case, ground, documents = self._case, self._case.ground, self._documents
        assert documents is not None, "read comes first"
        parts = ground.product.spec.language
        evidence = gather(
            self._scored(documents),
            num_resamples=parts.gates.num_resamples,
            confidence=parts.gates.confidence,
            min_blocks=MIN_BLOCKS,
            min_slice=parts.gates.min_slice_documents,
            make_rng=seeded(ground.dataset.digest),
        )
        gated = TextCase(
            evidence=evidence,
            gates=parts.gates,
            has_champion=case.champion is not None,
            schema=tuple(case.candidate.schema["order"]),
            text=parts.text,
        )
        extra = [unseen_check(case.candidate, documents.holdout_start), *operational()]
        return LanguageFound(
            evidence_found=evidence,
            margin=gated.margin,
            judgement=judge_texts(gated, extra),
            dictionary=Compressor.after(documents.train[parts.text].to_pylist()).dictionary,
        )

    def _scored(self, documents: Documents) -> Texts:
        case, product = self._case, self._case.ground.product.spec
        parts, judged = product.language, drawn(documents, case.ground)
        champion = case.champion if case.champion and case.champion.kind == case.candidate.kind else None
        texts = judged[parts.text].to_pylist()
        scores = {CANDIDATE: _score(case.candidate, judged)}
        if champion is not None:
            scores[CHAMPION] = _score(champion, judged)
        scores[COMPRESSOR] = np.array(from_jsonable(TextYardstick, dict(case.yardsticks)).bits_per_byte)
        days = days_of(judged)
        block = parts.gates.block
        named = judged[block] if block else judged[DAY].cast(pa.string())
        return Texts(
            num_bytes=np.array([len(text.encode()) for text in texts], dtype=np.float64),
            blocks=named.to_numpy(zero_copy_only=False),
            slices=slice_values(judged, product.features.slices),
            scores=scores,
            is_new_to_champion=None if champion is None else days >= first_unseen_day(champion),
            num_repeated=documents.num_repeated,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class LanguageFound:
    """A `kinds.Found`. `dictionary`: what the compressor has read; the account of a run asks it about later texts."""

    evidence_found: TextEvidence
    margin: float
    judgement: Judgement
    dictionary: bytes

    def evidence(self) -> Mapping[str, Any]:
        thresholds = {"margin": self.margin, "tolerated_share": TOLERATED_SHARE, "slice_room": SLICE_ROOM}
        return {"evidence": to_jsonable(self.evidence_found), "thresholds": thresholds}

    def page(self, frame: Frame) -> bytes:
        return render(self.evidence_found, self.judgement, margin=self.margin, frame=frame)

    def files(self) -> Mapping[str, bytes]:
        return {DICTIONARY_FILE: self.dictionary}


def _score(package: Package, table: pa.Table) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """With one thread, as where it is served: the evaluation's digest does not follow the machine's cores."""
    return open_scorer(package).score_table(table).astype(np.float64)
