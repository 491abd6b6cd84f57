"""A version that has all the callers, held against an objective: too many failed or slow answers?

With nobody beside it, an hour that is bad for everybody cannot be told from a bad version; so the limit is absolute,
and looser than the margins of a comparison. The test is the mixture likelihood ratio of Bernoulli outcomes against
"rate <= limit" (Wald 1945; Robbins 1970): a product of e-values, so the chance that a version within its limits is
ever found harmful is at most alpha, however often it is looked at (Ville 1939). Alternatives are the limit's odds times
`two_rates.ODDS_RATIOS`. Metrics share alpha by Bonferroni.

FAIL once a limit is shown to be exceeded. PASS once the minimum of requests has come without that, and no metric's rate
is above its limit. INCONCLUSIVE otherwise.
"""

import dataclasses
import math
from dataclasses import dataclass

from clearway.contracts.errors import ConfigError
from clearway.contracts.observed import Observed
from clearway.contracts.verdict import Check, Judgement, Verdict, judge
from clearway.evidence import one_rate, two_rates
from clearway.evidence.curve import Point, with_point
from clearway.evidence.engine import Kind, is_out_of_sight, moments
from clearway.evidence.reading import Baseline, read


@dataclass(frozen=True, slots=True, kw_only=True)
class Objective:
    """One limit.

    Args:
        kind: ERRORS or SLOW.
        limit: share of bad answers that is still allowed, above 0, below 1.
        above_s: slow means longer than this. Only for SLOW.
    """

    kind: Kind
    limit: float
    above_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What is judged; alpha: chance that a version within all its limits is ever found harmful."""

    alpha: float
    objectives: tuple[Objective, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """One objective so far: answers, bad ones, and logarithms of the e-process per odds ratio."""

    num: int = 0
    num_bad: int = 0
    logs: tuple[float, ...] = (0.0,) * len(two_rates.ODDS_RATIOS)


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """All that is known; JSON through clearway.contracts.codec.

    `distrust`: the first reading that no healthy server gives, if there was one; then nothing passes by itself.
    `curve`: of the first objective.
    """

    num_requests: int = 0
    distrust: str = ""
    baseline: Baseline | None = None
    tallies: tuple[Tally, ...] = ()
    curve: tuple[Point, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Looked:
    """A look's result."""

    state: State
    judgement: Judgement


def look(
    rules: Rules, state: State, observed: Observed, *, version: str, epoch: int, now_s: float, min_requests: int
) -> Looked:
    """Count what is new and judge. A reading with a problem changes no count, and is INCONCLUSIVE at best.

    Raises: ConfigError for rules without an objective, or that make no sense.
    """
    check_rules(rules)
    reading = read(state.baseline, observed, candidate=version, control=version, epoch=epoch, now_s=now_s)
    tallies = state.tallies or tuple(Tally() for _ in rules.objectives)
    distrust, alpha = state.distrust, rules.alpha / len(rules.objectives)
    if reading.breaks_trust and not distrust:
        distrust = f"readings are not trusted any more ({reading.problem}); a person must decide"
    num_requests, bounds_s, curve = state.num_requests, observed.latency_bounds_s, state.curve
    if new := reading.candidate:
        num_requests += new.num_requests
        counted = [moments(o.kind, new, bounds_s, above_s=o.above_s) for o in rules.objectives]
        tallies = tuple(
            _added(t, o, num=m.num, num_bad=int(m.total))
            for t, o, m in zip(tallies, rules.objectives, counted, strict=True)
        )
        curve = with_point(curve, _point(tallies[0], alpha=alpha, at_s=observed.at_s))
    checks = [
        judged(o, t, alpha=alpha, is_seen=not is_out_of_sight(o.kind, o.above_s, bounds_s))
        for o, t in zip(rules.objectives, tallies, strict=True)
    ]
    if problem := reading.problem or distrust:
        checks.append(Check(name="reading", verdict=Verdict.INCONCLUSIVE, reason=problem))
    checks.append(_traffic(num_requests, min_requests))
    after = State(num_requests=num_requests, distrust=distrust, baseline=reading.baseline, tallies=tallies, curve=curve)
    return Looked(state=after, judgement=judge(checks))


def begin(state: State) -> State:
    """The watch goes on after a break: what happened meanwhile is not this version's."""
    return dataclasses.replace(state, baseline=None)


def check_rules(rules: Rules) -> None:
    """Raises: ConfigError naming what is wrong."""
    if not rules.objectives:
        raise ConfigError("a watch needs at least one objective; name errors, slow answers or both")
    if not 0 < rules.alpha < 1:
        raise ConfigError(f"alpha {rules.alpha} is no error rate; allowed: above 0, below 1")
    for objective in rules.objectives:
        if objective.kind not in {Kind.ERRORS, Kind.SLOW}:
            raise ConfigError(f"objective {objective.kind.value!r} has no limit; allowed: errors, slow")
        if not 0 < objective.limit < 1:
            raise ConfigError(f"limit {objective.limit} of {objective.kind.value} is not allowed; above 0, below 1")


def e_value(tally: Tally) -> float:
    """E-value against "within the limit"."""
    return two_rates.mean_e(tally.logs)


def _added(tally: Tally, objective: Objective, *, num: int, num_bad: int) -> Tally:
    limit = objective.limit
    logs = []
    for odds, log in zip(two_rates.ODDS_RATIOS, tally.logs, strict=True):
        worse = limit * odds / (1 - limit + limit * odds)
        good = math.log1p(-worse) - math.log1p(-limit)
        logs.append(log + num_bad * math.log(worse / limit) + (num - num_bad) * good)
    return Tally(num=tally.num + num, num_bad=tally.num_bad + num_bad, logs=tuple(logs))


def _point(tally: Tally, *, alpha: float, at_s: float) -> Point:
    low, rate, high = one_rate.limits(tally.num, tally.num_bad, alpha=alpha) or (None, None, None)
    return Point(at_s=at_s, weight_pct=100.0, estimate=rate, low=low, high=high, harm_e=two_rates.shown(e_value(tally)))


def judged(objective: Objective, tally: Tally, *, alpha: float, is_seen: bool) -> Check:
    """What one objective says so far; `is_seen`: the server's histogram can show it."""
    found, rate = e_value(tally), tally.num_bad / tally.num if tally.num else math.nan
    seen = f"{rate:.2%} of {tally.num}, allowed {objective.limit:.2%}" if tally.num else "no answers yet"
    if found >= 1 / alpha:
        verdict, text = Verdict.FAIL, f"limit exceeded: {seen}; e-value {found:.3g}"
    elif not is_seen:
        verdict = Verdict.INCONCLUSIVE
        text = f"no bound of the latency histogram reaches {objective.above_s:g} s, so nothing can be seen to be slow"
    elif rate <= objective.limit:
        verdict, text = Verdict.PASS, f"within its limit: {seen}"
    else:
        verdict, text = Verdict.INCONCLUSIVE, f"not within its limit, and not shown to exceed it: {seen}"
    return Check(name=objective.kind.value, verdict=verdict, value=two_rates.shown(found), bound=1 / alpha, reason=text)


def _traffic(num: int, min_requests: int) -> Check:
    least = max(1, min_requests)
    verdict = Verdict.PASS if num >= least else Verdict.INCONCLUSIVE
    text = f"{num} requests" if num >= least else f"too little traffic: {num} requests, {least} are asked for"
    return Check(name="traffic", verdict=verdict, value=num, bound=least, reason=text)
