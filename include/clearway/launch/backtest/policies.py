"""Policies by name, and what each was worth: per month, in retrainings, in alarms."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
import numpy.typing as npt

from clearway.contracts.verdict import Verdict
from clearway.launch.backtest.replay import Replay, Story
from clearway.measures import binary
from clearway.monitor.decide import Answer, speaks
from clearway.product_monitor import Signal

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

SEED = 0
# One label has no ranking.
NUM_CLASSES = 2


def never(replay: Replay) -> Story:
    """The first champion for ever."""
    return replay.schedule(())


def weekly(replay: Replay) -> Story:
    """With every batch: the most that retraining can give, and what `share_of_gain` is a share of."""
    return replay.every(1)


def monthly(replay: Replay) -> Story:
    """With the first batch that ends in another month than the one before it."""
    months = {week: datetime.fromisoformat(replay.as_of(week)).month for week in replay.weeks}
    return replay.schedule([w for w in replay.weeks[1:-1] if months[w] != months[w - 1]])


def shipped(replay: Replay) -> Story:
    """As product.yaml says."""
    return replay.run(replay.product.spec.monitor)


def drift(replay: Replay) -> Story:
    """By drifted inputs alone."""
    return _by(replay, Signal.DRIFT)


def performance(replay: Replay) -> Story:
    """By labels alone: calibration, or loss beyond what the scores promise."""
    return _by(replay, Signal.CALIBRATION, Signal.LOSS)


def oracle(replay: Replay) -> Story:
    """The best dates in hindsight for as many retrainings as the shipped policy made."""
    return replay.best(len(shipped(replay).retrained))


def _by(replay: Replay, *signals: Signal) -> Story:
    triggers = tuple((signal,) for signal in signals)
    return replay.run(replay.product.spec.monitor.model_copy(update={"triggers": triggers}))


POLICIES: dict[str, Callable[[Replay], Story]] = {
    "never": never,
    "weekly": weekly,
    "monthly": monthly,
    "drift": drift,
    "performance": performance,
    "shipped": shipped,
    "oracle": oracle,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    """On labelled rows. `auc` is None where only one class occurred; `log_loss` in nats per row."""

    num_rows: int
    auc: float | None
    log_loss: float
    brier: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """One policy over the served weeks.

    Args:
        retrained: batches with which a model was made.
        rows_trained: what that cost: rows read by its trainings, the first champion's not counted.
        whole: of all served rows; months: the same per calendar month, "YYYY-MM".
        gain: log-loss saved over never retraining, with its 95 % interval over resampled weeks.
        share_of_gain: of what weekly retraining saves.
        beaten_by: share of random schedules with as many retrainings that do better; None where there is no choice.
        num_alarms: per month, batches beyond a limit or with an alert; empty for a schedule, which looks at nothing.
        delays: per retraining, batches from the first that showed a trigger's signal to the decision; as above.
    """

    name: str
    retrained: tuple[str, ...]
    rows_trained: int
    whole: Quality
    months: Mapping[str, Quality]
    gain: tuple[float, float, float]
    share_of_gain: float
    beaten_by: float | None
    num_alarms: Mapping[str, int]
    delays: tuple[int, ...]


def account(replay: Replay, name: str, story: Story) -> Account:
    """All figures of one policy."""
    rng = np.random.default_rng(SEED)
    year, base, all_weeks = replay.year, never(replay), len(replay.weeks) - 1
    gain, most = replay.difference(base, story, rng), replay.difference(base, weekly(replay), rng)[0]
    count = len(story.retrained)
    is_choice = 0 < count < all_weeks
    beaten = float((replay.random_losses(count, rng) < replay.log_loss(story)).mean()) if is_choice else None
    whole, months = _qualities(replay, story)
    return Account(
        name=name,
        retrained=tuple(year.batch_ids[w] for w in story.retrained),
        rows_trained=sum(replay.models.num_rows(w) for w in story.retrained),
        whole=whole,
        months=months,
        gain=gain,
        share_of_gain=gain[0] / most if most else 0.0,
        beaten_by=beaten,
        num_alarms=_alarms(story),
        delays=_delays(replay, story),
    )


def _qualities(replay: Replay, story: Story) -> tuple[Quality, dict[str, Quality]]:
    year, scores = replay.year, replay.scores(story)
    served = np.flatnonzero(np.isfinite(scores))
    days, day_of = np.unique(year.day[served], return_inverse=True)
    month_of = np.asarray([_month(int(day)) for day in days])[day_of]
    rows_of = {str(month): served[month_of == month] for month in np.unique(month_of)}
    months = {month: _quality(year.labels[rows], scores[rows]) for month, rows in rows_of.items()}
    return _quality(year.labels[served], scores[served]), months


def _month(day: int) -> str:
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(days=day)).strftime("%Y-%m")


def _quality(labels: Ints, scores: Floats) -> Quality:
    return Quality(
        num_rows=len(labels),
        auc=binary.auc(labels, scores) if len(np.unique(labels)) == NUM_CLASSES else None,
        log_loss=binary.log_loss(labels, scores),
        brier=binary.brier(labels, scores),
    )


def _alarms(story: Story) -> dict[str, int]:
    found: dict[str, int] = {}
    for summary, decision in zip(story.summaries, story.decisions, strict=True):
        month = summary.batch_id[:7]
        is_alarm = summary.verdict is Verdict.FAIL or decision.answer is Answer.ALERT
        found[month] = found.get(month, 0) + is_alarm
    return found


def _delays(replay: Replay, story: Story) -> tuple[int, ...]:
    """The model that is replaced began to serve after the retraining before; before that its signals say nothing."""
    policy, found = replay.product.spec.monitor, list[int]()
    begins = [replay.weeks[0], *(week + 1 for week in story.retrained)]
    if not story.decisions:
        return ()
    for begin, week in zip(begins, story.retrained, strict=False):
        signals = story.decisions[week - replay.weeks[0]].signals
        windows = [story.summaries[w - replay.weeks[0]].window for w in range(begin, week + 1)]
        first = next(i for i, window in enumerate(windows) if any(speaks(window, s, policy) for s in signals))
        found.append(len(windows) - 1 - first)
    return tuple(found)


def accounts(replay: Replay, names: Sequence[str]) -> dict[str, tuple[Story, Account]]:
    """The policies asked for, in the order of POLICIES."""
    found = {}
    for name, policy in POLICIES.items():
        if name in names:
            story = policy(replay)
            found[name] = (story, account(replay, name, story))
    return found
