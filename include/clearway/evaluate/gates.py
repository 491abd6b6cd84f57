"""The gates: evidence and thresholds in, checks out. Pure; one function per question, all listed in GATES.

Every comparison is written so that NaN does not pass. FAIL: the evidence speaks against the model. INCONCLUSIVE: it
does not speak clearly enough, so a person decides.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from clearway.contracts.verdict import Check, Judgement, Verdict, at_least, at_most, judge
from clearway.evaluate.evidence import CANDIDATE, CHAMPION, LINE, TREES, Comparison, Evidence
from clearway.evaluate.margins import Margins
from clearway.product import Features
from clearway.product_gates import Gates

# Fewer day blocks than this make the paired intervals useless (their coverage was tried down to 14 and holds near 5).
MIN_DAYS = 5
# 1.65 x 0.03: the one-sided 95 % reach of a two-week AUC, at the widest day-block standard error seen on flights.
FLOOR_GIVES = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """All a gate may look at.

    Args:
        has_champion: whether the release document names one, comparable or not.
        schema: the package's input columns.
    """

    evidence: Evidence
    margins: Margins
    gates: Gates
    features: Features
    has_champion: bool
    schema: tuple[str, ...]


def judge_model(case: Case, extra: Iterable[Check] = ()) -> Judgement:
    """Every gate, in the order of GATES, then what was measured outside (latency, the live server)."""
    return judge([check for gate in GATES for check in gate(case)] + list(extra))


def columns_allowed(case: Case) -> Iterator[Check]:
    """No denied column, and exactly the declared ones: a leak can look harmless in every metric."""
    denied = sorted(set(case.schema) & set(case.features.deny))
    strange = sorted(set(case.schema) ^ set(case.features.columns))
    yield _claim("columns_denied", not denied, f"denied columns among the model's inputs: {denied}")
    yield _claim("columns_declared", not strange, f"inputs that are not declared, or declared and absent: {strange}")


def enough_evidence(case: Case) -> Iterator[Check]:
    """Day blocks are the unit of evidence."""
    days = case.evidence.num_days
    verdict = Verdict.PASS if days >= MIN_DAYS else Verdict.INCONCLUSIVE
    reason = f"{case.evidence.num_rows} rows on {days} days, {case.evidence.num_positives} positives"
    yield Check(name="holdout_days", verdict=verdict, value=float(days), bound=float(MIN_DAYS), reason=reason)


def yardstick_learned(case: Case) -> Iterator[Check]:
    """Margins are shares of what the trees gain. Where they gain nothing, only the absolute gates can speak."""
    if case.margins.has_yardstick:
        return
    reason = (
        "the trees learned nothing on the folds of the training period, so no margin could be derived: too short a "
        "period, features that carry nothing, or labels of other rows; a person must decide unless another gate says no"
    )
    yield Check(name="yardstick_learned", verdict=Verdict.INCONCLUSIVE, reason=reason)


def plausible_ranking(case: Case) -> Iterator[Check]:
    """Good enough to serve, not too good to be true."""
    auc = case.evidence.figures[CANDIDATE].auc
    floor = floor_of(case)
    is_hard = floor < case.gates.auc_floor
    trees = case.evidence.figures[TREES].auc
    hard = f"a hard window: the trees reach {trees:.4f}, so less than {case.gates.auc_floor} will do"
    yield at_least("auc_floor", auc, floor, reason=hard if is_hard else "")
    yield at_most("auc_ceiling", auc, case.gates.auc_ceiling, reason="better than this is a leak until shown otherwise")


def floor_of(case: Case) -> float:
    """The product's floor, lowered in a window that is hard for everybody, by at most FLOOR_GIVES.

    Honest flights models fall to 0.685 in one two-week window of the year with a floor of 0.70, and so do the trees.
    """
    same_rows = case.evidence.figures[TREES].auc - case.margins.auc
    return min(case.gates.auc_floor, max(same_rows, case.gates.auc_floor - FLOOR_GIVES))


def no_jump(case: Case) -> Iterator[Check]:
    """A sudden large gain over the champion is a leak until shown otherwise; over one below the floor it is none."""
    comparison = case.evidence.comparisons.get(CHAMPION)
    if comparison is None:
        return
    if comparison.auc_other < case.gates.auc_floor:
        reason = f"champion's AUC {comparison.auc_other:.4f} is below the floor itself; a gain over it says nothing"
        yield Check(name="auc_jump", verdict=Verdict.PASS, reason=reason, is_decisive=False)
        return
    yield at_most("auc_jump", comparison.auc.estimate, case.gates.auc_jump, reason="gain in AUC over the champion")


def probabilities(case: Case) -> Iterator[Check]:
    """Scores are used as probabilities, which AUC does not see."""
    figures = case.evidence.figures[CANDIDATE]
    yield at_least(
        "logloss_skill", figures.skill, case.margins.skill_floor, reason="log-loss saved against the base rate"
    )
    yield at_most("ece", figures.ece, case.gates.ece_max)


def not_worse_than_trees(case: Case) -> Iterator[Check]:
    """Boosted trees on the same training rows are the price of not thinking."""
    yield from _non_inferior(TREES, case)


def not_worse_than_champion(case: Case) -> Iterator[Check]:
    """What serves now, on the rows it has not seen either."""
    if CHAMPION in case.evidence.comparisons:
        yield from _non_inferior(CHAMPION, case)
    elif case.has_champion:
        reason = (
            f"the champion was trained on all but fewer than {MIN_DAYS} of these days; no fair comparison is possible"
        )
        yield Check(name="champion_comparable", verdict=Verdict.INCONCLUSIVE, reason=reason)
    else:
        yield first_model(case.gates.first_model)


def first_model(policy: str) -> Check:
    """There is nothing to compare with; product.yaml says what that means."""
    is_person = policy == "person"
    return Check(
        name="first_model",
        verdict=Verdict.INCONCLUSIVE if is_person else Verdict.PASS,
        reason=f"no champion yet; policy {policy!r}: "
        + ("a person decides" if is_person else "the other gates decide, comparisons with a champion do not apply"),
        is_decisive=is_person,
    )


def better_than_a_line(case: Case) -> Iterator[Check]:
    """A model no better than a straight line is not worth its upkeep."""
    comparison = case.evidence.comparisons.get(LINE)
    value = comparison.auc.estimate if comparison else None
    yield at_least("auc_over_line", value, -case.margins.line_slack, reason="AUC over logistic regression")


def slices_hold(case: Case) -> Iterator[Check]:
    """No group may be much worse off than everybody; small groups are reported, not gated."""
    gated = [s for s in case.evidence.slices if s.is_gated]
    for s in gated:
        behind = "AUC below all rows, beyond what the trees fall behind there"
        yield at_most(f"slice_auc[{s.name}]", s.auc_lag, case.margins.slice_auc, reason=behind)
        yield at_most(
            f"slice_calibration[{s.name}]",
            s.calibration_excess,
            case.margins.slice_calibration,
            reason="|slice gap - overall gap| of mean score and mean label, beyond what the trees show there",
        )
        if CHAMPION in case.evidence.comparisons:
            reason = "log-loss lost to the champion, beyond the loss on all rows"
            yield at_most(f"slice_logloss[{s.name}]", s.logloss_excess, case.margins.slice_logloss, reason=reason)
    if not gated:
        few = f"no slice has {case.gates.min_slice_rows} rows and {case.gates.min_slice_positives} of each class"
        yield Check(name="slices", verdict=Verdict.PASS, reason=few, is_decisive=False)


def _non_inferior(other: str, case: Case) -> Iterator[Check]:
    comparison = case.evidence.comparisons.get(other)
    if comparison is None:
        reason = f"no comparison with {other!r} could be made; nothing was shown"
        yield Check(name=f"not_worse_logloss[{other}]", verdict=Verdict.ERROR, reason=reason)
        return
    yield non_inferior(f"not_worse_logloss[{other}]", comparison, case.margins, is_auc=False)
    yield non_inferior(f"not_worse_auc[{other}]", comparison, case.margins, is_auc=True)


def non_inferior(name: str, comparison: Comparison, margins: Margins, *, is_auc: bool) -> Check:
    """PASS if even the unfavourable bound is within the margin; FAIL if the estimate itself is not; else INCONCLUSIVE.

    The loss is counted upwards in both measures: log-loss of the candidate above, or AUC below, the other model's.
    """
    interval = comparison.auc if is_auc else comparison.logloss
    margin = margins.auc if is_auc else margins.logloss
    estimate, bound = (-interval.estimate, -interval.lower) if is_auc else (interval.estimate, interval.upper)
    within = at_most(name, bound, margin)
    measure = "AUC below" if is_auc else "log-loss above"
    reason = f"{measure} {comparison.other}: {estimate:+.4f}, at most {bound:+.4f}; margin {margin:.4f}"
    if within.verdict is Verdict.FAIL and estimate <= margin:
        return Check(
            name=name,
            verdict=Verdict.INCONCLUSIVE,
            value=bound,
            bound=margin,
            reason=f"{reason}; the estimate is within the margin, its bound is not: more days or a person must decide",
        )
    return Check(name=name, verdict=within.verdict, value=bound, bound=margin, reason=reason)


def _claim(name: str, holds: bool, reason: str) -> Check:
    return Check(name=name, verdict=Verdict.PASS if holds else Verdict.FAIL, reason=reason)


# The order is the order of the report. To add a gate: a function like those above, a line here, a planted model in
# tests/behaviour that it alone stops.
GATES: tuple[Callable[[Case], Iterator[Check]], ...] = (
    columns_allowed,
    enough_evidence,
    yardstick_learned,
    plausible_ranking,
    no_jump,
    probabilities,
    not_worse_than_champion,
    not_worse_than_trees,
    better_than_a_line,
    slices_hold,
)
