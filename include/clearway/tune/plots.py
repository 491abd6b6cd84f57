"""The pictures of a study's page: history, importance, parallel coordinates, Pareto front."""

import warnings
from collections.abc import Mapping, Sequence

import numpy as np
from optuna.importance import get_param_importances
from optuna.trial import FrozenTrial, TrialState

from clearway.infra.charts import HEIGHT, Axes, chart, dots, legend, line, ticks, vertical
from clearway.tune.brief import Brief
from clearway.tune.choosing import Candidate, known_trials
from clearway.tune.proposals import distributions, to_unit, view
from clearway.tune.study import Searched

BLUE, ORANGE, GREEN, GREY = "#2563a8", "#d9730d", "#18794e", "#c3ccd6"
BEST_SHARE = 0.25  # of the trials, drawn in colour among parallel coordinates
MIN_FOR_IMPORTANCE = 10  # fewer trials than Optuna draws at random before it models anything


def history(searched: Searched, found: Sequence[Candidate]) -> str:
    """Loss of each trial less that of the model as written on the same rows, and the best so far."""
    at = [float(c.index) for c in found]
    differences = _thousandths(found)
    best = np.minimum.accumulate(differences)
    low, high = _around(differences, spread=0.9)
    shown = [min(d, high) for d in differences]
    last = max(1.0, searched.brief.num_trials - 1.0)
    axes = Axes(
        x=(-0.5, last + 0.5),
        y=(low, high),
        x_label="trial",
        y_label=_added(searched),
        x_ticks=[(float(round(v)), f"{v:.0f}") for v, _ in ticks(0, last)],
        y_ticks=ticks(low, high, digits=1),
    )
    turns = range(searched.brief.refresh_every, searched.brief.num_trials, searched.brief.refresh_every)
    marks = [vertical(axes, turn - 0.5, color="#8a97a6") for turn in turns]
    marks += [dots(axes, at, shown, color=BLUE), line(axes, at, best, color=GREEN, width=1.6)]
    marks.append(_marked(axes, searched, dict(zip(at, shown, strict=True))))
    names = [("trial", BLUE), ("best so far", GREEN), ("chosen", ORANGE)]
    return chart(axes, *marks, title="History of the study") + legend(names)


def importance(searched: Searched) -> str:
    """Share of the spread between good and bad trials that each parameter explains."""
    shares = importances(searched)
    if not shares:
        return f'<p class="soft">Fewer than {MIN_FOR_IMPORTANCE} judged trials say nothing about importance.</p>'
    axes = Axes(
        x=(0.0, 1.0),
        y=(0.0, float(len(shares))),
        x_label="share",
        y_label="",
        x_ticks=ticks(0, 1, digits=1),
        y_ticks=[],
    )
    marks = []
    for row, (name, share) in enumerate(reversed(shares.items())):
        top, left = axes.py(row + 0.55), axes.px(0.0)
        marks.append(
            f'<rect x="{left:.1f}" y="{top:.1f}" width="{axes.px(share) - left:.1f}" height="9" fill="{BLUE}"/>'
            f'<text x="{left + 4:.1f}" y="{top - 4:.1f}">{name} {share:.2f}</text>'
        )
    return chart(axes, *marks, title="Importance of the parameters")


def importances(searched: Searched) -> dict[str, float]:
    """PED-ANOVA (Watanabe et al. 2023), Optuna's default; largest first, {} for too few trials."""
    tune = searched.brief.tune
    study = view(known_trials(searched.tasks, searched.ended), tune, seed=0)
    judged = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    if len(judged) < MIN_FOR_IMPORTANCE:
        return {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # it says that small values of a target count as good: they are
        return get_param_importances(study, target=_loss)


def _loss(trial: FrozenTrial) -> float:
    return float(trial.values[0])


def parallel_coordinates(searched: Searched, found: Sequence[Candidate]) -> str:
    """One line per trial through its parameters; the best quarter in colour, the chosen one on top."""
    brief = searched.brief
    space = distributions(brief.product.spec.model, brief.tune.space)
    names, trials = list(space), searched.trials
    at = np.linspace(0, 1, len(names) + 1)
    losses = dict(zip((c.index for c in found), _thousandths(found), strict=True))
    low, high = _around(list(losses.values()), spread=0.9)
    axes = Axes(x=(0, 1), y=(0, 1), x_label="", y_label="", x_ticks=[], y_ticks=[])
    ranked = sorted(losses, key=lambda index: -losses[index])  # worst first, so that the best are drawn on top
    num_best = max(1, round(BEST_SHARE * len(ranked)))
    marks = [vertical(axes, float(x), color="#8a97a6", dashed=False) for x in at]
    ends = [*_limits(brief), (f"{low:.1f}", f"{high:.1f}")]
    for place, (x, name, limits) in enumerate(zip(at, [*names, f"{searched.words.loss} added"], ends, strict=True)):
        marks.append(_label(axes, float(x), name, limits, row=place % 2))
    for place, index in enumerate(ranked):
        heights = [to_unit(space[name], trials[index].params[name]) for name in names]
        heights.append(min(1.0, (losses[index] - low) / (high - low)))
        is_chosen, is_best = index == searched.chosen.index, place >= len(ranked) - num_best
        color = ORANGE if is_chosen else BLUE if is_best else GREY
        marks.append(line(axes, at, heights, color=color, width=2.4 if is_chosen else 1.0))
    names_shown = [("best quarter", BLUE), ("others", GREY), ("chosen", ORANGE)]
    return chart(axes, *marks, title="Parallel coordinates") + legend(names_shown)


def pareto_front(searched: Searched, found: Sequence[Candidate]) -> str:
    """Cost and loss of each trial, and the trials that no other beats in both."""
    differences, costs = _thousandths(found), [c.cost for c in found]
    y, x = _around(differences, spread=0.9), _around(costs, spread=1.0)
    axes = Axes(
        x=x,
        y=y,
        x_label=f"multiply-adds of {searched.words.priced}",
        y_label=_added(searched),
        x_ticks=ticks(*x, count=4, digits=0),
        y_ticks=ticks(*y, digits=1),
    )
    front = non_dominated(list(zip(costs, differences, strict=True)))
    shown = [min(d, y[1]) for d in differences]
    marks = [dots(axes, costs, shown, color=BLUE)]
    marks.append(line(axes, [c for c, _ in front], [min(d, y[1]) for _, d in front], color=GREEN, width=1.6))
    chosen = next(c for c in found if c.index == searched.chosen.index)
    marks.append(dots(axes, [chosen.cost], [min(1e3 * chosen.differences[0], y[1])], color=ORANGE))
    names = [("trial", BLUE), ("front", GREEN), ("chosen", ORANGE)]
    return chart(axes, *marks, title="Cost and quality") + legend(names)


def non_dominated(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Points that no other beats in both coordinates, by the first."""
    front: list[tuple[float, float]] = []
    for point in sorted(points):
        if not front or point[1] < front[-1][1]:
            front.append(point)
    return front


def _around(values: Sequence[float], *, spread: float) -> tuple[float, float]:
    """A range for most of the values, from the smallest to a high quantile: a trial that went wrong hides no other."""
    low, high = float(min(values)), float(np.quantile(values, spread))
    pad = 0.08 * (high - low) or 1.0
    return low - pad, high + pad


def _marked(axes: Axes, searched: Searched, shown: Mapping[float, float]) -> str:
    index = float(searched.chosen.index)
    return dots(axes, [index], [shown[index]], color=ORANGE)


def _limits(brief: Brief) -> list[tuple[str, str]]:
    return [(f"{limits.low:g}", f"{limits.high:g}") for _, limits in sorted(brief.tune.space.items())]


def _label(axes: Axes, x: float, name: str, limits: tuple[str, str], *, row: int) -> str:
    """Name and ends of one axis; neighbours write on different rows."""
    anchor = "start" if x == 0 else "end" if x == 1 else "middle"
    place = f'x="{axes.px(x):.0f}" text-anchor="{anchor}"'
    below = HEIGHT - 26 + 15 * row
    return f'<text {place} y="{below:.0f}">{name} {limits[0]}</text><text {place} y="10">{limits[1]}</text>'


def _added(searched: Searched) -> str:
    return f"{searched.words.loss} added, 0.001 {searched.words.unit}"


def _thousandths(found: Sequence[Candidate]) -> list[float]:
    """Difference of each trial to the model as written on its own window, in thousandths."""
    return [1e3 * c.differences[0] for c in found]
