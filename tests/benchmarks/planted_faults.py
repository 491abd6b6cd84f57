"""Faults planted into flights at 50 places each: what the shipped policy answers, how soon, and what that saves.

    python tests/benchmarks/planted_faults.py --home /tmp/year --fault unit_change [--places 50] [--seconds 500]

A champion serves for a few clean weeks; then, for ten weeks, every row comes broken: a column in another unit, one
airport's feed silent, carriers under each other's codes, or labels that mean the reverse of what the scores say.
Everything after the rows is the monitor's own code and the policy of product.yaml; models are small trees (50, on
20,000 rows), made by the weeks with which they are decided, on what was delivered, broken or not.

Held against calendars with as many retrainings (one, if the policy makes none) in the same ten weeks: the one with
dates evenly apart, and the best in hindsight of all choices out of five dates. Nobody looks at a calendar, so its fault
lasts. *Repaired*: the first alert is acted on within a week, and rows are clean after that. *Left alone*: nobody acts.
Intervals draw the places anew. Each place is a file below --home, so a run that was stopped goes on.
"""
# ruff: noqa: T201

import argparse
import functools
import itertools
import json
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from clearway.infra.datasets import BATCH
from clearway.infra.environment import Environment
from clearway.launch.backtest.models import TREES, UNSCORED, KeptModels, Scores
from clearway.launch.backtest.replay import Replay, Story
from clearway.launch.backtest.year import Year, read_year
from clearway.measures.distance import build_reference
from clearway.monitor.decide import Answer
from clearway.monitor.drift import measure_drift
from clearway.monitor.drift_part import DriftPart
from clearway.packaging.encoder import Encoder
from clearway.product import LoadedProduct
from clearway.product_yaml import find_product
from clearway.tabular.teacher import lightgbm

HORIZON, NUM_TREES, MAX_TRAINING_ROWS = 10, 50, 20_000
SETTINGS = TREES | {"num_leaves": 31}
# Weeks after the fault with which a calendar may retrain, and which of them lie evenly apart, by how many there are.
DATES = (0, 2, 4, 6, 8)
EVEN = {1: (4,), 2: (2, 6), 3: (2, 4, 8), 4: (2, 4, 6, 8), 5: DATES}
REPAIR_WEEKS = 1
NUM_DRAWS = 2_000

MPS, KM = 0.44704, 1.609344
CELSIUS = {"temp": (1 / 1.8, -32.0), "dewp": (1 / 1.8, -32.0), "temp_change_3h": (1 / 1.8, 0.0)}
METRIC = {"wind_speed": MPS, "wind_gust": MPS, "wind_max_6h": MPS, "gust_max_6h": MPS, "visib": KM, "visib_min_6h": KM}
# Column to (factor, what is added before): what is delivered.
UNITS: dict[str, dict[str, tuple[float, float]]] = {
    "distance in km": {"distance": (KM, 0.0)},
    "block time in hours": {"block_min": (1 / 60, 0.0)},
    "pressure in inches": {"pressure": (0.02953, 0.0)},
    "weather metric": {name: (factor, 0.0) for name, factor in METRIC.items()} | CELSIUS,
}
# What an airport's feed carries: history of its departures, and its weather.
HISTORY = ("origin_delay", "origin_late", "pair_delay", "pair_late", "route_delay", "route_late", "slot_")
SILENT = (*HISTORY, "flight_delay")
WEATHER = ("temp", "dewp", "humid", "wind", "gust", "precip", "pressure", "visib", "weather_age")
FAULTS = {
    "unit_change": tuple(UNITS),
    "feed_outage": ("EWR", "JFK", "LGA"),
    "carrier_remap": ("codes handed on",),
    "concept_flip": ("labels reversed",),
}


def broken(table: pa.Table, fault: str, variant: str, is_hit: npt.NDArray[np.bool_]) -> pa.Table:
    """The feature rows as they would come. `is_hit`: rows of the fault's weeks. [N]"""
    hit = pa.array(is_hit)
    if fault == "unit_change":
        for name, (factor, offset) in UNITS[variant].items():
            old = table[name].cast(pa.float64())
            table = replaced(table, name, pc.if_else(hit, pc.multiply(pc.add(old, offset), factor), old))
    elif fault == "feed_outage":
        silent = pc.and_(hit, pc.equal(table["origin"].cast(pa.string()), variant))
        for name in (n for n in table.column_names if n.startswith((*SILENT, *WEATHER))):
            nothing = pa.nulls(len(table), table[name].type)
            table = replaced(table, name, pc.if_else(silent, nothing, table[name]))
    elif fault == "carrier_remap":
        old = table["carrier"].cast(pa.string())
        codes = sorted(pc.unique(old).to_pylist())
        following = pa.array([*codes[1:], codes[0]]).take(pc.index_in(old, value_set=pa.array(codes)).combine_chunks())
        table = replaced(table, "carrier", pc.if_else(hit, following, old))
    return table


def replaced(table: pa.Table, name: str, column: Any) -> pa.Table:
    return table.set_column(table.schema.get_field_index(name), name, column)


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """`champion`: the week whose model serves when the fault begins, with week `begin`."""

    fault: str
    variant: str
    champion: int
    begin: int

    @property
    def end(self) -> int:
        return self.begin + HORIZON


class Clean:
    """The year as it was, encoded once; models and references made before a fault, shared by all places."""

    def __init__(self, year: Year, product: LoadedProduct, home: Path) -> None:
        self.year, self.product, self.kept = year, product, KeptModels(year, product, home)
        features = product.spec.features
        self.encoder = Encoder.fit(
            year.rows.filter(pa.array(self.is_training(year, year.first_week - 1))),
            numeric=features.numeric,
            categorical=features.categorical,
            min_count=20,
        )
        self.inputs = self.encode(year.rows)

    def encode(self, rows: pa.Table) -> npt.NDArray[np.float32]:
        return np.concatenate(self.encoder.encode_table(rows), axis=1).astype(np.float32)

    def is_training(self, year: Year, model: int) -> npt.NDArray[np.bool_]:
        return year.training_rows(model, holdout_days=self.product.spec.release.holdout_days)

    def fit(self, year: Year, inputs: npt.NDArray[np.float32], model: int) -> Any:
        rows = np.flatnonzero(self.is_training(year, model))
        rows = rows[np.linspace(0, len(rows) - 1, min(len(rows), MAX_TRAINING_ROWS)).astype(np.int64)]
        categorical = list(range(len(self.product.spec.features.numeric), inputs.shape[1]))
        data = lightgbm().Dataset(inputs[rows], year.labels[rows], categorical_feature=categorical)
        return lightgbm().train(SETTINGS, data, NUM_TREES)

    @functools.cache  # noqa: B019 - one per process
    def model(self, model: int) -> Any:
        return self.fit(self.year, self.inputs, model)

    def reference(self, year: Year, model: int) -> dict[str, Any]:
        features = self.product.spec.features
        return build_reference(
            year.rows.filter(pa.array(self.is_training(year, model))),
            numeric=features.numeric,
            categorical=features.categorical,
            batch_column=BATCH,
        )

    @functools.cache  # noqa: B019
    def clean_reference(self, model: int) -> dict[str, Any]:
        return self.reference(self.year, model)


class World:
    """A place: the rows up to the end of its ten weeks, those from `begin` on broken, until `repaired`."""

    def __init__(self, clean: Clean, place: Place, *, repaired: int) -> None:
        self.clean, self.place, self.repaired = clean, place, repaired
        until = clean.year.week < place.end
        is_hit = (clean.year.week[until] >= place.begin) & (clean.year.week[until] < repaired)
        rows = broken(clean.year.rows.filter(pa.array(until)), place.fault, place.variant, is_hit)
        self.inputs = clean.inputs[until].copy()
        self.inputs[is_hit] = clean.encode(rows.filter(pa.array(is_hit)))
        labels = clean.year.labels[until].copy()
        if place.fault == "concept_flip":
            labels[is_hit] = self._reversed(self.inputs[is_hit])
        self.year = replace(
            clean.year,
            rows=rows,
            labels=labels,
            week=clean.year.week[until],
            day=clean.year.day[until],
            batch_ids=clean.year.batch_ids[: place.end],
            first_week=place.champion + 1,
        )
        self.replay = Replay(self.year, clean.product, self)

    def _reversed(self, inputs: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
        """What was likely becomes unlikely; the rate stays."""
        scores = self.clean.model(self.place.champion).predict(inputs, num_threads=1)
        chance = np.clip(2 * scores.mean() - scores, 0.01, 0.99)
        return (np.random.default_rng(self.place.begin).random(len(chance)) < chance).astype(np.int64)

    def sees_fault(self, model: int) -> bool:
        return model >= self.place.begin

    @functools.cache  # noqa: B019 - as short-lived as its place
    def scores(self, model: int) -> Scores:
        fitted = self.clean.fit(self.year, self.inputs, model) if self.sees_fault(model) else self.clean.model(model)
        found, later = np.full(len(self.year.week), UNSCORED, np.float32), self.year.week > model
        found[later] = fitted.predict(self.inputs[later], num_threads=1)
        return found

    @functools.cache  # noqa: B019
    def _reference(self, model: int) -> dict[str, Any]:
        is_clean = not self.sees_fault(model)
        return self.clean.clean_reference(model) if is_clean else self.clean.reference(self.year, model)

    @functools.cache  # noqa: B019
    def drift(self, model: int, week: int) -> DriftPart:
        is_clean = not self.sees_fault(model) and not self.place.begin <= week < self.repaired
        if is_clean or self.place.fault == "concept_flip":
            return self.clean.kept.drift(model, week)
        policy = self.clean.product.spec.monitor
        return measure_drift(
            self._reference(model),
            self.year.rows.filter(pa.array(self.year.week == week)),
            ignore=policy.ignore,
            scores=None,
            false_discovery_rate=policy.false_discovery_rate,
        )

    def num_rows(self, model: int) -> int:
        return int(self.clean.is_training(self.year, model).sum())

    def loss(self, serving: Sequence[int]) -> float:
        """Log-loss of the ten weeks. `serving`: model of each served week."""
        total, rows = 0.0, 0
        for model, week in zip(serving, self.year.weeks, strict=True):
            if week >= self.place.begin:
                total += self._loss(model, week)
                rows += int((self.year.week == week).sum())
        return total / rows

    @functools.cache  # noqa: B019
    def _loss(self, model: int, week: int) -> float:
        chosen = self.year.week == week
        p = np.clip(self.scores(model)[chosen].astype(np.float64), 1e-6, 1 - 1e-6)
        return float(-np.where(self.year.labels[chosen] == 1, np.log(p), np.log1p(-p)).sum())


def calendars(world: World, kept: Sequence[int], count: int) -> tuple[float, float]:
    """Loss with so many retrainings evenly apart, and the least of all choices; before the fault all share `kept`."""
    count = min(count, len(DATES))

    def loss(weeks: Sequence[int]) -> float:
        return world.loss(world.replay.schedule([*kept, *(world.place.begin + w for w in weeks)]).serving)

    return loss(EVEN[count]), min(loss(weeks) for weeks in itertools.combinations(DATES, count))


def one_place(clean: Clean, place: Place) -> dict[str, Any]:
    """Answers, delays and losses."""
    policy = clean.product.spec.monitor
    alone = World(clean, place, repaired=place.end)
    story = alone.replay.run(policy)
    answers = {w: d.answer for w, d in zip(alone.year.weeks, story.decisions, strict=True) if w >= place.begin}
    alert, retrain = (first(answers, a, place.begin) for a in (Answer.ALERT, Answer.RETRAIN))
    kept = [w for w in story.retrained if w < place.begin]
    found: dict[str, Any] = {
        "variant": place.variant,
        "begin": clean.year.batch_ids[place.begin],
        "answers": [a.value for a in answers.values()],
        "alert": alert,
        "retrain": retrain,
        "trained_before_alert": retrain is not None and (alert is None or retrain < alert),
    }
    found |= {f"alone_{k}": v for k, v in against(alone, alone, story, kept).items()}
    attended, acted = alone, story
    if alert is not None:
        attended = World(clean, place, repaired=place.begin + alert + REPAIR_WEEKS)
        acted = attended.replay.run(policy)
    return found | {f"repaired_{k}": v for k, v in against(attended, alone, acted, kept).items()}


def against(world: World, left: World, story: Story, kept: Sequence[int]) -> dict[str, float]:
    """The policy in its world beside the best calendar of equal count where the fault lasts."""
    count = sum(w >= world.place.begin for w in story.retrained)
    loss, (even, best) = world.loss(story.serving), calendars(left, kept, max(1, count))
    return {"retrained": count, "loss": loss, "even": even - loss, "best": best - loss}


def first(answers: dict[int, Answer], wanted: Answer, begin: int) -> int | None:
    """Weeks until an answer: 1 is the end of the first broken one."""
    return next((w - begin + 1 for w, a in answers.items() if a is wanted), None)


def places(fault: str, year: Year, num_places: int) -> list[Place]:
    rng, found = np.random.default_rng(2013), []
    for i in range(num_places):
        begin = int(rng.integers(year.first_week + 5, year.num_weeks - HORIZON + 1))
        champion = begin - int(rng.integers(4, 7))
        variants = FAULTS[fault]
        found.append(Place(fault=fault, variant=variants[i % len(variants)], champion=champion, begin=begin))
    return found


def row(name: str, found: list[dict[str, Any]], fault: str) -> str:
    """One line of the table."""
    right = "retrain" if fault == "concept_flip" else "alert"
    delays = [f[right] for f in found if f[right] is not None]
    delay = f"{np.median(delays):.0f} / {np.quantile(delays, 0.9):.0f}" if delays else "-"
    cells = (
        fault,
        name,
        right,
        f"{len(delays)}/{len(found)}",
        delay,
        f"{sum(f['trained_before_alert'] for f in found)}/{len(found)}" if right == "alert" else "-",
        f"{np.mean([f['repaired_retrained'] for f in found]):.1f}",
        mean(found, "repaired_even"),
        mean(found, "repaired_best"),
        f"{np.mean([f['alone_retrained'] for f in found]):.1f}",
        mean(found, "alone_even"),
        mean(found, "alone_best"),
    )
    return f"| {' | '.join(str(c) for c in cells)} |"


def mean(found: list[dict[str, Any]], key: str) -> str:
    """With its 95 % interval over places."""
    values, rng = np.asarray([f[key] for f in found]), np.random.default_rng(0)
    low, high = np.quantile(values[rng.integers(0, len(values), (NUM_DRAWS, len(values)))].mean(1), [0.025, 0.975])
    return f"{values.mean():+.4f} [{low:+.4f}, {high:+.4f}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--fault", choices=FAULTS, required=True)
    parser.add_argument("--places", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=500.0, help="start no further place after so long")
    args = parser.parse_args()
    home, env, started = args.home.resolve(), Environment.load(), time.monotonic()
    product = find_product(env.products, "flights")
    clean = Clean(read_year(env, product, home), product, home)
    folder = home / "faults" / args.fault
    folder.mkdir(parents=True, exist_ok=True)
    for number, place in enumerate(places(args.fault, clean.year, args.places)):
        path = folder / f"{number:03}.json"
        if not path.is_file() and time.monotonic() - started < args.seconds:
            path.write_text(json.dumps(one_place(clean, place)))
    found = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
    print(row("all", found, args.fault))
    for variant in FAULTS[args.fault]:
        of_it = [f for f in found if f["variant"] == variant]
        if of_it:
            print(row(variant, of_it, args.fault))
    print(Counter(a for f in found for a in f["answers"]))


if __name__ == "__main__":
    main()
