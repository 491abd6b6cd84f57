"""Years in which nothing changes: rows of flights dealt over 52 weeks anew, through the code that ships. How often does
it retrain?

    python tests/benchmarks/shuffled_years.py --home /tmp/year --years 200 [--first 0] [--seconds 500]

Thirteen weeks train the first champion, 39 are served, labels come a week late, every new model is accepted and is as
good as the one before: scores are out of fold, and limits are those that the first thirteen weeks set. A week holds
1,000 of its 6,400 rows, so every number is noisier than at full size: the harder case. Each year is a file below
--home, so a run that was stopped goes on.
"""
# ruff: noqa: T201

import argparse
import json
import sys
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
import numpy as np

from clearway.infra.environment import Environment
from clearway.launch.backtest.replay import Replay
from clearway.launch.backtest.year import read_year
from clearway.monitor.decide import Answer
from clearway.packaging.encoder import Encoder
from clearway.product_monitor import Signal
from clearway.product_yaml import find_product
from years_kit import EqualModels, dealt, out_of_fold

NUM_WEEKS, PER_WEEK = 52, 1_000


def one_year(rows, scores, product, *, seed: int) -> dict[str, object]:  # type: ignore[no-untyped-def]
    """What the shipped policy did."""
    rng = np.random.default_rng(seed)
    year, own = dealt(rows, scores, product, num_weeks=NUM_WEEKS, per_week=PER_WEEK, rng=rng)
    story = Replay(year, product, EqualModels(year, product, own)).run(product.spec.monitor)
    retrained = [d for d in story.decisions if d.answer is Answer.RETRAIN]
    shares = [s.drift.share_over for s in story.summaries if s.drift is not None and s.drift.share_over is not None]
    gaps = [s.calibration_gap for s in story.summaries if s.calibration_gap is not None]
    return {
        "retrained": len(retrained),
        "not by time": sum(Signal.TIME not in d.signals for d in retrained),
        "with evidence": sum(set(d.signals) != {Signal.TIME} for d in retrained),
        "answers": Counter(d.answer.value for d in story.decisions),
        "share": max(shares),
        "gap": max(gaps),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--years", type=int, default=200)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=500.0, help="start no further year after so long")
    args = parser.parse_args()
    home, env, started = args.home.resolve(), Environment.load(), time.monotonic()
    product = find_product(env.products, "flights")
    year, features = read_year(env, product, home), product.spec.features
    kept = home / "out_of_fold.npy"
    if not kept.is_file():
        encoder = Encoder.fit(year.rows, numeric=features.numeric, categorical=features.categorical, min_count=20)
        inputs = np.concatenate(encoder.encode_table(year.rows), axis=1)
        np.save(kept, out_of_fold(year.labels, inputs, num_categorical=len(features.categorical)))
    scores = np.load(kept)
    (home / "shuffled").mkdir(exist_ok=True)
    for seed in range(args.first, args.first + args.years):
        path = home / "shuffled" / f"{seed}.json"
        if not path.is_file() and time.monotonic() - started < args.seconds:
            path.write_text(json.dumps(one_year(year.rows, scores, product, seed=seed)))
    found = [json.loads(path.read_text()) for path in sorted((home / "shuffled").glob("*.json"))]
    for name in ("retrained", "not by time", "with evidence"):
        values = np.asarray([f[name] for f in found])
        print(f"{name}: median {np.median(values):g}, most {values.max()}, sum {values.sum()} in {len(found)} years")
    print("answers:", dict(sum((Counter(f["answers"]) for f in found), Counter())))
    print("largest drift share", max(f["share"] for f in found), "largest gap", max(f["gap"] for f in found))


if __name__ == "__main__":
    main()
