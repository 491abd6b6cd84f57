"""The summary and the decision as one HTML section for people; a page of its own or the top of the drift report."""

from collections.abc import Sequence
from html import escape

from clearway.monitor.carried import OTHER_SIZE
from clearway.monitor.decide import Decision
from clearway.monitor.drift_part import FeatureDrift
from clearway.monitor.estimate import Estimate
from clearway.monitor.length_part import LengthPart, length_words
from clearway.monitor.summary import ModelPerformance, Summary
from clearway.monitor.surprise_part import SurprisePart, surprise_words

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
        _performance(summary),
        _surprise(summary.surprise),
        _length(summary.length),
        _together(summary),
        _stream(summary),
        _feature_table(summary),
        "</section>",
    ]
    return "\n".join(parts)


def whole_page(body: str) -> str:
    """A page around a fragment, for a batch without a drift report."""
    head = '<meta charset="utf-8"><title>Monitor</title>'
    return f'<!DOCTYPE html><html lang="en"><head>{head}</head><body>{body}</body></html>'


def _performance(summary: Summary) -> str:
    """Of a model that is judged by labels."""
    if summary.performance is None:
        return ""
    champion = summary.performance.of(summary.champion_digest)
    estimate = _estimate_table(summary.estimate) if summary.estimate else ""
    return "\n".join([_performance_table(summary.performance.models), _age_table(champion), estimate])


def _surprise(part: SurprisePart | None) -> str:
    """Of a model that reads texts."""
    if part is None:
        return ""
    counts = [
        ("texts", part.num_documents),
        ("empty, not sent", part.num_empty),
        ("longer than the model takes, so only their beginning was sent", part.num_cut),
        ("not answered by the champion", part.num_unanswered),
        ("answered", part.num_judged),
        ("bytes of those", part.num_bytes),
    ]
    tables = [_table(("the batch's texts", ""), [(row, False) for row in counts])]
    found = part.measured
    if found is not None:
        interval = "-" if found.lower is None or found.upper is None else f"{found.lower:.3f} to {found.upper:.3f}"
        head = ("bits per byte", "95 %", f"values of {found.block}", "held out", "values", "excess", "limit")
        row = (
            _number(found.bits_per_byte),
            interval,
            found.num_blocks,
            _number(found.held_bits_per_byte),
            found.num_held_blocks,
            f"{found.excess:+.3f}",
            _number(found.limit),
        )
        tables.append(_table(head, [(row, found.over is not None and found.over > 1)]))
    note = (
        "A text is its own label, so what it cost is known with the answer. Limit: what a batch of so many values may "
        "cost beyond the held-out texts by chance, drawn from those."
    )
    return f"<h2>What the texts cost</h2><p>{escape(surprise_words(part))}. {note}</p>" + "".join(tables)


def _length(part: LengthPart | None) -> str:
    if part is None:
        return ""
    head = ("distance, doublings", "limit", "blocks", "held-out blocks", "longest, bytes", "texts that end there")
    row = (
        _number(part.doublings),
        _number(part.limit),
        part.num_blocks,
        part.num_held_blocks,
        part.longest,
        f"{part.num_longest} of {part.num_texts}",
    )
    is_over = part.is_cut or (part.over is not None and part.over > 1)
    return f"<h2>How long the texts are</h2><p>{escape(length_words(part))}.</p>" + _table(head, [(row, is_over)])


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


def _age_table(model: ModelPerformance | None) -> str:
    if model is None:
        return ""
    head = ("age of the labels, days", "labels", "mean label", "mean score", "log-loss")
    rows = [
        (a.age_days, a.num_rows, _number(a.mean_label), _number(a.mean_score), _number(a.log_loss))
        for a in model.by_age
    ]
    return _table(head, [(row, False) for row in rows])


def _estimate_table(estimate: Estimate) -> str:
    head = "<h2>Before its labels are there</h2>"
    if not estimate.is_known:
        return f"{head}<p>What this batch's scores are worth is <b>unknown</b>: {escape(estimate.reason)}.</p>"
    rows = [(f.name, _number(f.value), f"{f.lower:.3f} to {f.upper:.3f}") for f in estimate.figures]
    return f"{head}<p>{escape(estimate.reason)}.</p>" + _table(
        ("figure", "estimate", "95 %"), [(row, False) for row in rows]
    )


def _together(summary: Summary) -> str:
    found = summary.drift.together if summary.drift else None
    if found is None:
        return ""
    limit = f"training batches reached {found.limit:.3f}" if found.limit is not None else "no limit is known"
    return (
        f"<p>All features at once: a model tells this batch from training rows with an AUC of {found.auc:.3f} "
        f"({found.lower:.3f} to {found.upper:.3f}); {limit}.</p>"
    )


def _stream(summary: Summary) -> str:
    if summary.drift is None or summary.drift.p_value is None:
        return ""
    stream = summary.carried.stream
    this = ", this one among them" if stream.is_discovery else ""
    return (
        f"<p>Whether any feature changed: p = {summary.drift.p_value:.3g}. Of {stream.num_tests} windows of this "
        f"champion {len(stream.discoveries)} stand after control of false discoveries over all of them{this}.</p>"
    )


def _feature_table(summary: Summary) -> str:
    if summary.drift is None:
        return "<p>Drift was not measured.</p>"
    score = (summary.drift.score,) if summary.drift.score else ()
    ranked = sorted(summary.drift.features, key=lambda f: (not f.is_over, -(f.effect or 0.0)))
    shown = (*score, *ranked[:MAX_FEATURES])
    head = ("feature", "effect", "distance", "95 %", "limit", "q", "PSI", "JS", "KS", "missing", "in training", "note")
    note = (
        "<p>Distance: Wasserstein over the training standard deviation, or total variation of categories and tokens, "
        "on every row of the batch; its interval comes from the batch's days drawn anew. Effect: of all that moves the "
        "champion's predictions, the share that hangs on this feature; features over their limit come first, by "
        "effect. Limit: what training batches "
        "themselves reached. q: chance of a batch like those of training, after control of false discoveries. "
        "PSI, JS and KS (at least) are for information.</p>"
    )
    rows = [(_feature_row(f, summary.carried.held), bool(f.is_over)) for f in shown]
    return f"<h2>Features</h2>{note}" + _table(head, rows)


def _feature_row(feature: FeatureDrift, sudden: Sequence[str]) -> tuple[str | int, ...]:
    marks = [
        ("lost", feature.is_lost),
        ("ignored", feature.is_ignored),
        ("over limit", bool(feature.is_over)),
        ("jumped", feature.name in sudden),
        (f"{feature.unseen or 0:.1%} new values", bool(feature.unseen)),
        (f"{feature.size_factor or 1:.1f} times beyond its size", (feature.size_factor or 1.0) >= OTHER_SIZE),
    ]
    interval = "-" if feature.lower is None or feature.upper is None else f"{feature.lower:.3f} to {feature.upper:.3f}"
    return (
        feature.name,
        "-" if feature.effect is None else f"{feature.effect:.1%}",
        _number(feature.distance),
        interval,
        _number(feature.limit),
        _number(feature.q_value),
        _number(feature.psi),
        _number(feature.jensen_shannon),
        _number(feature.kolmogorov_smirnov[0] if feature.kolmogorov_smirnov else None),
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
