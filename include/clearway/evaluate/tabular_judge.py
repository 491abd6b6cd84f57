"""A tabular model against boosted trees, a straight line and the champion, on days it never saw."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

import pyarrow as pa

from clearway.contracts.codec import from_jsonable, to_jsonable
from clearway.contracts.verdict import Check, Judgement
from clearway.evaluate.judging import Measured, judge_candidate
from clearway.evaluate.kinds import Case, Frame
from clearway.evaluate.margins import derivation
from clearway.evaluate.report import Page, render
from clearway.evaluate.yardsticks import Yardsticks, seeded
from clearway.tabular.training_set import labelled_rows

REFERENCE_FILE = "lightgbm.txt"


class TabularJudge:
    """A `kinds.Judge`."""

    def __init__(self, case: Case) -> None:
        self._case = case
        self._held: tuple[Yardsticks, pa.Table] | None = None

    @property
    def latency_ms(self) -> float:
        return self._case.ground.product.spec.tabular.gates.latency_ms

    def read(self) -> None:
        ground, yardsticks = self._case.ground, from_jsonable(Yardsticks, dict(self._case.yardsticks))
        start = date.fromisoformat(yardsticks.holdout_start)
        rows = labelled_rows(ground.storage, ground.dataset, product=ground.product, env=ground.env, since=start)
        self._held = (yardsticks, rows)

    def judge(self, operational: Callable[[], Sequence[Check]]) -> "TabularFound":
        assert self._held is not None, "read comes first"
        (yardsticks, rows), case, ground = self._held, self._case, self._case.ground
        spec = ground.product.spec
        measured = judge_candidate(
            case.candidate,
            case.champion,
            rows=rows,
            yardsticks=yardsticks,
            operational=operational,
            product=spec,
            num_threads=ground.env.jobs.num_threads,
            make_rng=seeded(ground.dataset.digest),
        )
        return TabularFound(measured=measured, confidence=spec.tabular.gates.confidence)


@dataclass(frozen=True, slots=True, kw_only=True)
class TabularFound:
    """A `kinds.Found`."""

    measured: Measured
    confidence: float

    @property
    def judgement(self) -> Judgement:
        return self.measured.judgement

    def evidence(self) -> Mapping[str, Any]:
        yardsticks = self.measured.yardsticks
        return {
            "evidence": to_jsonable(self.measured.evidence),
            "thresholds": derivation(yardsticks.margins, yardsticks.folds, confidence=self.confidence),
        }

    def page(self, frame: Frame) -> bytes:
        return render(
            Page(
                title=frame.title,
                judgement=self.judgement,
                evidence=self.measured.evidence,
                holdout=self.measured.holdout,
                margins=self.measured.yardsticks.margins,
                folds=self.measured.yardsticks.folds,
                latency=frame.latency,
                provenance=frame.provenance,
            )
        )

    def files(self) -> Mapping[str, bytes]:
        return {REFERENCE_FILE: self.measured.yardsticks.reference.encode()}
