"""One look: new counts into the state, the state into a judgement.

alpha     chance that a harmless candidate is ever found harmful, over all metrics, steps and looks of one rollout.
          Shared by Bonferroni between decisive metrics; within a metric, one process per step, averaged, so that harm
          that begins late is not drowned in earlier calm.
beta      chance that a candidate worse by the margin passes a step. Every decisive metric must show "no harm" at this
          level by itself, so nothing is to be shared (an intersection-union test, Berger 1982); and at every share
          anew, since what is harmless at 1 % of the traffic need not be at 50 %.

FAIL once harm is shown. PASS once every decisive metric has shown "no harm" in this step and the step has its minimum
of requests. INCONCLUSIVE otherwise.
"""

import dataclasses
import functools
import math
from bisect import bisect_left
from dataclasses import dataclass
from enum import StrEnum

from clearway.contracts.errors import ConfigError
from clearway.contracts.observed import ArmCounts, Observed
from clearway.contracts.verdict import Check, Judgement, Verdict, judge
from clearway.evidence import two_means, two_rates
from clearway.evidence.curve import Point, with_point
from clearway.evidence.reading import Baseline, Reading, read
from clearway.evidence.two_means import Arms, Moments

NO_MOMENTS = Moments(num=0, total=0.0, squares=0.0)
NO_ARMS = Arms(candidate=NO_MOMENTS, control=NO_MOMENTS)


class Kind(StrEnum):
    """What is compared: answers that failed, answers that took too long, the mean score, what became of the answers."""

    ERRORS = "errors"
    SLOW = "slow"
    SCORE = "score"
    OUTCOME = "outcome"


# Compared by the difference of two means; the others by two rates.
MEANS = frozenset({Kind.SCORE, Kind.OUTCOME})


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One comparison.

    Args:
        margin: difference that is too much: of two rates (errors, slow), of mean scores either way; for outcomes, of
            which more is better, the loss that is accepted, and 0 asks for a gain.
        above_s: slow means longer than this; the next bound of the server's histogram counts. Only for SLOW.
        is_decisive: False for a dry run: measured and reported, never counted.
    """

    kind: Kind
    margin: float
    above_s: float = 0.0
    is_decisive: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What a rollout is judged by; see the module for alpha and beta."""

    alpha: float
    beta: float
    num_steps: int
    metrics: tuple[Metric, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """One metric so far.

    Args:
        harm: per step, logarithms of the e-process per odds ratio. Rates only.
        no_harm: the same per common rate, in the current step. Rates only.
        is_safe: "no harm" is shown by all looks of the current step together; one that turns bad loses it again.
        arms: counts and sums, per step.
    """

    harm: tuple[tuple[float, ...], ...] = ()
    no_harm: tuple[float, ...] = ()
    is_safe: bool = False
    arms: tuple[Arms, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """All that is known; JSON through clearway.contracts.codec, so any process can go on with it.

    `distrust`: the first reading that no healthy server gives, if there was one; then nothing passes by itself.
    """

    step: int = 0
    num_candidate: int = 0
    num_control: int = 0
    distrust: str = ""
    baseline: Baseline | None = None
    tallies: tuple[Tally, ...] = ()
    curve: tuple[Point, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Looked:
    """A look's result; `num_candidate` and `num_control` are requests of the current step."""

    state: State
    judgement: Judgement


def begin_step(state: State, *, step: int) -> State:
    """Another share begins: its own processes, its own minimum. A look never spans two shares, since a rate that
    changes with the hour would then differ between the versions by their mix of hours alone."""
    tallies = tuple(dataclasses.replace(tally, no_harm=(), is_safe=False) for tally in state.tallies)
    return dataclasses.replace(state, step=step, num_candidate=0, num_control=0, baseline=None, tallies=tallies)


def look(
    rules: Rules,
    state: State,
    observed: Observed,
    *,
    candidate: str,
    control: str,
    epoch: int,
    now_s: float,
    weight_pct: float,
    min_requests: int,
) -> Looked:
    """Count what is new and judge. A reading with a problem changes no count, and is INCONCLUSIVE at best.

    Raises: ConfigError for rules without a decisive metric.
    """
    check_rules(rules)
    reading = read(state.baseline, observed, candidate=candidate, control=control, epoch=epoch, now_s=now_s)
    after = _count(rules, state, reading, observed.latency_bounds_s)
    checks = [
        judged(metric, tally, rules, observed.latency_bounds_s)
        for metric, tally in zip(rules.metrics, after.tallies, strict=True)
    ]
    after = dataclasses.replace(after, curve=_drawn(after, rules, reading, weight_pct))
    if problem := reading.problem or after.distrust:
        checks.append(Check(name="reading", verdict=Verdict.INCONCLUSIVE, reason=problem))
    checks.append(_traffic(after, min_requests))
    return Looked(state=after, judgement=judge(checks))


def check_rules(rules: Rules) -> None:
    """Raises: ConfigError naming what is wrong."""
    if not any(metric.is_decisive for metric in rules.metrics):
        raise ConfigError("a rollout needs at least one decisive metric; all of them are dry runs")
    for name, level in (("alpha", rules.alpha), ("beta", rules.beta)):
        if not 0 < level < 1:
            raise ConfigError(f"{name} {level} is no error rate; allowed: above 0, below 1")
    for metric in rules.metrics:
        if not 0 <= metric.margin < 1 or (metric.margin == 0 and metric.kind is not Kind.OUTCOME):
            raise ConfigError(f"margin {metric.margin} of {metric.kind.value} is not allowed; choose above 0, below 1")


def _count(rules: Rules, state: State, reading: Reading, bounds_s: tuple[float, ...]) -> State:
    tallies = state.tallies or tuple(Tally() for _ in rules.metrics)
    if reading.breaks_trust and not state.distrust:
        text = f"readings are not trusted any more ({reading.problem}); a person must decide"
        state = dataclasses.replace(state, distrust=text)
    new = reading.candidate, reading.control
    if new[0] is None or new[1] is None:
        return dataclasses.replace(state, baseline=reading.baseline, tallies=tallies)
    return dataclasses.replace(
        state,
        baseline=reading.baseline,
        num_candidate=state.num_candidate + new[0].num_requests,
        num_control=state.num_control + new[1].num_requests,
        tallies=tuple(
            _added(tally, metric, new[0], new[1], bounds_s=bounds_s, step=state.step, beta=rules.beta)
            for metric, tally in zip(rules.metrics, tallies, strict=True)
        ),
    )


def _added(
    tally: Tally,
    metric: Metric,
    candidate: ArmCounts,
    control: ArmCounts,
    *,
    bounds_s: tuple[float, ...],
    step: int,
    beta: float,
) -> Tally:
    if is_out_of_sight(metric.kind, metric.above_s, bounds_s):
        return tally
    one, other = (moments(metric.kind, arm, bounds_s, above_s=metric.above_s) for arm in (candidate, control))
    arms = (*tally.arms, *(NO_ARMS,) * (step + 1 - len(tally.arms)))
    sums = Arms(candidate=_sum(arms[step].candidate, one), control=_sum(arms[step].control, other))
    tally = dataclasses.replace(tally, arms=(*arms[:step], sums, *arms[step + 1 :]))
    if metric.kind in MEANS:
        band = two_means.difference_over((sums,), alpha=beta)
        low, _, high = band or (-math.inf, 0.0, math.inf)
        is_low_enough = high < metric.margin or metric.kind is Kind.OUTCOME  # of outcomes, more is better
        return dataclasses.replace(tally, is_safe=-metric.margin < low and is_low_enough)
    fresh = two_rates.Look(
        candidate=one.num, candidate_yes=int(one.total), control=other.num, control_yes=int(other.total)
    )
    harm = (*tally.harm, *((0.0,) * len(two_rates.ODDS_RATIOS) for _ in range(step + 1 - len(tally.harm))))
    newest = tuple(a + b for a, b in zip(harm[step], two_rates.harm(fresh), strict=True))
    no_harm = tally.no_harm or (0.0,) * len(two_rates.COMMON_RATES)
    no_harm = tuple(a + b for a, b in zip(no_harm, two_rates.no_harm(fresh, margin=metric.margin), strict=True))
    is_safe = two_rates.mean_e(no_harm) >= 1 / beta
    return dataclasses.replace(tally, harm=(*harm[:step], newest, *harm[step + 1 :]), no_harm=no_harm, is_safe=is_safe)


def is_out_of_sight(kind: Kind, above_s: float, bounds_s: tuple[float, ...]) -> bool:
    """Whether the histogram ends before what is called slow: it would count every answer as quick."""
    return kind is Kind.SLOW and (not bounds_s or above_s > bounds_s[-1])


def moments(kind: Kind, arm: ArmCounts, bounds_s: tuple[float, ...], *, above_s: float) -> Moments:
    """What one version's counts say to a metric; for rates, `total` is the number of bad answers."""
    if kind is Kind.SCORE:
        return Moments(num=arm.num_scores, total=arm.score_sum, squares=arm.score_square_sum)
    if kind is Kind.OUTCOME:
        return Moments(num=arm.num_outcomes, total=arm.outcome_sum, squares=arm.outcome_square_sum)
    if kind is Kind.ERRORS:
        return Moments(num=arm.num_requests, total=arm.num_errors, squares=arm.num_errors)
    num_slow = sum(arm.latencies[bisect_left(bounds_s, above_s) + 1 :])
    return Moments(num=sum(arm.latencies), total=num_slow, squares=num_slow)


def _sum(a: Moments, b: Moments) -> Moments:
    return Moments(num=a.num + b.num, total=a.total + b.total, squares=a.squares + b.squares)


def total(tally: Tally) -> tuple[Moments, Moments]:
    """Candidate's and control's counts over all shares."""
    candidate = functools.reduce(_sum, (a.candidate for a in tally.arms), NO_MOMENTS)
    return candidate, functools.reduce(_sum, (a.control for a in tally.arms), NO_MOMENTS)


def harm_e(tally: Tally, *, num_steps: int) -> float:
    """E-value of harm over all steps; a step that has not begun holds its share at 1."""
    begun = math.fsum(two_rates.mean_e(logs) for logs in tally.harm)
    return (begun + (num_steps - len(tally.harm))) / num_steps


def judged(metric: Metric, tally: Tally, rules: Rules, bounds_s: tuple[float, ...]) -> Check:
    """What one metric says so far; `bounds_s` are those of the server's histogram."""
    num_decisive = sum(m.is_decisive for m in rules.metrics)
    alpha = rules.alpha / max(1, num_decisive)
    if metric.kind in MEANS:
        return _judged_mean(metric, tally, alpha=alpha)
    found = harm_e(tally, num_steps=rules.num_steps)
    candidate, control = total(tally)
    seen = f"candidate {_share(candidate)}, control {_share(control)}"
    if found >= 1 / alpha:
        return _check(metric, Verdict.FAIL, found, 1 / alpha, f"harm shown: {seen}; e-value {found:.3g}")
    if is_out_of_sight(metric.kind, metric.above_s, bounds_s):
        text = f"no bound of the latency histogram reaches {metric.above_s:g} s, so no answer can be seen to be slower"
        return _check(metric, Verdict.INCONCLUSIVE, found, 1 / alpha, text)
    if tally.is_safe:
        return _check(metric, Verdict.PASS, found, 1 / alpha, f"no harm of {metric.margin:.2%} or more: {seen}")
    text = f"neither harm nor its absence shown yet: {seen}; margin {metric.margin:.2%}"
    return _check(metric, Verdict.INCONCLUSIVE, found, 1 / alpha, text)


def _share(counted: Moments) -> str:
    return f"{counted.total / counted.num:.2%} of {counted.num}" if counted.num else "no answers yet"


def _judged_mean(metric: Metric, tally: Tally, *, alpha: float) -> Check:
    name = metric.kind.value
    band = two_means.difference_over(tally.arms, alpha=alpha)
    if band is None:
        return _check(metric, Verdict.INCONCLUSIVE, None, metric.margin, f"too few {name}s in one of the versions")
    low, estimate, high = band
    seen = f"mean {name} differs by {estimate:+.4f} ({low:+.4f} to {high:+.4f})"
    if metric.kind is Kind.SCORE and (low > metric.margin or high < -metric.margin):
        return _check(metric, Verdict.FAIL, estimate, metric.margin, f"shifted beyond {metric.margin:g}: {seen}")
    if metric.kind is Kind.OUTCOME and high < 0:
        return _check(metric, Verdict.FAIL, estimate, metric.margin, f"harm shown: {seen}")
    verdict = Verdict.PASS if tally.is_safe else Verdict.INCONCLUSIVE
    return _check(metric, verdict, estimate, metric.margin, f"{seen}; margin {metric.margin:g}")


def _check(metric: Metric, verdict: Verdict, value: float | None, bound: float, reason: str) -> Check:
    shown = None if value is None else two_rates.shown(value)
    return Check(
        name=metric.kind.value, verdict=verdict, value=shown, bound=bound, reason=reason, is_decisive=metric.is_decisive
    )


def _traffic(state: State, min_requests: int) -> Check:
    least = min(state.num_candidate, state.num_control)
    seen = f"{state.num_candidate} requests to the candidate, {state.num_control} to the control in this step"
    if least >= max(1, min_requests):
        return Check(name="traffic", verdict=Verdict.PASS, value=least, bound=min_requests, reason=seen)
    text = f"too little traffic: {seen}, {max(1, min_requests)} of each are asked for"
    return Check(name="traffic", verdict=Verdict.INCONCLUSIVE, value=least, bound=min_requests, reason=text)


def _drawn(state: State, rules: Rules, reading: Reading, weight_pct: float) -> tuple[Point, ...]:
    if reading.baseline is None or reading.candidate is None:
        return state.curve
    tally = state.tallies[0]
    band = two_means.difference_over(tally.arms, alpha=rules.alpha)
    low, estimate, high = band or (None, None, None)
    point = Point(
        at_s=reading.baseline.at_s,
        weight_pct=weight_pct,
        estimate=estimate,
        low=low,
        high=high,
        harm_e=two_rates.shown(harm_e(tally, num_steps=rules.num_steps)) if tally.harm else 1.0,
    )
    return with_point(state.curve, point)
