"""The year's story as one page: traffic, drift, labels, decisions, quality, and what other policies would have done."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from clearway.contracts.verdict import Verdict
from clearway.infra.charts import COLORS, Axes, bars, chart, dots, legend, line, ticks, vertical
from clearway.infra.pages import page, section, table, text, tiles
from clearway.launch.backtest.policies import Account, Quality, never, weekly
from clearway.launch.backtest.replay import Replay, Story
from clearway.monitor.decide import Answer

BLUE, ORANGE, GREEN, GREY = COLORS["candidate"], COLORS["champion"], COLORS["trees"], COLORS["line"]
LINES = {"never": GREY, "oracle": GREEN, "shipped": BLUE}  # drawn in this order
MAX_TICKS = 9
NATS = 1_000.0  # unit of the summed gain
CAVEAT = (
    "One past may hold no season twice: then season and drift cannot be told apart, and dates of a calendar may have "
    "done as well (compare the share of random schedules that are better). Every new model is accepted here; boosted "
    "trees stand for the product's own model."
)

Told = Mapping[str, tuple[Story, Account]]


def render(replay: Replay, told: Told) -> bytes:
    """HTML bytes. `told`: policies by name; charts of drift and decisions need "shipped" among them."""
    spec, lead = replay.product.spec, told.get("shipped") or next(iter(told.values()))
    gain = lead[1].gain
    is_shown = gain[1] > 0
    begin, end = replay.year.batch_ids[replay.weeks[0]], replay.year.batch_ids[replay.weeks[-1]]
    reason = (
        f"{lead[1].name}: {len(lead[1].retrained)} retrainings save {gain[0]:.4f} nats a row over none "
        f"({gain[1]:+.4f} to {gain[2]:+.4f}, 95 % by weeks), {lead[1].share_of_gain:.0%} of what retraining with every "
        "batch saves"
    )
    return page(
        title=f"{spec.title}: {begin} to {end}",
        verdict=Verdict.PASS if is_shown else Verdict.INCONCLUSIVE,
        lead=reason,
        body=_body(replay, told, lead),
    )


def _body(replay: Replay, told: Told, lead: tuple[Story, Account]) -> Iterator[str]:
    story, account = lead
    yield _tiles(replay, account)
    pictures = [("Traffic", _traffic(replay, story))]
    if story.summaries:
        policy = replay.product.spec.monitor
        shares = [s.drift.share_over if s.drift else None for s in story.summaries]
        gaps = [s.calibration_gap for s in story.summaries]
        pictures += [
            ("Drift", _signal(replay, story, shares, policy.share_over_limit, "share of features over their limit")),
            ("Labels", _signal(replay, story, gaps, policy.calibration_gap, "|mean label - mean score|")),
        ]
    pictures += [("Quality", _quality(replay, told)), ("What retraining saved", _saved(replay, told))]
    yield f'<div class="grid">{"".join(section(name, picture) for name, picture in pictures)}</div>'
    yield section("Policies", _policies(told), f'<p class="soft">{text(CAVEAT)}</p>')
    if story.decisions:
        yield section("Decisions", _decisions(story))
    yield section("Month by month", _months(told))


def _tiles(replay: Replay, account: Account) -> str:
    figures = [
        (f"{account.whole.num_rows:,}", f"labelled rows served, {len(replay.weeks)} batches"),
        (str(len(account.retrained)), "retrainings"),
        (f"{account.rows_trained:,}", "rows they were trained on"),
        (str(sum(account.num_alarms.values())), "batches with an alarm"),
        (_figure(account.whole.log_loss), "log-loss"),
        (_figure(account.whole.auc), "AUC"),
    ]
    return tiles(figures)


def _traffic(replay: Replay, story: Story) -> str:
    rows = replay.num_rows[list(replay.weeks)]
    axes = _axes(replay, high=float(rows.max()) * 1.1, label="rows in a batch", digits=0)
    edges = [i - 0.5 for i in range(len(rows) + 1)]
    return chart(axes, bars(axes, edges, rows, color=BLUE), *_marks(replay, axes, story), title="Traffic") + _key()


def _signal(replay: Replay, story: Story, values: Sequence[float | None], limit: float, label: str) -> str:
    """One number per batch with its limit; batches in which it could not be measured are left out."""
    known = [(float(i), v) for i, v in enumerate(values) if v is not None]
    high = 1.1 * max([limit, *(v for _, v in known)])
    axes = _axes(replay, high=high, label=label, digits=2)
    at, shown = [i for i, _ in known], [v for _, v in known]
    marks = [
        line(axes, [0.0, len(values) - 1.0], [limit, limit], color=ORANGE, dashed=True, width=1.4),
        line(axes, at, shown, color=BLUE, width=1.4),
        dots(axes, at, shown, color=BLUE),
    ]
    return chart(axes, *_marks(replay, axes, story), *marks, title=label) + _key(("limit", ORANGE))


def _quality(replay: Replay, told: Told) -> str:
    rows = replay.num_rows[list(replay.weeks)]
    stories = {"never": never(replay)} | {name: told[name][0] for name in LINES if name in told}
    found = {name: replay.weekly_losses(story) / rows for name, story in stories.items()}
    every = np.concatenate(list(found.values()))
    axes = _axes(replay, low=float(every.min()) * 0.95, high=float(every.max()) * 1.02, label="log-loss", digits=2)
    at = np.arange(len(rows), dtype=np.float64)
    marks = [line(axes, at, losses, color=LINES[name], width=1.6) for name, losses in found.items()]
    return chart(axes, *marks, title="Log-loss of each batch") + legend([(n, LINES[n]) for n in found])


def _saved(replay: Replay, told: Told) -> str:
    """Summed over batches, so that it shows when the gain came."""
    base = replay.weekly_losses(never(replay))
    stories = {name: story for name, (story, _) in told.items() if name in LINES and name != "never"}
    stories["every batch"] = weekly(replay)
    found = {name: np.cumsum(base - replay.weekly_losses(story)) / NATS for name, story in stories.items()}
    colors = LINES | {"every batch": ORANGE}
    every = np.concatenate(list(found.values()))
    low, high = min(0.0, float(every.min())), max(1 / NATS, float(every.max()) * 1.05)
    axes = _axes(replay, low=low, high=high, label="1,000 nats saved over never retraining, summed", digits=2)
    at = np.arange(len(base), dtype=np.float64)
    marks = [line(axes, at, saved, color=colors[name], width=1.8) for name, saved in found.items()]
    return chart(axes, *marks, title="What retraining saved") + legend([(n, colors[n]) for n in found])


def _axes(replay: Replay, *, low: float = 0.0, high: float, label: str, digits: int) -> Axes:
    count = len(replay.weeks)
    step = -(-count // MAX_TICKS)
    named = [(float(i), replay.year.batch_ids[replay.weeks[i]][5:]) for i in range(0, count, step)]
    return Axes(
        x=(-0.8, count - 0.2),
        y=(low, high),
        x_label="batch",
        y_label=label,
        x_ticks=named,
        y_ticks=ticks(low, high, digits=digits),
    )


def _marks(replay: Replay, axes: Axes, story: Story) -> list[str]:
    """A line where the next model begins to serve."""
    return [vertical(axes, week + 0.5 - replay.weeks[0], color=GREEN) for week in story.retrained]


def _key(*more: tuple[str, str]) -> str:
    return legend([*more, ("a retrained model begins", GREEN)])


def _policies(told: Told) -> str:
    head = ("policy", "retrainings", "rows trained", "AUC", "log-loss", "Brier", "gain over never, 95 % by weeks")
    more = ("of weekly's gain", "random schedules better", "alarms a month", "decision delay")
    rows = [
        [
            f"<b>{text(name)}</b>" if name == "shipped" else text(name),
            str(len(account.retrained)),
            f"{account.rows_trained:,}",
            *_figures(account.whole),
            f"{account.gain[0]:.4f} [{account.gain[1]:.4f}, {account.gain[2]:.4f}]",
            f"{account.share_of_gain:.0%}",
            "–" if account.beaten_by is None else f"{account.beaten_by:.0%}",
            f"{np.mean(list(account.num_alarms.values())):.1f}" if account.num_alarms else "–",
            ", ".join(str(d) for d in account.delays) or "–",
        ]
        for name, (_, account) in told.items()
    ]
    note = (
        "Decision delay: per retraining, batches from the first that showed its signal to the decision. Alarms: "
        "batches beyond a limit, or with an alert."
    )
    return table([*head, *more], rows, numeric=range(1, len(head) + len(more))) + f'<p class="soft">{note}</p>'


def _figures(quality: Quality) -> list[str]:
    return [_figure(quality.auc), _figure(quality.log_loss), _figure(quality.brier)]


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


def _decisions(story: Story) -> str:
    """Those that did or asked something; quiet batches are counted."""
    shown = [
        [
            f"<code>{text(summary.batch_id)}</code>",
            text(decision.answer.value),
            text(" + ".join(s.value for s in decision.signals) or "–"),
            text("; ".join(decision.reasons)),
        ]
        for summary, decision in zip(story.summaries, story.decisions, strict=True)
        if decision.answer is not Answer.HOLD or decision.signals
    ]
    quiet = len(story.decisions) - len(shown)
    return table(("batch", "answer", "signals", "why"), shown) + f'<p class="soft">{quiet} further batches: hold.</p>'


def _months(told: Told) -> str:
    months = sorted({month for _, account in told.values() for month in account.months})
    parts = []
    for name, field in (("AUC", "auc"), ("Log-loss", "log_loss"), ("Brier", "brier")):
        rows = [
            [text(policy), *(_figure(getattr(account.months[m], field)) for m in months)]
            for policy, (_, account) in told.items()
        ]
        parts.append(table([name, *months], rows, numeric=range(1, 1 + len(months))))
    return "".join(parts)
