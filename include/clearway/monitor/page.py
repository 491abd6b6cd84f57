"""The summary and the decision as one HTML section for people; a page of its own or the top of the drift report."""

from html import escape

from clearway.monitor.decide import Decision
from clearway.monitor.summary import FeatureDrift, ModelPerformance, Summary

# Rows of the feature table; the whole list is in summary.json.
MAX_FEATURES = 25
_STYLE = """<style>
.cw{font:14px/1.45 system-ui,sans-serif;max-width:1080px;margin:24px auto;padding:0 16px;color:#1c2430}
.cw table{border-collapse:collapse;margin:8px 0 20px}
.cw td,.cw th{padding:3px 10px;border-bottom:1px solid #dde2e8;text-align:right}
.cw td:first-child,.cw th:first-child{text-align:left}.cw .over{background:#fde7e2}.cw code{font-size:12px}
</style>"""


def section(summary: Summary, decision: Decision) -> str:
    """HTML fragment; names the digest of the summary it was made from."""
    parts = [
        _STYLE,
        f'<section class="cw" data-summary="{summary.digest}">',
        f"<h1>{escape(summary.product)}: batch {escape(summary.batch_id)}</h1>",
        f"<p><b>{summary.verdict.value}</b>: {escape(summary.reason)}</p>",
        f"<p>Retraining: <b>{decision.answer.value}</b>. {escape('; '.join(decision.reasons))}.</p>",
        f"<p>Champion <code>{escape(summary.champion_digest or 'none')}</code>, data up to {escape(summary.as_of)}, "
        f"evidence <code>{decision.evidence_digest}</code>.</p>",
        _performance_table(summary.performance.models),
        _feature_table(summary),
        "</section>",
    ]
    return "\n".join(parts)


def whole_page(body: str) -> str:
    """A page around a fragment, for a batch without a drift report."""
    head = '<meta charset="utf-8"><title>Monitor</title>'
    return f'<!DOCTYPE html><html lang="en"><head>{head}</head><body>{body}</body></html>'


def _performance_table(models: tuple[ModelPerformance, ...]) -> str:
    if not models:
        return "<p>No label that arrived belongs to a logged prediction: performance is unknown, not fine.</p>"
    head = ("model", "labels", "days", "mean label", "mean score", "AUC", "log-loss", "ECE")
    rows = [
        (
            m.model_digest[:12],
            m.num_rows,
            m.num_days,
            _number(m.mean_label),
            _number(m.mean_score),
            _number(m.auc),
            _number(m.log_loss),
            _number(m.ece),
        )
        for m in models
    ]
    return "<h2>On labels that arrived</h2>" + _table(head, [(row, False) for row in rows])


def _feature_table(summary: Summary) -> str:
    if summary.drift is None:
        return "<p>Drift was not measured.</p>"
    score = (summary.drift.score,) if summary.drift.score else ()
    shown = (*score, *summary.drift.features[:MAX_FEATURES])
    head = ("feature", "distance", "limit", "PSI", "JS", "missing", "missing in training", "note")
    note = (
        "<p>Distance: Wasserstein over the training standard deviation, or total variation for categories, on every "
        "row of the batch. Limit: what training batches themselves reached. PSI and JS are for information.</p>"
    )
    return f"<h2>Features</h2>{note}" + _table(head, [(_feature_row(f), bool(f.is_over)) for f in shown])


def _feature_row(feature: FeatureDrift) -> tuple[str | int, ...]:
    marks = [("lost", feature.is_lost), ("ignored", feature.is_ignored), ("over limit", bool(feature.is_over))]
    return (
        feature.name,
        _number(feature.distance),
        _number(feature.limit),
        _number(feature.psi),
        _number(feature.jensen_shannon),
        _number(feature.missing),
        _number(feature.missing_reference),
        ", ".join(word for word, holds in marks if holds),
    )


def _table(head: tuple[str, ...], rows: list[tuple[tuple[str | int, ...], bool]]) -> str:
    lines = ["<tr>" + "".join(f"<th>{escape(h)}</th>" for h in head) + "</tr>"]
    for cells, is_marked in rows:
        mark = ' class="over"' if is_marked else ""
        lines.append(f"<tr{mark}>" + "".join(f"<td>{escape(str(c))}</td>" for c in cells) + "</tr>")
    return f"<table>{''.join(lines)}</table>"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
