"""A rollout under way as HTML: plan, evidence curve, what was said, and the forms that order it. Pure."""

from collections.abc import Iterable, Sequence
from html import escape
from math import log10
from typing import Any

from clearway.contracts.release_document import Phase, ReleaseDocument
from clearway.contracts.rollout import OrderKind, Rollout
from clearway_airflow.ui.pieces import code, table, time, verdict

WIDTH, HEIGHT, MARGIN = 640, 130, 34
_SAYS = {
    OrderKind.PROMOTE: "Promote now, without the evidence that is missing",
    OrderKind.ABORT: "Give the traffic back",
    OrderKind.PAUSE: "Stay at this share",
    OrderKind.RESUME: "Go on",
}


def rollout_panel(document: ReleaseDocument) -> str:
    """What there is to know about the rollout under way; "" if there is none."""
    rollout = document.rollout
    if rollout is None or document.release_id is None:
        return ""
    shares = " → ".join(
        f"<b>{step.label}</b>" if i == rollout.index else step.label for i, step in enumerate(rollout.plan)
    )
    facts = [
        ["strategy", code(rollout.strategy)],
        ["plan", shares],
        ["waits for", escape(rollout.waits_for) or '<span class="quiet">nothing, it goes on</span>'],
    ]
    if rollout.order:
        facts.append(["ordered", escape(f"{rollout.order.kind.value} by {rollout.order.by}, not yet followed")])
    trail = [
        [time(r.at_s), f"{r.weight_pct:g} %", verdict(r.verdict.value if r.verdict else "order"), escape(r.reason)]
        for r in reversed(rollout.trail)
    ]
    said = table(["when (UTC)", "share", "verdict", "why"], trail) if trail else ""
    return f"<h3>Rollout</h3>{table(['', ''], facts)}{_curves(rollout)}{said}"


def order_forms(document: ReleaseDocument, *, base: str) -> str:
    """What a person may order the rollout under way to do; "" if there is none.

    Args:
        base: address below which `<release DAG>/orders` takes the forms.
    """
    rollout = document.rollout
    if rollout is None or document.release_id is None or document.phase is not Phase.DEPLOYING:
        return ""
    kinds = [OrderKind.PROMOTE, OrderKind.ABORT, OrderKind.RESUME if rollout.is_paused else OrderKind.PAUSE]
    action, release = escape(f"{base}/{document.product}_release/orders"), escape(document.release_id)
    return "".join(
        f'<details data-order="{kind.value}"><summary>{escape(kind.value.capitalize())} …</summary>'
        f'<form method="post" action="{action}"><p>{escape(_SAYS[kind])}.</p>'
        f'<input type="hidden" name="kind" value="{kind.value}">'
        f'<input type="hidden" name="release_id" value="{release}">'
        '<p><input name="reason" required maxlength="500" placeholder="Why? It is kept in the history." size="48"></p>'
        '<p><label><input type="checkbox" name="confirmed" value="yes" required> '
        f"Yes, {kind.value} {code(document.release_id)}</label></p>"
        f"<button>{escape(kind.value.capitalize())}</button></form></details>"
        for kind in kinds
    )


def split_evidence(rollout: Rollout) -> dict[str, Any]:
    """What the judge of shares has stored, or nothing: the one place that knows where it lies."""
    return dict(rollout.evidence.get("split", {}))


def _curves(rollout: Rollout) -> str:
    rules = rollout.rules.get("split", {})
    points = list(split_evidence(rollout).get("curve", ()))
    if len(points) < 2:  # noqa: PLR2004 - a line needs two
        return ""
    times = [p["at_s"] for p in points]
    harm = [log10(max(p["harm_e"], 1e-6)) for p in points]
    alpha = float(rules.get("alpha", 0.01))
    num_decisive = sum(m["is_decisive"] for m in rules.get("metrics", ())) or 1
    bound = log10(num_decisive / alpha)
    drawn = _chart("evidence of harm, 10^y; dashed: taken back", times, [(harm, "line")], bounds=(bound,))
    seen = [p for p in points if p["estimate"] is not None]
    if len(seen) < 2:  # noqa: PLR2004
        return drawn
    band = [([p[name] for p in seen], kind) for name, kind in (("low", "edge"), ("estimate", "line"), ("high", "edge"))]
    margin = float(rules["metrics"][0]["margin"])
    title = f"difference in {rules['metrics'][0]['kind']} with its band; dashed: margin"
    return drawn + _chart(title, [p["at_s"] for p in seen], band, bounds=(margin,))


def _chart(
    title: str, times: Sequence[float], lines: Iterable[tuple[Sequence[float], str]], *, bounds: Sequence[float]
) -> str:
    lines = list(lines)
    values = [v for line, _ in lines for v in line] + [*bounds, 0.0]
    low, high = min(values), max(values)
    span_s, span = (times[-1] - times[0]) or 1.0, (high - low) or 1.0

    def at(when: float, value: float) -> str:
        x = MARGIN + (WIDTH - MARGIN) * (when - times[0]) / span_s
        return f"{x:.1f},{HEIGHT * (1 - (value - low) / span):.1f}"

    drawn = "".join(
        f'<polyline class="{kind}" points="{" ".join(at(t, v) for t, v in zip(times, line, strict=True))}"/>'
        for line, kind in lines
    )
    drawn += "".join(f'<polyline class="bound" points="{at(times[0], b)} {at(times[-1], b)}"/>' for b in bounds)
    labels = f'<text x="0" y="10">{high:.3g}</text><text x="0" y="{HEIGHT}">{low:.3g}</text>'
    box = f'viewBox="0 -6 {WIDTH} {HEIGHT + 12}" width="{WIDTH}" role="img" aria-label="{escape(title)}"'
    return f"<figure><figcaption>{escape(title)}</figcaption><svg {box}>{labels}{drawn}</svg></figure>"
