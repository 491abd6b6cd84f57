"""A language model against a compressor and the champion, on later documents that it never saw."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from clearway.contracts.codec import to_jsonable
from clearway.contracts.verdict import Check, Judgement
from clearway.evaluate.compressor import Compressor
from clearway.evaluate.evidence import CANDIDATE, CHAMPION
from clearway.evaluate.judging import first_unseen_day, unseen_check
from clearway.evaluate.kinds import Case, Frame
from clearway.evaluate.language_evidence import COMPRESSOR, TextEvidence, Texts, gather
from clearway.evaluate.language_gates import MIN_BLOCKS, SLICE_ROOM, TOLERATED_SHARE, TextCase, judge_texts
from clearway.evaluate.language_report import render
from clearway.evaluate.yardsticks import seeded, slice_values
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
        return self._case.product.spec.language.gates.latency_ms

    def read(self) -> None:
        case = self._case
        self._documents = read_documents(case.storage, case.dataset, product=case.product, env=case.env)

    def judge(self, operational: Callable[[], Sequence[Check]]) -> "LanguageFound":
        case, documents, parts = self._case, self._documents, self._case.product.spec.language
        assert documents is not None, "read comes first"
        make_rng = seeded(case.dataset.digest)
        judged = _drawn(documents.holdout, parts.gates.max_documents, make_rng("documents"))
        evidence = gather(
            self._scored(documents, judged),
            num_resamples=parts.gates.num_resamples,
            confidence=parts.gates.confidence,
            min_blocks=MIN_BLOCKS,
            min_slice=parts.gates.min_slice_documents,
            make_rng=make_rng,
        )
        gated = TextCase(
            evidence=evidence,
            gates=parts.gates,
            has_champion=case.champion is not None,
            schema=tuple(case.candidate.schema["order"]),
            text=parts.text,
        )
        extra = [unseen_check(case.candidate, documents.holdout_start), *operational()]
        return LanguageFound(evidence_found=evidence, margin=gated.margin, judgement=judge_texts(gated, extra))

    def _scored(self, documents: Documents, judged: pa.Table) -> Texts:
        case, parts = self._case, self._case.product.spec.language
        champion = case.champion if case.champion and case.champion.kind == case.candidate.kind else None
        texts = judged[parts.text].to_pylist()
        scores = {CANDIDATE: _score(case.candidate, judged)}
        if champion is not None:
            scores[CHAMPION] = _score(champion, judged)
        scores[COMPRESSOR] = Compressor(documents.train[parts.text].to_pylist()).bits_per_byte(texts)
        days = judged[DAY].cast(pa.int32()).to_numpy()
        block = parts.gates.block
        named = judged[block] if block else judged[DAY].cast(pa.string())
        return Texts(
            num_bytes=np.array([len(text.encode()) for text in texts], dtype=np.float64),
            blocks=named.to_numpy(zero_copy_only=False),
            slices=slice_values(judged, case.product.spec.features.slices),
            scores=scores,
            is_new_to_champion=None if champion is None else days >= first_unseen_day(champion),
            num_repeated=documents.num_repeated,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class LanguageFound:
    """A `kinds.Found`."""

    evidence_found: TextEvidence
    margin: float
    judgement: Judgement

    def evidence(self) -> Mapping[str, Any]:
        thresholds = {"margin": self.margin, "tolerated_share": TOLERATED_SHARE, "slice_room": SLICE_ROOM}
        return {"evidence": to_jsonable(self.evidence_found), "thresholds": thresholds}

    def page(self, frame: Frame) -> bytes:
        return render(self.evidence_found, self.judgement, margin=self.margin, frame=frame)

    def files(self) -> Mapping[str, bytes]:
        return {}


def _drawn(table: pa.Table, num_rows: int, rng: np.random.Generator) -> pa.Table:
    """At most so many rows, in their order."""
    if len(table) <= num_rows:
        return table
    return table.take(pa.array(np.sort(rng.choice(len(table), num_rows, replace=False))))


def _score(package: Package, table: pa.Table) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """With one thread, as where it is served: the evaluation's digest does not follow the machine's cores."""
    return open_scorer(package).score_table(table).astype(np.float64)
