"""One candidate against the yardsticks and the champion, on the holdout."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date

import numpy as np
import pyarrow as pa

from clearway.contracts.verdict import Check, Judgement, Verdict
from clearway.evaluate.evidence import CANDIDATE, CHAMPION, Evidence, Holdout, gather
from clearway.evaluate.gates import MIN_DAYS, Case, judge_model
from clearway.evaluate.yardsticks import MakeRng, Yardsticks, days_of, labels_of, slice_values
from clearway.measures.binary import Array
from clearway.packaging.package import Package
from clearway.packaging.runtime import OnnxScorer
from clearway.product import Product

EPOCH = date(1970, 1, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """All numbers of one evaluation."""

    holdout: Holdout
    evidence: Evidence
    yardsticks: Yardsticks
    judgement: Judgement


def judge_candidate(
    candidate: Package,
    champion: Package | None,
    *,
    rows: pa.Table,
    yardsticks: Yardsticks,
    operational: Callable[[], Sequence[Check]],
    product: Product,
    num_threads: int,
    make_rng: MakeRng,
) -> Measured:
    """Score, compare, gate. `rows`: the holdout. `operational`: waits for checks made elsewhere.

    Raises: Unmeasurable.
    """
    gates, days = product.tabular.gates, days_of(rows)
    models = {CANDIDATE: candidate} | ({CHAMPION: champion} if champion else {})
    scores = {name: _score(model, rows, num_threads=num_threads) for name, model in models.items()}
    holdout = Holdout(
        labels=labels_of(rows),
        days=days,
        slices=slice_values(rows, product.features.slices),
        base_rate=yardsticks.base_rate,
        scores=scores | {name: np.array(found) for name, found in yardsticks.scores.items()},
        is_new_to_champion=None if champion is None else days >= first_unseen_day(champion),
    )
    evidence = gather(
        holdout,
        num_resamples=gates.num_resamples,
        confidence=gates.confidence,
        min_slice=(gates.min_slice_rows, gates.min_slice_positives),
        min_days=MIN_DAYS,
        make_rng=make_rng,
    )
    case = Case(
        evidence=evidence,
        margins=yardsticks.margins,
        gates=gates,
        features=product.features,
        has_champion=champion is not None,
        schema=tuple(candidate.schema["order"]),
    )
    unseen = unseen_check(candidate, date.fromisoformat(yardsticks.holdout_start))
    judgement = judge_model(case, extra=[unseen, *operational()])
    return Measured(holdout=holdout, evidence=evidence, yardsticks=yardsticks, judgement=judgement)


def unseen_check(candidate: Package, holdout_start: date) -> Check:
    """The candidate's own record of where its training ended, against where judging starts."""
    is_unseen = first_unseen_day(candidate) <= (holdout_start - EPOCH).days
    reason = f"training ended before {candidate.facts['holdout_start']}, judging starts on {holdout_start}"
    return Check(name="holdout_unseen", verdict=Verdict.PASS if is_unseen else Verdict.FAIL, reason=reason)


def first_unseen_day(package: Package) -> int:
    """First day (since 1970) whose rows the model was not trained on."""
    return (date.fromisoformat(package.facts["holdout_start"]) - EPOCH).days


def _score(package: Package, table: pa.Table, *, num_threads: int) -> Array:
    return OnnxScorer(package, num_threads=num_threads).score_table(table).astype(np.float64)
