"""Years in which nothing changes, for the backtest's replay: rows dealt over the weeks anew."""

import functools
from datetime import timedelta

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from clearway.infra.datasets import BATCH, DAY, LABEL, TIME
from clearway.launch.backtest.models import Scores
from clearway.launch.backtest.year import Year
from clearway.measures.distance import build_reference
from clearway.monitor.drift import measure_drift
from clearway.monitor.drift_part import DriftPart
from clearway.product import LoadedProduct
from town_kit import FIRST, town_product

US_PER_DAY = 86_400_000_000
NUM_WEEKS, NUM_TRAINING, PER_WEEK = 39, 13, 400
NAMES = tuple(f"x{i}" for i in range(6))


class EqualModels:
    """Every model gives the same scores, as models trained on more of the same do, and is held against the first one's
    training weeks: what later ones would add is more of the same."""

    def __init__(self, year: Year, product: LoadedProduct, scores: Scores) -> None:
        self._year, self._product, self._scores = year, product, scores

    def scores(self, model: int) -> Scores:
        return self._scores

    def num_rows(self, model: int) -> int:
        return int(self._year.training_rows(model, holdout_days=self._product.spec.release.holdout_days).sum())

    @functools.cache  # noqa: B019 - as short-lived as its year
    def drift(self, model: int, week: int) -> DriftPart:
        policy = self._product.spec.monitor
        return measure_drift(
            self._reference,
            self._year.rows.slice(*self._span(week)),
            ignore=policy.ignore,
            scores=None,
            false_discovery_rate=policy.false_discovery_rate,
        )

    def _span(self, week: int) -> tuple[int, int]:
        """Where a week's rows lie: they are in order of time."""
        begin, end = np.searchsorted(self._year.week, [week, week + 1])
        return int(begin), int(end - begin)

    @functools.cached_property
    def _reference(self) -> dict[str, object]:
        features, holdout_days = self._product.spec.features, self._product.spec.release.holdout_days
        first = self._year.training_rows(self._year.first_week - 1, holdout_days=holdout_days)
        return build_reference(
            self._year.rows.filter(pa.array(first)),
            numeric=features.numeric,
            categorical=features.categorical,
            batch_column=BATCH,
        )


def dealt(
    rows: pa.Table, scores: Scores, product: LoadedProduct, *, num_weeks: int, per_week: int, rng: np.random.Generator
) -> tuple[Year, Scores]:
    """Rows in a new order, `per_week` to a week and spread over its days: whatever they say of time is gone.

    Args: rows: feature columns and LABEL; scores: of the same rows. [N]
    """
    clock, start = product.spec.batch, product.spec.batch.first
    drawn = rng.permutation(len(rows))[: num_weeks * per_week]
    week = np.repeat(np.arange(num_weeks), per_week)
    names = []
    for _ in range(num_weeks):
        names.append(clock.batch_id(start))
        start = clock.end_of(start)
    first_day = (clock.first.timestamp()) // 86_400
    day = (first_day + 7 * week + np.arange(len(drawn)) % per_week * 7 // per_week).astype(np.int64)
    features = [*product.spec.features.numeric, *product.spec.features.categorical, LABEL]
    table = rows.select(features).take(pa.array(drawn))
    table = table.append_column(BATCH, pa.array(np.asarray(names)[week]))
    table = table.append_column(DAY, pa.array(day.astype(np.int32)).cast(pa.date32()))
    table = table.append_column(TIME, pa.array(day * US_PER_DAY).cast(pa.timestamp("us", tz="UTC")))
    return Year(
        rows=table,
        labels=table[LABEL].to_numpy().astype(np.int64),
        week=week,
        day=day,
        batch_ids=tuple(names),
        first_week=names.index(clock.batch_id(product.spec.release.first_end)),
        label_lag=1,
        name="dealt",
    ), scores[drawn]


def out_of_fold(labels: npt.NDArray[np.int64], inputs: npt.NDArray[np.float32], *, num_categorical: int) -> Scores:
    """Scores of each row by a model that did not see it. [N]"""
    from clearway.launch.backtest.models import NUM_TREES, TREES
    from clearway.tabular.teacher import lightgbm

    fold, found = np.arange(len(labels)) % 4, np.empty(len(labels), np.float32)
    categorical = list(range(inputs.shape[1] - num_categorical, inputs.shape[1]))
    for k in range(4):
        data = lightgbm().Dataset(inputs[fold != k], labels[fold != k], categorical_feature=categorical)
        found[fold == k] = lightgbm().train(TREES, data, NUM_TREES).predict(inputs[fold == k], num_threads=1)
    return found


def town(**monitor: object) -> LoadedProduct:
    """A product of six numbers and a category, thirteen weeks before its first release and 26 after."""
    last = {"last": FIRST + timedelta(weeks=NUM_WEEKS - 1)}
    return town_product(NAMES, num_training=NUM_TRAINING, batch=last, release={"holdout_days": 7}, monitor=monitor)


def town_year(product: LoadedProduct, *, seed: int) -> tuple[Year, Scores]:
    """Independent rows with exact scores."""
    rng, num_rows = np.random.default_rng(seed), NUM_WEEKS * PER_WEEK
    values = rng.normal(size=(len(NAMES), num_rows))
    scores = (1 / (1 + np.exp(1.0 - values[0] + 0.7 * values[1]))).astype(np.float32)
    table = pa.table(
        dict(zip(NAMES, values, strict=True))
        | {"c": rng.choice(["u", "v", "w"], num_rows), LABEL: (rng.random(num_rows) < scores).astype(np.int64)}
    )
    return dealt(table, scores, product, num_weeks=NUM_WEEKS, per_week=PER_WEEK, rng=rng)
