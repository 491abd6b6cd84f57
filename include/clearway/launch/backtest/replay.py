"""Week by week through the monitor's own summary and decision; every model is there already, so a policy costs lookups.

A model decided with a week serves from the next one on; every new model is accepted.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from clearway.infra.datasets import DAY, LABEL
from clearway.launch.backtest.models import Models
from clearway.launch.backtest.year import Year
from clearway.measures.binary import row_log_loss
from clearway.monitor.carried import Arrived, Carried
from clearway.monitor.decide import Answer, Decision, PastDecision, decide, look_back
from clearway.monitor.judge import summarise
from clearway.monitor.performance import measure_performance
from clearway.monitor.summary import PerformancePart, Summary
from clearway.product import LoadedProduct
from clearway.product_monitor import Monitor

Floats = npt.NDArray[np.float64]

NO_LABELS = PerformancePart(num_labels=0, num_unpredicted=0, num_predictions=0, num_unlabelled=0, models=())
NUM_RANDOM, NUM_DRAWS = 2_000, 1_000
# Two-sided 95 %.
BOUNDS = (0.025, 0.975)


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """What one policy did.

    Args:
        retrained: weeks with whose batch a model was made.
        serving: the model that served each week. [W]
        summaries, decisions: one per week; empty for a schedule fixed beforehand.
    """

    retrained: tuple[int, ...]
    serving: tuple[int, ...]
    summaries: tuple[Summary, ...] = ()
    decisions: tuple[Decision, ...] = ()


class Replay:
    """One year, all of its models."""

    def __init__(self, year: Year, product: LoadedProduct, models: Models) -> None:
        self.year, self.product, self.models = year, product, models
        self.weeks = year.weeks
        self.num_rows = np.bincount(year.week, minlength=year.num_weeks).astype(np.float64)

    @functools.cache  # noqa: B019 - one replay per process
    def run(self, policy: Monitor) -> Story:
        """What a policy decides."""
        champion, carried = self.weeks[0] - 1, Carried()
        serving: dict[int, int] = {}
        summaries, decisions, past, retrained = list[Summary](), list[Decision](), list[PastDecision](), list[int]()
        for week in self.weeks:
            serving[week] = champion
            summaries.append(self._summary(week, serving, carried, policy))
            newest = summaries[-1]
            carried = newest.carried
            windows = [s.window for s in summaries[-look_back(policy) :]]
            decision = decide(windows, past, policy, product=self.product.name, as_of=newest.as_of)
            decisions.append(decision)
            if decision.answer is Answer.RETRAIN and week + 1 in self.weeks:
                digest = decision.evidence_digest
                past.append(PastDecision(evidence_digest=digest, batch_id=newest.batch_id, as_of=newest.as_of))
                retrained.append(week)
                champion = week
        return Story(
            retrained=tuple(retrained),
            serving=tuple(serving.values()),
            summaries=tuple(summaries),
            decisions=tuple(decisions),
        )

    def schedule(self, retrained: Sequence[int]) -> Story:
        """A fixed list of weeks, in order."""
        serving = [max([self.weeks[0] - 1, *(r for r in retrained if r < week)]) for week in self.weeks]
        return Story(retrained=tuple(retrained), serving=tuple(serving))

    def every(self, num_weeks: int) -> Story:
        """A calendar, counted from the first champion."""
        return self.schedule([w for w in self.weeks[:-1] if (w - self.weeks[0] + 1) % num_weeks == 0])

    def best(self, num_retrains: int) -> Story:
        """The schedule of so many retrainings with the least loss, in hindsight (dynamic programming)."""
        first, last = self.weeks[0], self.weeks[-1]
        # after[w, v]: summed loss of model w from week v on. cost[k, w]: least loss of the weeks from w + 1 on when the
        # model of week w begins to serve there and k changes are left.
        after = np.nancumsum(self.losses[:, ::-1], axis=1)[:, ::-1]
        cost: dict[tuple[int, int], tuple[float, tuple[int, ...]]] = {
            (0, w): (float(after[w, w + 1]), ()) for w in range(first - 1, last)
        }
        for k in range(1, num_retrains + 1):
            for w in range(first - 1, last):
                options = [
                    (float(self.losses[w, w + 1 : v + 1].sum()) + cost[k - 1, v][0], (v, *cost[k - 1, v][1]))
                    for v in range(w + 1, last)
                ]
                cost[k, w] = min([cost[k - 1, w], *options])
        return self.schedule(cost[num_retrains, first - 1][1])

    @functools.cached_property
    def losses(self) -> Floats:
        """Summed log-loss of a model on a week; NaN before it. [W, W]"""
        year = self.year
        found = np.full((year.num_weeks, year.num_weeks), np.nan)
        for model in year.model_weeks:
            later = year.week > model
            losses = row_log_loss(year.labels[later], self.models.scores(model)[later].astype(np.float64))
            found[model] = np.bincount(year.week[later], losses, year.num_weeks)
        return found

    def weekly_losses(self, story: Story) -> Floats:
        """Summed log-loss of each served week. [W]"""
        return np.asarray([self.losses[m, w] for m, w in zip(story.serving, self.weeks, strict=True)])

    def log_loss(self, story: Story, weeks: slice = slice(None)) -> float:
        """Per row of the served weeks, or of a part of them."""
        rows = self.num_rows[list(self.weeks)][weeks]
        return float(self.weekly_losses(story)[weeks].sum() / rows.sum())

    def scores(self, story: Story) -> Floats:
        """What callers got; NaN for rows before the first champion. [N]"""
        found = np.full(len(self.year.week), np.nan)
        for model, week in zip(story.serving, self.weeks, strict=True):
            chosen = self.year.week == week
            found[chosen] = self.models.scores(model)[chosen]
        return found

    def random_losses(
        self, num_retrains: int, rng: np.random.Generator, *, kept: Sequence[int] = (), since: int | None = None
    ) -> Floats:
        """Log-loss of random schedules with so many retrainings. [NUM_RANDOM]

        Args: since: only weeks from here on are drawn and scored; before it all of them share the weeks `kept`.
        """
        choices = np.asarray([w for w in self.weeks[:-1] if since is None or w >= since])
        scored = slice(None) if since is None else slice(since - self.weeks[0], None)
        drawn = (rng.choice(choices, num_retrains, replace=False).tolist() for _ in range(NUM_RANDOM))
        return np.asarray([self.log_loss(self.schedule(sorted([*kept, *weeks])), scored) for weeks in drawn])

    def difference(
        self, one: Story, other: Story, rng: np.random.Generator, weeks: slice = slice(None)
    ) -> tuple[float, float, float]:
        """Log-loss of one less the other, with its 95 % interval over resampled weeks."""
        rows = self.num_rows[list(self.weeks)][weeks]
        gap = (self.weekly_losses(one) - self.weekly_losses(other))[weeks]
        draws = rng.integers(0, len(gap), (NUM_DRAWS, len(gap)))
        low, high = np.quantile(gap[draws].sum(1) / rows[draws].sum(1), BOUNDS)
        return float(gap.sum() / rows.sum()), float(low), float(high)

    def as_of(self, week: int) -> str:
        """End of a week."""
        clock = self.product.spec.batch
        return clock.end_of(clock.start_of(self.year.batch_ids[week])).isoformat()

    def _summary(self, week: int, serving: dict[int, int], carried: Carried, policy: Monitor) -> Summary:
        champion, labelled = serving[week], week - self.year.label_lag
        served_by = serving.get(labelled)
        performance = NO_LABELS if served_by is None else self._performance(served_by, labelled, week)
        now, own = self.year.week == week, (self.year.week == labelled) & (served_by == champion)
        scores = self.models.scores(champion)
        return summarise(
            product=self.product.name,
            batch_id=self.year.batch_ids[week],
            as_of=self.as_of(week),
            dataset_digest="",
            champion_digest=_digest(champion),
            num_rows=int(now.sum()),
            drift=self.models.drift(champion, week),
            performance=performance,
            scores=scores[now].astype(np.float64).tolist(),
            arrived=Arrived(
                labels=self.year.labels[own].astype(np.float64),
                scores=scores[own].astype(np.float64),
                num_rows=int(own.sum()),
            ),
            before=carried,
            num_passed=1,
            policy=policy,
        )

    @functools.cache  # noqa: B019 - one replay per process
    def _performance(self, model: int, labelled: int, week: int) -> PerformancePart:
        """Labels of a week beside the scores of the model that served it."""
        rows = self.year.week == labelled
        moments = self.year.rows[DAY].filter(pa.array(rows)).cast(pa.timestamp("us", tz="UTC"))
        joined = pa.table(
            {
                LABEL: self.year.labels[rows].astype(np.float64),
                "score": self.models.scores(model)[rows].astype(np.float64),
                "model_digest": [_digest(model)] * int(rows.sum()),
                "event_time": moments,
                "logged_at": moments,
            }
        )
        return measure_performance(joined, num_labels=len(joined), num_predictions=len(joined), as_of=self.as_of(week))


def _digest(model: int) -> str:
    return f"{model:064x}"
