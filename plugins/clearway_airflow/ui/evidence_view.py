"""What was measured in a rollout as HTML, stage by stage: curves with their bands, and tables of what was compared.

Rules and states are read by the code that judged them; what another version of Clearway kept is named, not guessed.
"""

from collections.abc import Callable, Sequence
from html import escape
from math import log10

from clearway.contracts.codec import from_jsonable
from clearway.contracts.rollout import Rollout, StepKind
from clearway.evidence import engine, one_rate, paired, shadow, slo, two_means
from clearway.evidence.curve import Point
from clearway.evidence.engine import Kind, Metric
from clearway_airflow.ui.charts import Bound, Spot, chart, percent, power_of_ten, signed
from clearway_airflow.ui.pieces import table, verdict

_HEADS = {
    StepKind.MIRROR: "Mirror: copies of requests, answers unheard",
    StepKind.SPLIT: "Callers: candidate beside the champion",
    StepKind.WATCH: "Watch: all callers, against limits",
}
_NAMES = {Kind.ERRORS: "failed answers", Kind.SLOW: "slow answers", Kind.SCORE: "mean score", Kind.OUTCOME: "outcome"}


def evidence_panel(rollout: Rollout) -> str:
    """All stages that gathered evidence, in the order of the plan; "" if none did."""
    kinds = dict.fromkeys(step.kind for step in rollout.plan if step.kind.value in rollout.evidence)
    return "".join(f"<h3>{_HEADS[kind]}</h3>{_stage(kind, rollout)}" for kind in kinds)


def _stage(kind: StepKind, rollout: Rollout) -> str:
    try:
        return _DRAWN[kind](rollout)
    except (ValueError, KeyError, TypeError, IndexError) as error:
        text = f"another version of Clearway kept this evidence, it cannot be drawn: {error}"
        return f'<p class="quiet">{escape(text)}</p>'


def _mirror(rollout: Rollout) -> str:
    rules = from_jsonable(shadow.Rules, rollout.rules[StepKind.MIRROR.value])
    state = from_jsonable(shadow.State, rollout.evidence[StepKind.MIRROR.value])
    step = next(step for step in rollout.plan if step.kind is StepKind.MIRROR)
    alpha = rules.alpha / sum(group.is_decisive for group in rules.groups)
    margins = (Bound(value=rules.margin, label="margin"), Bound(value=-rules.margin, label="margin"))
    drawn = _difference("Score of the candidate less the champion's, on the same row", state.curve, margins)
    rows = []
    for group, tally in zip(rules.groups, state.tallies, strict=True):
        name = "all rows" if group.name == shadow.ALL else group.name
        band = _band(paired.limits(tally.band, alpha=alpha), "+.4f")
        said = shadow.judged(group, tally, rules, step.min_requests)
        rows.append([escape(name), f"{tally.band.num:,}", band, f"{rules.margin:g}", verdict(said.verdict.value)])
    return drawn + table(["rows of", "rows", "mean difference (band)", "margin", "verdict"], rows)


def _split(rollout: Rollout) -> str:
    rules = from_jsonable(engine.Rules, rollout.rules[StepKind.SPLIT.value])
    state = from_jsonable(engine.State, rollout.evidence[StepKind.SPLIT.value])
    first, bounds_s = rules.metrics[0], state.baseline.bounds_s if state.baseline else ()
    name = _NAMES[first.kind]
    drawn = _difference(f"{name.capitalize()}: candidate less champion", state.curve, _margins(first))
    if first.kind not in engine.MEANS:
        drawn += _harm(f"Evidence of harm in {name}, as an e-value", state.curve, alpha=_alpha(rules))
    rows = [_compared(m, t, rules, bounds_s) for m, t in zip(rules.metrics, state.tallies, strict=True)]
    return drawn + table(["compared", "candidate", "champion", "difference (band)", "margin", "verdict"], rows)


def _compared(metric: Metric, tally: engine.Tally, rules: engine.Rules, bounds_s: tuple[float, ...]) -> list[str]:
    is_mean = metric.kind in engine.MEANS
    form = ".4f" if is_mean else ".2%"
    shares = [f"{arm.mean:{form}} of {arm.num:,}" if arm.num else "none yet" for arm in engine.total(tally)]
    band = _band(two_means.difference_over(tally.arms, alpha=_alpha(rules)), f"+{form}")
    name = _NAMES[metric.kind] + ("" if metric.is_decisive else " (dry run)")
    margin = f"{metric.margin:g}" if is_mean else f"{metric.margin:.2%}"
    return [name, *shares, band, margin, verdict(engine.judged(metric, tally, rules, bounds_s).verdict.value)]


def _alpha(rules: engine.Rules) -> float:
    return rules.alpha / sum(metric.is_decisive for metric in rules.metrics)


def _watch(rollout: Rollout) -> str:
    rules = from_jsonable(slo.Rules, rollout.rules[StepKind.WATCH.value])
    state = from_jsonable(slo.State, rollout.evidence[StepKind.WATCH.value])
    first, alpha = rules.objectives[0], rules.alpha / len(rules.objectives)
    bounds_s, name = state.baseline.bounds_s if state.baseline else (), _NAMES[first.kind]
    limit = Bound(value=first.limit, label="limit")
    drawn = chart(f"Share of {name}", _spots(state.curve), bounds=[limit], say=percent)
    drawn += _harm(f"Evidence that {name} exceed their limit, as an e-value", state.curve, alpha=alpha)
    rows = []
    for objective, tally in zip(rules.objectives, state.tallies, strict=True):
        band = _band(one_rate.limits(tally.num, tally.num_bad, alpha=alpha), ".2%")
        is_seen = not engine.is_out_of_sight(objective.kind, objective.above_s, bounds_s)
        said = verdict(slo.judged(objective, tally, alpha=alpha, is_seen=is_seen).verdict.value)
        rows.append([_NAMES[objective.kind], f"{tally.num:,}", band, f"{objective.limit:.2%}", said])
    return drawn + table(["watched", "answers", "share (band)", "limit", "verdict"], rows)


_DRAWN: dict[StepKind, Callable[[Rollout], str]] = {
    StepKind.MIRROR: _mirror,
    StepKind.SPLIT: _split,
    StepKind.WATCH: _watch,
}


def _margins(metric: Metric) -> tuple[Bound, ...]:
    """Where a difference is too much: outcomes are better when larger, scores may shift neither way."""
    above, below = Bound(value=metric.margin, label="margin"), Bound(value=-metric.margin, label="margin")
    return {Kind.OUTCOME: (below,), Kind.SCORE: (above, below)}.get(metric.kind, (above,))


def _difference(title: str, curve: Sequence[Point], bounds: Sequence[Bound]) -> str:
    return chart(title, _spots(curve), bounds=bounds, say=signed)


def _harm(title: str, curve: Sequence[Point], *, alpha: float) -> str:
    """On a logarithmic axis that ends a little above what decides."""
    bound = Bound(value=-log10(alpha), label="taken back")
    values = [(p, min(max(log10(max(p.harm_e, 1e-9)), -1.0), bound.value + 2)) for p in curve]
    spots = [Spot(at_s=p.at_s, value=v, low=v, high=v, stage=_stage_name(p)) for p, v in values]
    return chart(title, spots, bounds=[bound], say=power_of_ten, min_tick=1.0)


def _spots(curve: Sequence[Point]) -> list[Spot]:
    return [
        Spot(at_s=p.at_s, value=p.estimate, low=p.low, high=p.high, stage=_stage_name(p))
        for p in curve
        if p.estimate is not None and p.low is not None and p.high is not None
    ]


def _stage_name(point: Point) -> str:
    return f"{point.weight_pct:g} %" if 0 < point.weight_pct < 100 else ""  # noqa: PLR2004 - the others have one share


def _band(band: tuple[float, float, float] | None, form: str) -> str:
    return f"{band[1]:{form}} ({band[0]:{form}} to {band[2]:{form}})" if band else '<span class="quiet">too few</span>'
