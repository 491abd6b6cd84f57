"""The page of a study: what was searched, what was found, on which days, and what it cost."""

from collections.abc import Iterator, Sequence

from optuna.trial import TrialState

from clearway.contracts.verdict import Verdict
from clearway.infra.pages import number, page, section, table, text, tiles
from clearway.tune import plots
from clearway.tune.agenda import NUM_FINALISTS
from clearway.tune.brief import OPTUNA
from clearway.tune.choosing import AS_WRITTEN, Candidate, candidates
from clearway.tune.proposals import num_values
from clearway.tune.study import Searched
from clearway.tune.worker import REFUSED

NUM_LISTED = 15  # best trials, in the table
WINDOW_RULE = (
    "Every window is a block of whole days of the training period; models judged on it are trained on older rows only. "
    "The release's holdout is never read. After {every} trials a window is worn, since the best of many looks better "
    "than it is: the next older block is taken, and the model as written and the best {finalists} so far are judged "
    "again on it. A trial that was judged again counts by those later judgements alone."
)


def reason_of(searched: Searched) -> str:
    """One sentence for the task and the log."""
    chosen, brief = searched.chosen, searched.brief
    if not searched.params:
        found = "found no better than product.yaml"
    elif chosen.difference > 0:
        found = f"found cheaper than product.yaml: {searched.words.loss} higher by {chosen.difference:.5f}"
    else:
        found = f"found better than product.yaml: {searched.words.loss} lower by {-chosen.difference:.5f}"
    if chosen.is_confirmed:
        windows = f"on {chosen.num_windows} window(s) of days that it was not searched on"
    else:
        windows = f"on {brief.windows[0].first_day} to {brief.windows[0].last_day}"
    asked = f" of {brief.num_trials}" if len(searched.trials) < brief.num_trials else ""
    ended = " (the budget ended)" if asked else ""
    return f"{len(searched.trials)}{asked} trials{ended} {found}, {windows}; {_refreshed(searched)}"


def _refreshed(searched: Searched) -> str:
    brief = searched.brief
    if brief.num_trials <= brief.tune.refresh_every:
        return "one validation window"
    if len(brief.windows) == 1:
        return f"one validation window for all {brief.num_trials} trials: too few days for a second"
    return f"validation window refreshed every {brief.refresh_every} trials, {searched.num_windows} used"


def render(searched: Searched, *, release_id: str) -> bytes:
    """HTML bytes; the same study gives the same page."""
    name = searched.brief.product.spec.name
    title = f"Study of {name}, release {release_id}"
    return page(title=title, verdict=Verdict.PASS, lead=reason_of(searched), body=_body(searched))


def _body(searched: Searched) -> Iterator[str]:
    brief = searched.brief
    found = candidates(searched.tasks, searched.ended)
    yield _tiles(searched)
    pictures = [
        ("History", plots.history(searched, found)),
        ("Importance", plots.importance(searched)),
        ("Parallel coordinates", plots.parallel_coordinates(searched, found)),
    ]
    if num_values(brief.tune) > 1:
        pictures.append(("Cost and quality", plots.pareto_front(searched, found)))
    yield f'<div class="grid">{"".join(section(name, picture) for name, picture in pictures)}</div>'
    yield section("Chosen", _chosen(searched))
    yield section("Best trials", _trials(searched, found))
    yield section("Validation windows", _windows(searched))
    yield section("How it was searched", _settings(searched))


def _tiles(searched: Searched) -> str:
    states = [entry.state for entry in searched.trials.values()]
    figures = [
        (str(len(states)), f"trials of {searched.brief.num_trials}"),
        (str(states.count(TrialState.PRUNED)), "pruned"),
        (str(states.count(TrialState.FAIL)), "refused"),
        (str(searched.num_deaths), "attempts that died, done again"),
        (f"{searched.chosen.difference:+.5f}", f"{searched.words.loss} added by the choice"),
        (f"{searched.spent.seconds:,.0f} s", f"of work, {searched.brief.num_workers} worker(s)"),
    ]
    if searched.brief.price_per_hour:
        figures.append((f"{searched.spent.money:.2f}", f"money, at {searched.brief.price_per_hour:g} per hour"))
    return tiles(figures)


def _chosen(searched: Searched) -> str:
    written, entry = searched.brief.as_written, searched.trials[searched.chosen.index]
    rows = [
        [f"<code>{text(name)}</code>", number(written[name]), number(entry.params[name])] for name in sorted(written)
    ]
    return table(("parameter", "as written", "chosen"), rows, numeric=(1, 2)) + f'<p class="soft">{_rule(searched)}</p>'


def _rule(searched: Searched) -> str:
    if num_values(searched.brief.tune) > 1:
        slack = searched.brief.tune.slack
        return f"The model with the fewest multiply-adds whose {searched.words.loss} is within {slack:g} of the best."
    return f"The smallest {searched.words.loss}; of equals the first."


def _trials(searched: Searched, found: Sequence[Candidate]) -> str:
    names = sorted(searched.brief.tune.space)
    best = sorted(found, key=lambda c: c.searched)[:NUM_LISTED]
    has_cost, rows = num_values(searched.brief.tune) > 1, []
    for c in best:
        params = searched.trials[c.index].params
        later = ", ".join(f"{d:+.5f}" for d in c.differences[1:]) or "–"
        cost = [number(c.cost)] if has_cost else []
        rows.append(
            [_name(searched, c), f"{c.differences[0]:+.5f}", later, *cost, *(number(params[name]) for name in names)]
        )
    head = ["trial", f"{searched.words.loss} added", "judged again", *(["multiply-adds"] if has_cost else [])]
    listed = table([*head, *names], rows, numeric=range(1, len(head) + len(names)))
    refused = [
        f"<li>trial {index}: {text(entry.user_attrs[REFUSED])}</li>"
        for index, entry in searched.trials.items()
        if REFUSED in entry.user_attrs
    ]
    return listed + (f"<ul>{''.join(refused)}</ul>" if refused else "")


def _name(searched: Searched, candidate: Candidate) -> str:
    if candidate.index == AS_WRITTEN:
        return "0, as written"
    if candidate.index < len(searched.brief.seeds):
        return f"{candidate.index}, the champion's"
    return str(candidate.index)


def _windows(searched: Searched) -> str:
    brief = searched.brief
    rounds = {task.round for task in searched.tasks if task.number in searched.ended}
    rows = []
    for place, window in enumerate(brief.windows):
        taken = ", ".join(str(r + 1) for r in sorted(rounds) if r % len(brief.windows) == place)
        days = f"{window.first_day} to {window.last_day}"
        rows.append([days, f"{window.stop - window.cut:,}", f"{window.cut - window.start:,}", taken or "–"])
    said = WINDOW_RULE.format(every=brief.tune.refresh_every, finalists=NUM_FINALISTS)
    is_short = len(rounds) > len(brief.windows) > 1
    again = " There were fewer windows than rounds, so windows came round again." if is_short else ""
    listed = table(("days judged", "rows", "rows trained on", "rounds"), rows, numeric=(1, 2))
    return f"{listed}<p class='soft'>{text(said + again)} {text(_refreshed(searched))}.</p>"


def _settings(searched: Searched) -> str:
    brief, tune = searched.brief, searched.brief.tune
    pruner = tune.pruner if tune.pruner == "none" else f"{tune.pruner}, fidelity {tune.fidelity}"
    known = "; a trial knows all trials before it"
    if brief.searcher != OPTUNA:
        known = ""
    elif brief.pace.lag > 1:
        known = f"; a trial knows the trials at least {brief.pace.lag} before it"
    rows = [
        ("searched by", brief.searcher),
        ("sampler", tune.sampler),
        ("pruner", pruner),
        ("workers", f"{brief.num_workers}, {brief.num_threads} thread(s) each{known}"),
        ("seed", str(brief.product.spec.model.seed)),
        ("budget", f"{tune.num_trials} trials, {_limit(tune.max_seconds)} seconds, {_limit(tune.max_money)} money"),
    ]
    return table(("", ""), [[text(k), text(v)] for k, v in rows])


def _limit(value: float) -> str:
    return f"{value:g}" if value else "any"
