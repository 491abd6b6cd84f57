"""A small town of weekly rows in which one thing is changed on purpose; measured and decided by the monitor's own code.

Twenty numbers and a category; every week moves all of them a little, as weather does. A champion with exact scores
serves from the first week on, labels come a week late. `decisions` walks on to the last week, whatever is decided.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from clearway.infra.datasets import DAY, KEY, LABEL
from clearway.measures.distance import build_reference
from clearway.monitor.carried import Carried
from clearway.monitor.decide import Answer, Decision, decide
from clearway.monitor.drift import measure_drift
from clearway.monitor.judge import summarise
from clearway.monitor.performance import arrived_for, join_labels, measure_performance
from clearway.monitor.summary import Summary
from clearway.product_monitor import Monitor

Floats = npt.NDArray[np.float64]

FIRST = datetime(2013, 1, 7, tzinfo=UTC)
MODEL = "a" * 64
NUM_FEATURES, NUM_USED, NUM_ROWS = 20, 5, 700
NUM_TRAINING, NUM_CALM, NUM_AFTER = 13, 6, 12
MEAN, WEEK_SPREAD = 5.0, 0.12
# By seed: all cases are trained on the same weeks, and to describe them takes longer than to watch a case.
REFERENCES = dict[int, dict[str, Any]]()
NAMES = tuple(f"x{i}" for i in range(NUM_FEATURES))


@dataclass
class Week:
    """One week before anything is measured. `values` [N, F] are what is delivered, `truth` [N] the chance of a late
    label, `labels` None where none ever come."""

    values: Floats
    codes: npt.NDArray[np.str_]
    truth: Floats
    labels: npt.NDArray[np.int64] | None


# Changes a week in place; the second argument counts weeks from the change on, 0 for the first.
Change = Callable[[Week, int, np.random.Generator], None]


def scores_of(values: Floats) -> Floats:
    """The champion: exact for the world it was trained in."""
    used = np.nan_to_num(values[:, :NUM_USED] - MEAN)
    return np.asarray(1 / (1 + np.exp(1.2 - used @ np.asarray([0.9, -0.7, 0.5, 0.4, -0.3]))))


def nothing(week: Week, age: int, rng: np.random.Generator) -> None:
    """A world that stays as it is."""


def sudden(week: Week, age: int, rng: np.random.Generator) -> None:
    """Most features move by a standard deviation overnight."""
    week.values[:, :14] += 1.0


def gradual(week: Week, age: int, rng: np.random.Generator) -> None:
    """The same over ten weeks."""
    week.values[:, :14] += 0.1 * min(age + 1, 10)


def seasonal(week: Week, age: int, rng: np.random.Generator) -> None:
    """A year's wave, of which training saw the quiet end."""
    week.values[:, :14] += 0.8 * (1 - np.cos(2 * np.pi * (age + 1) / 52))


def one_feature(week: Week, age: int, rng: np.random.Generator) -> None:
    """One feature the champion does not use moves."""
    week.values[:, -1] += 1.0


def concept(week: Week, age: int, rng: np.random.Generator) -> None:
    """Inputs stay, what they mean turns around."""
    turned = np.clip(2 * week.truth.mean() - week.truth, 0.01, 0.99)
    week.truth = turned
    week.labels = (rng.random(len(turned)) < turned).astype(np.int64)


def concept_unlabelled(week: Week, age: int, rng: np.random.Generator) -> None:
    """The same in a product whose labels never come."""
    concept(week, age, rng)


def label_outage(week: Week, age: int, rng: np.random.Generator) -> None:
    """Labels came, and stop."""
    week.labels = None


def unit_change(week: Week, age: int, rng: np.random.Generator) -> None:
    """One feature is delivered in another unit; the world is the same."""
    week.values[:, 3] *= 2.54


def new_codes(week: Week, age: int, rng: np.random.Generator) -> None:
    """A category is delivered under new names."""
    week.codes = np.char.add(week.codes, "2")


def feed_outage(week: Week, age: int, rng: np.random.Generator) -> None:
    """Six features come empty."""
    week.values[:, 8:14] = np.nan


def late_batch(week: Week, age: int, rng: np.random.Generator) -> None:
    """Only the first rows are there when the batch is read."""
    if age == 0:
        week.values, week.codes = week.values[:90], week.codes[:90]


# What happens, and the answers that are right about it. Others are wrong, RETRAIN above all where it is not named.
CASES: dict[str, tuple[Change, frozenset[Answer]]] = {
    "nothing": (nothing, frozenset({Answer.HOLD})),
    "sudden": (sudden, frozenset({Answer.RETRAIN})),
    "gradual": (gradual, frozenset({Answer.RETRAIN})),
    "seasonal": (seasonal, frozenset({Answer.RETRAIN})),
    "one feature": (one_feature, frozenset({Answer.HOLD})),
    "concept only": (concept, frozenset({Answer.RETRAIN})),
    "concept only, no labels": (concept_unlabelled, frozenset({Answer.UNKNOWN})),
    "label outage": (label_outage, frozenset({Answer.ALERT})),
    "unit change": (unit_change, frozenset({Answer.ALERT})),
    "new category names": (new_codes, frozenset({Answer.ALERT})),
    "feed outage": (feed_outage, frozenset({Answer.ALERT})),
    "late batch": (late_batch, frozenset({Answer.ALERT})),
}
# No labels at all, before the change either.
UNLABELLED = frozenset({"concept only, no labels"})


def batch_id(week: int) -> str:
    return (FIRST + timedelta(weeks=week)).strftime("%Y-%m-%d")


def draw(rng: np.random.Generator) -> Week:
    """A week as training knew it."""
    values = MEAN + rng.normal(0, WEEK_SPREAD, NUM_FEATURES) + rng.normal(size=(NUM_ROWS, NUM_FEATURES))
    truth = scores_of(values)
    return Week(
        values=values,
        codes=rng.choice(["u", "v", "w"], NUM_ROWS, p=[0.5, 0.3, 0.2]),
        truth=truth,
        labels=(rng.random(NUM_ROWS) < truth).astype(np.int64),
    )


def table_of(week: Week, number: int) -> pa.Table:
    """Feature rows as the monitor reads them."""
    days = np.sort(np.arange(len(week.values)) * 7 // NUM_ROWS)
    start = (FIRST + timedelta(weeks=number)).date()
    return pa.table(
        dict(zip(NAMES, week.values.T, strict=True))
        | {"c": week.codes.astype(str), DAY: [start + timedelta(days=int(d)) for d in days]}
        | {"batch_id": [batch_id(number)] * len(week.values)}
    )


def decisions(case: str, policy: Monitor, *, seed: int, num_after: int = NUM_AFTER) -> list[Decision]:
    """One per week from the first week served: NUM_CALM calm ones, then `num_after` with the change."""
    rng = np.random.default_rng(seed)
    change, _ = CASES[case]
    trained = [draw(rng) for _ in range(NUM_TRAINING)]
    if seed not in REFERENCES:
        table = pa.concat_tables(table_of(week, number) for number, week in enumerate(trained))
        REFERENCES[seed] = build_reference(table, numeric=NAMES, categorical=["c"], batch_column="batch_id")
    reference = REFERENCES[seed]
    carried, windows, found, arriving = Carried(), [], [], None
    for number in range(NUM_TRAINING, NUM_TRAINING + NUM_CALM + num_after):
        week = draw(rng)
        scores = scores_of(week.values)
        if number >= NUM_TRAINING + NUM_CALM:
            change(week, number - NUM_TRAINING - NUM_CALM, rng)
            scores = scores_of(week.values)
        batch = table_of(week, number)
        summary = _measured(number, batch, reference, scores, carried, arriving, policy)
        carried = summary.carried
        windows.append(summary.window)
        found.append(decide(windows[-8:], [], policy, product="town", as_of=summary.as_of))
        has_labels = week.labels is not None and case not in UNLABELLED
        arriving = (batch, scores, week.labels[: len(batch)]) if has_labels and week.labels is not None else None
    return found


def _measured(
    number: int,
    batch: pa.Table,
    reference: dict[str, Any],
    scores: Floats,
    carried: Carried,
    arriving: tuple[pa.Table, Floats, npt.NDArray[np.int64]] | None,
    policy: Monitor,
) -> Summary:
    as_of = (FIRST + timedelta(weeks=number + 1)).isoformat()
    is_enough = len(batch) >= policy.min_rows
    rate = policy.false_discovery_rate
    drift = measure_drift(reference, batch, ignore=(), scores=None, false_discovery_rate=rate) if is_enough else None
    joined = _joined(arriving)
    return summarise(
        product="town",
        batch_id=batch_id(number),
        as_of=as_of,
        dataset_digest="d",
        champion_digest=MODEL,
        num_rows=len(batch),
        drift=drift,
        performance=measure_performance(joined, num_labels=len(joined), num_predictions=len(joined), as_of=as_of),
        scores=scores.tolist() if is_enough else [],
        arrived=arrived_for(joined, MODEL),
        before=carried,
        num_passed=1,
        policy=policy,
    )


def _joined(arriving: tuple[pa.Table, Floats, npt.NDArray[np.int64]] | None) -> pa.Table:
    table, scores, labels = arriving if arriving is not None else (None, np.empty(0), np.empty(0, dtype=np.int64))
    keys = [str(i) for i in range(len(scores))]
    instants = pa.timestamp("us", tz="UTC")
    moments = table[DAY].cast(instants) if table is not None else pa.array([], instants)
    log = pa.table(
        {
            "key": pa.array(keys, pa.string()),
            "score": pa.array(scores, pa.float64()),
            "model_digest": pa.array([MODEL] * len(keys), pa.string()),
            "event_time": moments,
            "logged_at": moments,
        }
    )
    return join_labels(pa.table({KEY: pa.array(keys, pa.string()), LABEL: pa.array(labels, pa.int64())}), log)
