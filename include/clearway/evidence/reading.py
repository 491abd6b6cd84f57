"""From cumulative counters to new outcomes per look; what cannot be trusted is named and not counted."""

import itertools
import math
from dataclasses import dataclass

from clearway.contracts.observed import ArmCounts, Observed

NOTHING = ArmCounts(num_requests=0, num_errors=0, latencies=(), num_scores=0, score_sum=0.0, score_square_sum=0.0)
# A reading older than this says nothing about now; the driver reads every second or two.
MAX_AGE_S = 60.0
# Timed requests in one look from which on it means something that most callers hung up.
MIN_TIMED = 20
# What long sums of floats may be off by, as a share of the sum.
ROUNDING = 1e-8


@dataclass(frozen=True, slots=True, kw_only=True)
class Baseline:
    """The reading that the next one is held against."""

    server_id: str
    at_s: float
    candidate: ArmCounts
    control: ArmCounts
    bounds_s: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What is new since the baseline.

    Args:
        baseline: for the next look.
        candidate, control: new counts; None when nothing of this reading may be counted.
        problem: why not, or why it clears nobody, or "".
        breaks_trust: no healthy server counts so; what it says cannot clear a candidate any more, only convict it.
    """

    baseline: Baseline | None
    candidate: ArmCounts | None = None
    control: ArmCounts | None = None
    problem: str = ""
    breaks_trust: bool = False


def read(
    before: Baseline | None, observed: Observed, *, candidate: str, control: str, epoch: int, now_s: float
) -> Reading:
    """New counts of both versions; the first reading only sets the baseline.

    Args:
        candidate, control: digests. A version that no caller has reached is absent, which means zero.
        epoch: the reader's own; a reading under another one belongs to somebody else's rollout.
    """
    found = Baseline(
        server_id=observed.server_id,
        at_s=observed.at_s,
        candidate=observed.arms.get(candidate, _zeros(observed)),
        control=observed.arms.get(control, _zeros(observed)),
        bounds_s=observed.latency_bounds_s,
    )
    if problem := _unusable(observed, epoch=epoch, now_s=now_s):
        return Reading(baseline=before, problem=problem)
    if problem := _nonsense(observed, found):
        return Reading(baseline=before, problem=problem, breaks_trust=True)
    if before is None:
        return Reading(baseline=found)
    if observed.server_id != before.server_id:
        return Reading(baseline=found, problem="counters began anew with another server process")
    if observed.at_s <= before.at_s:
        return Reading(baseline=before, problem=f"reading of {observed.at_s:.3f} came twice or out of order")
    return _since(before, found)


def _since(before: Baseline, found: Baseline) -> Reading:
    """Two readings of one server process, in order: what lies between them, if both can be true."""
    if found.bounds_s != before.bounds_s:
        text = "bounds of the latency histogram changed within one server process"
        return Reading(baseline=found, problem=text, breaks_trust=True)
    pairs = (found.candidate, before.candidate), (found.control, before.control)
    new = [_minus(after, earlier) for after, earlier in pairs]
    slack = [ROUNDING * (1 + after.score_square_sum) for after, _ in pairs]
    squares = [min(arm.score_square_sum, arm.outcome_square_sum) for arm in new]
    if any(min(_numbers(arm)) < 0 or least < -s for arm, least, s in zip(new, squares, slack, strict=True)):
        return Reading(baseline=found, problem="counters fell within one server process", breaks_trust=True)
    if any(_contradicts_itself(arm, slack=s) for arm, s in zip(new, slack, strict=True)):
        return Reading(baseline=found, problem="counters moved against each other", breaks_trust=True)
    gone = any(sum(arm.latencies) >= MIN_TIMED and 2 * arm.num_requests < sum(arm.latencies) for arm in new)
    problem = "most callers hung up before they were answered" if gone else ""
    return Reading(baseline=found, candidate=new[0], control=new[1], problem=problem, breaks_trust=gone)


def _unusable(observed: Observed, *, epoch: int, now_s: float) -> str:
    if observed.epoch != epoch:
        return f"reading belongs to epoch {observed.epoch}, not {epoch}"
    if not math.isfinite(observed.at_s) or now_s - observed.at_s > MAX_AGE_S:
        return f"reading is {now_s - observed.at_s:.0f} s old, at most {MAX_AGE_S:.0f} s are allowed"
    return ""


def _nonsense(observed: Observed, found: Baseline) -> str:
    bounds_s = observed.latency_bounds_s
    if not all(map(math.isfinite, bounds_s)) or any(low >= high for low, high in itertools.pairwise((0.0, *bounds_s))):
        return "bounds of the latency histogram are not finite, above 0 and rising"
    for name, arm in (("candidate", found.candidate), ("control", found.control)):
        if not all(isinstance(x, int) and x >= 0 for x in _numbers(arm)):
            return f"counts of the {name} are not whole numbers >= 0"
        if not all(map(math.isfinite, (arm.score_sum, arm.score_square_sum, arm.outcome_sum, arm.outcome_square_sum))):
            return f"sums of scores or outcomes of the {name} are not finite"
        slack = ROUNDING * (1 + abs(arm.score_square_sum))
        if _contradicts_itself(arm, slack=slack) or len(arm.latencies) != len(bounds_s) + 1:
            return f"counts of the {name} contradict each other"
    return ""


def _contradicts_itself(arm: ArmCounts, *, slack: float) -> bool:
    """Every error is a request, and every request was timed; those of callers who hung up were timed only.

    The sum of squares is no smaller than the mean leaves it (Cauchy and Schwarz), and no rows have no sums; `slack` is
    what rounding may have done to the sums.
    """
    sums = (
        (arm.num_scores, arm.score_sum, arm.score_square_sum),
        (arm.num_outcomes, arm.outcome_sum, arm.outcome_square_sum),
    )
    are_sums_impossible = any(
        num * (squares + slack) < total**2 if num else max(abs(total), abs(squares)) > slack
        for num, total, squares in sums
    )
    return are_sums_impossible or not arm.num_errors <= arm.num_requests <= sum(arm.latencies)


def _numbers(arm: ArmCounts) -> tuple[int, ...]:
    return (arm.num_requests, arm.num_errors, arm.num_scores, arm.num_outcomes, *arm.latencies)


def _zeros(observed: Observed) -> ArmCounts:
    return ArmCounts(
        num_requests=0,
        num_errors=0,
        latencies=(0,) * (len(observed.latency_bounds_s) + 1),
        num_scores=0,
        score_sum=0.0,
        score_square_sum=0.0,
    )


def _minus(after: ArmCounts, before: ArmCounts) -> ArmCounts:
    return ArmCounts(
        num_requests=after.num_requests - before.num_requests,
        num_errors=after.num_errors - before.num_errors,
        latencies=tuple(a - b for a, b in zip(after.latencies, before.latencies, strict=True)),
        num_scores=after.num_scores - before.num_scores,
        score_sum=after.score_sum - before.score_sum,
        score_square_sum=after.score_square_sum - before.score_square_sum,
        num_outcomes=after.num_outcomes - before.num_outcomes,
        outcome_sum=after.outcome_sum - before.outcome_sum,
        outcome_square_sum=after.outcome_square_sum - before.outcome_square_sum,
    )
