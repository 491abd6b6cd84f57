"""Drift shares of flights 2013: features weighed by their effect on predictions, beside features that count alike.

    python tests/benchmarks/weigh_drift.py --home /tmp/year

Needs what `backtest_policies.py prepare` keeps. Effects are of small trees (50, on 20,000 rows) in place of each
champion, on its own training rows. Prints, for the shipped policy, drift alone and no retraining, the weeks with which
each way retrains and its drift shares, and the features with the largest effects on the first champion.
"""
# ruff: noqa: T201

import argparse
import functools
import json
from pathlib import Path
from typing import Any

import numpy as np
from planted_faults import Clean

from clearway.infra.environment import Environment
from clearway.launch.backtest.models import Scores
from clearway.launch.backtest.replay import Replay, Story
from clearway.launch.backtest.year import read_year
from clearway.measures.effect import effects
from clearway.monitor.drift import by_effect
from clearway.monitor.drift_part import DriftPart
from clearway.product_monitor import Signal
from clearway.product_yaml import find_product

NUM_SHOWN = 8


class Weighed:
    """The kept models, with drift weighed by what each one's predictions hang on."""

    def __init__(self, clean: Clean) -> None:
        self.clean = clean
        self.names = [*clean.product.spec.features.numeric, *clean.product.spec.features.categorical]

    def scores(self, model: int) -> Scores:
        return self.clean.kept.scores(model)

    def num_rows(self, model: int) -> int:
        return self.clean.kept.num_rows(model)

    def drift(self, model: int, week: int) -> DriftPart:
        return by_effect(self.clean.kept.drift(model, week), {"effects": self.effects(model)})

    @functools.cache  # noqa: B019 - one per process
    def effects(self, model: int) -> dict[str, float]:
        inputs = self.clean.inputs[self.clean.is_training(self.clean.year, model)]
        fitted = self.clean.model(model)
        return effects(lambda rows: np.asarray(fitted.predict(rows, num_threads=1)), (inputs,), self.names)


def shares(story: Story) -> list[float | None]:
    return [s.drift.share_over if s.drift else None for s in story.summaries]


def told(name: str, replay: Replay, story: Story) -> dict[str, Any]:
    found = [s for s in shares(story) if s is not None]
    return {
        "policy": name,
        "retrained": [replay.year.batch_ids[w] for w in story.retrained],
        "log-loss": round(replay.log_loss(story), 4),
        "share: mean": round(float(np.mean(found)), 3),
        "share: largest": round(max(found), 3),
        "weeks above 0.5": sum(s > 0.5 for s in found),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--home", type=Path, required=True)
    home, env = parser.parse_args().home.resolve(), Environment.load()
    product = find_product(env.products, "flights")
    clean = Clean(read_year(env, product, home), product, home)
    weighed = Weighed(clean)
    policy = product.spec.monitor
    alone = policy.model_copy(update={"triggers": ((Signal.DRIFT,),)})
    for how, models in (("equal", clean.kept), ("by effect", weighed)):
        replay = Replay(clean.year, product, models)
        for name, chosen in (("shipped", policy), ("drift alone", alone), ("never", None)):
            story = replay.run(chosen or policy.model_copy(update={"triggers": ()}))
            print(json.dumps({"features": how} | told(name, replay, story)), flush=True)
    first = weighed.effects(clean.year.first_week - 1)
    total = sum(first.values())
    ranked = sorted(first.items(), key=lambda item: -item[1])
    print(json.dumps({name: round(value / total, 3) for name, value in ranked[:NUM_SHOWN]}))
    print(
        "features that hold half of all effects:",
        1 + int(np.searchsorted(np.cumsum([v for _, v in ranked]), total / 2)),
    )


if __name__ == "__main__":
    main()
