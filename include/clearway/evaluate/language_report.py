"""The page a reviewer of a language model decides on: verdict, gates, comparisons, slices."""

from collections.abc import Iterator

from clearway.contracts.verdict import Judgement, Verdict
from clearway.evaluate.evidence import CANDIDATE, CHAMPION
from clearway.evaluate.kinds import Frame
from clearway.evaluate.language_evidence import COMPRESSOR, TextEvidence
from clearway.evaluate.language_gates import SLICE_ROOM
from clearway.infra.charts import Axes, chart, interval_mark, ticks, vertical
from clearway.infra.pages import checks_table, page, section, table, text, tiles

NAMES = {CANDIDATE: "candidate", CHAMPION: "champion", COMPRESSOR: "compressor (DEFLATE, primed)"}
COLORS = {CHAMPION: "#d9730d", COMPRESSOR: "#18794e"}
GREY, RED = "#8a97a6", "#c4292b"


def render(evidence: TextEvidence, judgement: Judgement, *, margin: float, frame: Frame) -> bytes:
    """HTML bytes; no text of a document is in it."""
    lead = (
        f"{evidence.num_documents:,} held-out documents, {evidence.num_bytes:,} bytes, of {evidence.num_blocks} "
        f"blocks; {evidence.num_repeated:,} more stand in the training part word for word and were left out"
    )
    return page(
        title=frame.title,
        verdict=judgement.verdict,
        lead=lead,
        reasons=judgement.reasons,
        body=_body(evidence, judgement, margin, frame),
    )


def _body(evidence: TextEvidence, judgement: Judgement, margin: float, frame: Frame) -> Iterator[str]:
    decisive = [c for c in judgement.checks if c.is_decisive]
    passed = sum(c.verdict is Verdict.PASS for c in decisive)
    yield tiles(
        [
            (f"{passed} / {len(decisive)}", "gates passed"),
            (f"{evidence.bits[CANDIDATE]:.4f}", "bits per byte"),
            (f"{evidence.bits[COMPRESSOR]:.4f}", "compressor's"),
            (f"{frame.latency.p99_ms:.1f} ms", "p99 of one text (CPU)"),
        ]
    )
    yield section("Gates", checks_table(c for c in judgement.checks if not c.name.startswith("slice_")))
    yield section("Against the same documents", _comparisons(evidence), _forest(evidence, margin))
    yield section("Slices", _slices(evidence, judgement, margin))
    rows = [[text(k), f"<code>{text(v)}</code>"] for k, v in frame.provenance]
    yield section("What was judged", table(("", ""), rows))


def _comparisons(evidence: TextEvidence) -> str:
    rows = []
    for name, bits in evidence.bits.items():
        found = evidence.comparisons.get(name)
        cells = ["–", "–"]
        if found is not None:
            d = found.difference
            cells = [f"{d.estimate:+.4f} [{d.lower:+.4f}, {d.upper:+.4f}]", f"{found.num_documents:,}"]
        rows.append([text(NAMES[name]), f"{bits:.4f}", *cells])
    return table(("model", "bits per byte", "candidate's more", "documents"), rows, numeric=(1, 2, 3))


def _forest(evidence: TextEvidence, margin: float) -> str:
    """Paired differences with their bounds: what lies right of the red line is too much worse than the champion."""
    shown = [n for n in (CHAMPION, COMPRESSOR) if n in evidence.comparisons]
    if not shown:
        return ""
    found = {n: evidence.comparisons[n].difference for n in shown}
    reach = 1.15 * max([margin, 1e-3, *(max(abs(d.lower), abs(d.upper)) for d in found.values())])
    axes = Axes(
        x=(-reach, reach),
        y=(0.0, len(shown) + 0.5),
        x_label="bits per byte added",
        y_label="",
        x_ticks=ticks(-reach, reach, count=4, digits=3),
        y_ticks=[],
    )
    marks = [vertical(axes, 0.0, color=GREY, dashed=False), vertical(axes, margin, color=RED)]
    for row, name in enumerate(reversed(shown)):
        d = found[name]
        marks.append(interval_mark(axes, row + 0.7, (d.lower, d.estimate, d.upper), color=COLORS[name]))
        place = axes.py(row + 0.7) - 12
        marks.append(f'<text x="{axes.px(-reach) + 4:.0f}" y="{place:.0f}">against the {NAMES[name]}</text>')
    note = (
        '<p class="soft">Dots are estimates, bars reach from the lower to the upper one-sided bound (whole blocks '
        "resampled). Right of zero the candidate is worse; the dashed red line is the margin to the champion.</p>"
    )
    return f'<div class="grid"><div>{chart(axes, *marks, title="Paired differences")}</div></div>{note}'


def _slices(evidence: TextEvidence, judgement: Judgement, margin: float) -> str:
    verdicts = {c.name: c.verdict.value for c in judgement.checks if c.name.startswith("slice_")}

    def badge(name: str) -> str:
        word = verdicts.get(name)
        return f'<span class="v {word}">{word}</span>' if word else '<span class="soft">not gated</span>'

    rows = [
        [
            f"<code>{text(s.name)}</code>",
            f"{s.num_documents:,}",
            f"{s.num_bytes:,}",
            f"{s.bits:.4f}",
            f"{s.over_compressor:+.4f}",
            badge(f"slice_compressor[{s.name}]"),
            "–" if s.over_champion is None else f"{s.over_champion:+.4f}",
            badge(f"slice_champion[{s.name}]"),
        ]
        for s in evidence.slices
    ]
    head = ("slice", "documents", "bytes", "bits per byte", "over compressor", "", "over champion", "")
    limits = f"Limits: the compressor's bits; at most {SLICE_ROOM * margin:.4f} bits per byte over the champion's."
    return f'<p class="soft">{limits}</p>' + table(head, rows, numeric=(1, 2, 3, 4, 6))
