"""A rollout as HTML: plan, evidence, what was said, and the forms that order one that is under way. Pure."""

from html import escape

from clearway.contracts.release_document import Phase, ReleaseDocument
from clearway.contracts.rollout import OrderKind, Rollout
from clearway_airflow.ui.evidence_view import evidence_panel
from clearway_airflow.ui.pieces import code, table, time, verdict

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
    facts = [
        ["strategy", code(rollout.strategy)],
        ["plan", plan_line(rollout)],
        ["waits for", escape(rollout.waits_for) or '<span class="quiet">nothing, it goes on</span>'],
    ]
    if rollout.order:
        facts.append(["ordered", escape(f"{rollout.order.kind.value} by {rollout.order.by}, not yet followed")])
    return f"<h3>Rollout</h3>{table(['', ''], facts)}{evidence_panel(rollout)}{said_panel(rollout)}"


def said_panel(rollout: Rollout) -> str:
    """What looks and people said, newest first; "" if nothing was."""
    trail = [
        [
            time(r.at_s),
            f"{r.weight_pct:g}\u00a0%",
            f"{r.num_requests:,}" if r.num_requests else "",
            verdict(r.verdict.value if r.verdict else "order"),
            escape(r.reason),
        ]
        for r in reversed(rollout.trail)
    ]
    if not trail:
        return ""
    return "<h3>Verdicts</h3>" + table(["when (UTC)", "share", "requests", "verdict", "why"], trail)


def plan_line(rollout: Rollout) -> str:
    """The steps, the one that was reached in bold."""
    return " → ".join(
        f"<b>{step.label}</b>" if i == rollout.index else step.label for i, step in enumerate(rollout.plan)
    )


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
