"""The page a reviewer decides on: verdict, gates, comparisons, curves, slices, and where the thresholds came from."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta

from clearway.contracts.verdict import Judgement, Verdict
from clearway.evaluate import plots
from clearway.evaluate.evidence import CANDIDATE, CHAMPION, LINE, TREES, Comparison, Evidence, Holdout
from clearway.evaluate.folds import Fold
from clearway.evaluate.judging import EPOCH
from clearway.evaluate.live import Latency
from clearway.evaluate.margins import FORMULAS, Margins
from clearway.infra.pages import checks_table, number, page, section, table, text, tiles

NAMES = {CANDIDATE: "candidate", CHAMPION: "champion", TREES: "boosted trees", LINE: "logistic regression"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """What the page shows.

    Args:
        provenance: (what, value) pairs: digests, addresses of nothing.
        latency: measured in this run; shown, not part of the evaluation's digest.
    """

    title: str
    judgement: Judgement
    evidence: Evidence
    holdout: Holdout
    margins: Margins
    folds: Sequence[Fold]
    latency: Latency
    provenance: Sequence[tuple[str, str]]


def render(content: Page) -> bytes:
    """HTML bytes, below 1 MB whatever the number of rows: every curve is thinned."""
    return page(
        title=content.title,
        verdict=content.judgement.verdict,
        lead=_lead(content),
        reasons=content.judgement.reasons,
        body=_body(content),
    )


def render_error(judgement: Judgement, *, title: str, provenance: Sequence[tuple[str, str]]) -> bytes:
    """The page when nothing could be measured: what stood in the way, and what was judged."""
    rows = [[text(k), f"<code>{text(v)}</code>"] for k, v in provenance]
    body = [section("Checks", checks_table(judgement.checks)), section("What was judged", table(("", ""), rows))]
    return page(title=title, verdict=judgement.verdict, lead="No figures", reasons=judgement.reasons, body=body)


def _lead(content: Page) -> str:
    evidence, days = content.evidence, content.holdout.days
    return (
        f"{evidence.num_rows:,} held-out rows of {evidence.num_days} days, "
        f"{_day(int(days.min()))} to {_day(int(days.max()))}, {evidence.num_positives / evidence.num_rows:.1%} positive"
    )


def _day(days: int) -> str:
    return (EPOCH + timedelta(days=days)).isoformat()


def _body(content: Page) -> Iterator[str]:
    figures = content.evidence.figures[CANDIDATE]
    checks = content.judgement.checks
    passed = sum(c.verdict is Verdict.PASS for c in checks if c.is_decisive)
    yield tiles(
        [
            (f"{passed} / {sum(c.is_decisive for c in checks)}", "gates passed"),
            (f"{figures.auc:.4f}", "AUC"),
            (f"{figures.logloss:.4f}", "log-loss (nats)"),
            (f"{figures.skill:.1%}", "log-loss saved vs base rate"),
            (f"{figures.ece:.4f}", "calibration error (ECE)"),
            (f"{content.latency.p99_ms:.2f} ms", "p99 of one row (CPU)"),
        ]
    )
    whole = [c for c in checks if not c.name.startswith("slice_")]
    yield section("Gates", checks_table(whole))
    forests = plots.differences(content.evidence, content.margins)
    yield section("Against the same rows", _comparisons(content.evidence), forests)
    yield f'<div class="grid">{"".join(_curves(content.holdout))}</div>'
    yield section("Slices", _slices(content))
    yield section("Where the thresholds come from", *_derivation(content))
    rows = [[text(k), f"<code>{text(v)}</code>"] for k, v in content.provenance]
    yield section("What was judged", table(("", ""), rows))


def _curves(holdout: Holdout) -> Iterator[str]:
    yield section("ROC", plots.roc_curves(holdout))
    yield section("Calibration", plots.calibration(holdout))
    yield section("Scores by outcome", plots.score_histogram(holdout))
    yield section("Log-loss by day", plots.daily_losses(holdout))


def _comparisons(evidence: Evidence) -> str:
    rows = []
    for name, figures in evidence.figures.items():
        comparison = evidence.comparisons.get(name)
        rows.append(
            [
                text(NAMES[name]),
                *(f"{v:.4f}" for v in (figures.auc, figures.logloss, figures.skill, figures.brier, figures.ece)),
                *_interval_cells(comparison),
            ]
        )
    head = ("model", "AUC", "log-loss", "skill", "Brier", "ECE", "log-loss added", "AUC gained", "rows")
    return table(head, rows, numeric=range(1, len(head)))


def _interval_cells(comparison: Comparison | None) -> list[str]:
    if comparison is None:
        return ["–", "–", "–"]
    loss, auc = comparison.logloss, comparison.auc
    return [
        f"{loss.estimate:+.4f} [{loss.lower:+.4f}, {loss.upper:+.4f}]",
        f"{auc.estimate:+.4f} [{auc.lower:+.4f}, {auc.upper:+.4f}]",
        f"{comparison.num_rows:,}",
    ]


def _slices(content: Page) -> str:
    broken = {
        c.name.partition("[")[2].rstrip("]")
        for c in content.judgement.checks
        if c.name.startswith("slice_") and c.verdict is not Verdict.PASS
    }
    rows = [
        [
            f"<code>{text(s.name)}</code>",
            _slice_badge(s.is_gated, s.name in broken),
            f"{s.num_rows:,}",
            f"{s.num_positives / s.num_rows:.1%}",
            number(s.auc),
            number(s.auc_gap, digits=2),
            f"{s.calibration_gap:+.3f}",
            f"{s.logloss:.4f}",
            number(s.logloss_excess, digits=2),
        ]
        for s in content.evidence.slices
    ]
    head = ("slice", "", "rows", "positive", "AUC", "− overall", "score − label", "log-loss", "excess vs champion")
    m = content.margins
    limits = (
        f"Limits: AUC at most {m.slice_auc:.3f} below all rows, calibration within {m.slice_calibration:.3f} of it, "
        f"both beyond what the trees show there; at most {m.slice_logloss:.4f} nats more lost to the champion. "
        "Small groups are reported, not gated."
    )
    return f'<p class="soft">{limits}</p>' + table(head, rows, numeric=range(2, len(head)))


def _slice_badge(is_gated: bool, is_broken: bool) -> str:
    if not is_gated:
        return '<span class="soft">too small</span>'
    word = Verdict.FAIL.value if is_broken else Verdict.PASS.value
    return f'<span class="v {word}">{word}</span>'


def _derivation(content: Page) -> Iterator[str]:
    yield (
        '<p class="soft">Forward-chaining folds of the training period, judged as the holdout is: boosted trees and '
        "logistic regression trained on all earlier days (thinned), judged on the block.</p>"
    )
    head = ("block", "rows", "AUC trees", "AUC line", "skill", "gain (nats)", "SE log-loss", "SE AUC")
    rows = [
        [
            f"{_day(f.first_day)} … {_day(f.last_day)}",
            f"{f.num_rows:,}",
            *(f"{v:.4f}" for v in (f.auc_trees, f.auc_line, f.skill, f.gain_nats, f.logloss_se, f.auc_se)),
        ]
        for f in content.folds
    ]
    yield table(head, rows, numeric=range(1, len(head)))
    m = content.margins
    named = [(name, getattr(m, name), formula) for name, formula in FORMULAS.items()]
    yield table(
        ("threshold", "value", "formula"),
        ([f"<code>{text(n)}</code>", f"{v:.4f}", text(f)] for n, v, f in named),
        numeric=(1,),
    )
