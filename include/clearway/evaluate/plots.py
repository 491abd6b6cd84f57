"""The report's pictures: which curves are drawn, from the holdout's scores."""

import numpy as np

from clearway.evaluate.evidence import CANDIDATE, CHAMPION, LINE, TREES, Evidence, Holdout
from clearway.evaluate.margins import Margins
from clearway.infra.charts import COLORS, Axes, bars, chart, dots, interval_mark, legend, line, ticks, vertical
from clearway.measures import binary
from clearway.measures.binary import Array

GREY, RED = "#8a97a6", "#c4292b"
NUM_SCORE_BINS = 40
_ORDER = (LINE, TREES, CHAMPION, CANDIDATE)  # the candidate is drawn last, on top
_WORDS = {CANDIDATE: "candidate", CHAMPION: "champion", TREES: "boosted trees", LINE: "logistic regression"}


def _shown(holdout: Holdout) -> list[str]:
    return [name for name in _ORDER if name in holdout.scores]


def _legend(names: list[str]) -> str:
    return legend([(_WORDS[n], COLORS[n]) for n in reversed(names)])


def roc_curves(holdout: Holdout) -> str:
    """True against false positive rate, all models."""
    unit = ticks(0, 1, digits=1)
    axes = Axes(
        x=(0, 1), y=(0, 1), x_label="false positive rate", y_label="true positive rate", x_ticks=unit, y_ticks=unit
    )
    marks = [line(axes, [0, 1], [0, 1], color=GREY, dashed=True, width=1)]
    for name in _shown(holdout):
        x, y = binary.roc(holdout.labels, holdout.scores[name])
        marks.append(line(axes, x, y, color=COLORS[name], width=2.4 if name == CANDIDATE else 1.4))
    return chart(axes, *marks, title="ROC curves") + _legend(_shown(holdout))


def calibration(holdout: Holdout) -> str:
    """Mean label against mean score in ten bins of equal mass; the diagonal is perfect."""
    shown = [n for n in _shown(holdout) if n in {CANDIDATE, CHAMPION}]
    curves = {n: binary.reliability(holdout.labels, holdout.scores[n]) for n in shown}
    top = float(np.ceil(max(max(c.mean_score.max(), c.mean_label.max()) for c in curves.values()) * 10) / 10)
    unit = ticks(0, top)
    axes = Axes(x=(0, top), y=(0, top), x_label="mean score", y_label="share of ones", x_ticks=unit, y_ticks=unit)
    marks = [line(axes, [0, top], [0, top], color=GREY, dashed=True, width=1)]
    for name, curve in curves.items():
        marks.append(line(axes, curve.mean_score, curve.mean_label, color=COLORS[name], width=1.5))
        marks.append(dots(axes, curve.mean_score, curve.mean_label, color=COLORS[name]))
    return chart(axes, *marks, title="Calibration") + _legend(shown)


def score_histogram(holdout: Holdout) -> str:
    """Density of the candidate's scores, separately for rows that turned out 0 and 1."""
    edges = np.linspace(0, 1, NUM_SCORE_BINS + 1)
    scores = holdout.scores[CANDIDATE]
    heights = {v: _density(scores[holdout.labels == v], edges) for v in (0.0, 1.0)}
    top = float(max(h.max() for h in heights.values())) * 1.05
    axes = Axes(
        x=(0, 1),
        y=(0, top),
        x_label="score of the candidate",
        y_label="density",
        x_ticks=ticks(0, 1, digits=1),
        y_ticks=ticks(0, top, digits=1),
    )
    marks = [bars(axes, edges, heights[0.0], color=COLORS[CANDIDATE]), bars(axes, edges, heights[1.0], color=RED)]
    return chart(axes, *marks, title="Scores by outcome") + legend([("label 0", COLORS[CANDIDATE]), ("label 1", RED)])


def _density(values: Array, edges: Array) -> Array:
    counts, _ = np.histogram(values, bins=edges)
    return np.asarray(counts / max(1, values.size) / np.diff(edges), dtype=np.float64)


def daily_losses(holdout: Holdout) -> str:
    """Mean log-loss of each day, all models: days are the blocks of every interval on this page."""
    days, codes = np.unique(holdout.days, return_inverse=True)
    sizes = np.bincount(codes)
    means = {
        n: np.bincount(codes, weights=binary.row_log_loss(holdout.labels, holdout.scores[n])) / sizes
        for n in _shown(holdout)
    }
    low, high = min(m.min() for m in means.values()), max(m.max() for m in means.values())
    pad = max(0.02, 0.08 * (high - low))
    y = (max(0.0, float(low - pad)), float(high + pad))
    at = np.arange(days.size, dtype=np.float64)
    step = max(1, days.size // 7)
    names = [(float(i), str(np.datetime64(int(d), "D"))[5:]) for i, d in enumerate(days) if i % step == 0]
    axes = Axes(
        x=(-0.4, max(0.6, days.size - 0.6)),
        y=y,
        x_label="day (UTC)",
        y_label="log-loss, nats",
        x_ticks=names,
        y_ticks=ticks(*y),
    )
    marks = [line(axes, at, means[n], color=COLORS[n], width=2.4 if n == CANDIDATE else 1.4) for n in means]
    marks.append(dots(axes, at, means[CANDIDATE], color=COLORS[CANDIDATE]))
    return chart(axes, *marks, title="Log-loss by day") + _legend(_shown(holdout))


def differences(evidence: Evidence, margins: Margins) -> str:
    """Paired differences with their bounds, against the margin: what lies right of the red line is too much worse."""
    pictures = (
        _forest(evidence, is_auc=False, margin=margins.logloss),
        _forest(evidence, is_auc=True, margin=margins.auc),
    )
    cells = "".join(f"<div>{p}</div>" for p in pictures)
    note = (
        '<p class="soft">Dots are estimates, bars reach from the lower to the upper one-sided bound (whole days '
        "resampled). Right of zero the candidate is worse; the dashed red line is the margin.</p>"
    )
    return f'<div class="grid">{cells}</div>{note}'


def _forest(evidence: Evidence, *, is_auc: bool, margin: float) -> str:
    shown = [n for n in (CHAMPION, TREES, LINE) if n in evidence.comparisons]
    bounds = {}
    for name in shown:
        c = evidence.comparisons[name]
        found = c.auc if is_auc else c.logloss
        worse = (-found.upper, -found.estimate, -found.lower)
        bounds[name] = worse if is_auc else (found.lower, found.estimate, found.upper)
    reach = 1.15 * max([margin, *(abs(b) for three in bounds.values() for b in three)])
    axes = Axes(
        x=(-reach, reach),
        y=(0.0, len(shown) + 0.5),
        x_label="AUC lost" if is_auc else "log-loss added, nats",
        y_label="",
        x_ticks=ticks(-reach, reach, count=4, digits=3),
        y_ticks=[],
    )
    marks = [vertical(axes, 0.0, color=GREY, dashed=False), vertical(axes, margin, color=RED)]
    for row, name in enumerate(reversed(shown)):
        marks.append(interval_mark(axes, row + 0.7, bounds[name], color=COLORS[name]))
        place = axes.py(row + 0.7) - 12
        marks.append(f'<text x="{axes.px(-reach) + 4:.0f}" y="{place:.0f}">against {_WORDS[name]}</text>')
    return chart(axes, *marks, title="Paired differences in " + ("AUC" if is_auc else "log-loss"))
