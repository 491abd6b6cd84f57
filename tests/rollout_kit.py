"""Stories of rollouts over the real store, the real server core and real requests, on a clock that callers live by."""

import itertools
import random

from clearway.contracts.errors import ClearwayError, DataError
from clearway.infra.clock import FakeClock
from clearway.infra.endpoint import LoggedRows
from clearway.product_rollout import AbTest, Shadow, Watch
from clearway.product_rollout import Rollout as Settings
from serving_kit import ROW

PLAN = Settings(
    strategy="canary",
    steps_pct=(10.0, 50.0, 100.0),
    min_requests=20,
    min_step_s=2.0,
    max_step_s=60.0,
    hold_s=30.0,
    error_margin=0.2,
    slow_margin=0.2,
    slow_s=0.05,
)


class Street(FakeClock):
    """A clock during whose sleeps callers send requests, `per_s` of them, each with a sticky key of its own."""

    def __init__(self, endpoint, *, per_s=60):
        super().__init__(1e9)
        self.endpoint, self.per_s = endpoint, per_s
        self.answered, self.happenings, self.slept, self.outcomes = [], {}, 0, {}
        self._random, self._number = random.Random(3), itertools.count()  # noqa: S311
        self.spent_s = 0.0  # by answers, of which only those that are told to take long take any time
        endpoint.live_by(lambda: self.at_s + self.spent_s)

    def sleep(self, seconds):
        super().sleep(seconds)
        for _ in range(int(self.per_s * seconds)):
            self.call()
        self.slept += 1
        self.happenings.get(self.slept, lambda: None)()

    def call(self):
        row = ROW | {"hour": self._random.choice([7.0, 7.0, 7.0, -1.0])}
        batch = LoggedRows(
            columns=tuple(row), rows=[tuple(row.values())], keys=[f"k{next(self._number)}"],
            event_times=["2013-04-01T00:00:00Z"], batch_id="2013-04-01",
        )  # fmt: skip
        try:
            digest = self.endpoint.score_logged(batch)[1]
            self.answered.append(digest)
            self.report(digest)
        except (ClearwayError, RuntimeError) as error:
            self.answered.append(type(error).__name__)

    def report(self, digest):
        """What became of the answer: good with the version's own chance."""
        if digest in self.outcomes:
            is_good = self._random.random() < self.outcomes[digest]
            self.endpoint.server.counters.count_outcome(digest, float(is_good))


def spoil(street, monkeypatch, digest, *, seconds=0.0, share_failing=0.0, error=DataError):
    """From now on a version takes its time to answer, or fails part of its requests."""
    loaded = street.endpoint.server.versions.serving.loaded[digest]
    honest, number = loaded.scorer.score, itertools.count()

    def score(numeric, categorical):
        street.spent_s += seconds
        if next(number) % 10 < 10 * share_failing:
            raise error("planted")
        return honest(numeric, categorical)

    monkeypatch.setattr(loaded.scorer, "score", score)


class Killed(BaseException):
    """The process is gone: nothing may catch this."""


TESTED = {"strategy": "ab_test", "ab_test": AbTest(share_pct=50.0, horizon_s=20.0)}
SHADOWED = {"strategy": ("shadow", "canary"), "shadow": Shadow(min_rows=100, margin=0.2)}
WATCHED = {"strategy": ("canary", "watch"), "watch": Watch(min_s=5.0, min_requests=30)}
