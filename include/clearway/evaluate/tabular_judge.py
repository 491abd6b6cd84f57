"""A tabular model against boosted trees, a straight line and the champion, on days it never saw."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from clearway.contracts.codec import to_jsonable
from clearway.contracts.verdict import Check, Judgement
from clearway.evaluate.judging import Measured, judge_candidate
from clearway.evaluate.kinds import Case, Frame
from clearway.evaluate.margins import derivation
from clearway.evaluate.report import Page, render
from clearway.evaluate.yardsticks import fit_yardsticks, seeded
from clearway.infra.datasets import open_dataset, read_labelled
from clearway.infra.layout import Layout
from clearway.packaging.runtime import encoder_of
from clearway.packaging.split import Split, split_at

REFERENCE_FILE = "lightgbm.txt"


class TabularJudge:
    """A `kinds.Judge`."""

    def __init__(self, case: Case) -> None:
        self._case = case
        self._split: Split | None = None

    @property
    def latency_ms(self) -> float:
        return self._case.product.spec.tabular.gates.latency_ms

    def read(self) -> None:
        case, spec = self._case, self._case.product.spec
        rows = read_labelled(
            case.storage,
            Layout(case.env.store_root, case.product.name),
            open_dataset(case.storage, case.dataset),
            table=spec.tabular.label.table,
            key=spec.features.key,
            column=spec.tabular.label.column,
        )
        self._split = split_at(rows, holdout_days=spec.release.holdout_days)

    def judge(self, operational: Callable[[], Sequence[Check]]) -> "TabularFound":
        case, split, spec = self._case, self._split, self._case.product.spec
        assert split is not None, "read comes first"
        make_rng, num_threads = seeded(case.dataset.digest), case.env.jobs.num_threads
        yardsticks = fit_yardsticks(
            split, encoder_of(case.candidate), product=spec, num_threads=num_threads, make_rng=make_rng
        )
        measured = judge_candidate(
            case.candidate,
            case.champion,
            split=split,
            yardsticks=yardsticks,
            operational=operational,
            product=spec,
            num_threads=num_threads,
            make_rng=make_rng,
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
