"""Retraining policies over flights 2013: how the shipped one was chosen, and what it and others would have been worth.

    python tests/benchmarks/backtest_policies.py --home /tmp/year prepare   # once: the year, a model per week, drift
    python tests/benchmarks/backtest_policies.py --home /tmp/year table
    python tests/benchmarks/backtest_policies.py --home /tmp/year choose

`prepare` may be stopped and goes on where it was: the year in a minute, then about 15 CPU seconds per model. Weeks go
through the monitor's own code: drift, performance, summary, decision. Labels come a week late; a model decided with a
week serves from the next one on; every new model is accepted.

`table`: policies beside calendars, the best schedule in hindsight, and 2,000 random schedules with as many retrainings.
`choose`: of a grid, the policy with the least loss on weeks before September, allowed as many retrainings there as its
share of six a year; then scored on the rest, against calendars and random schedules that share everything before
September. Intervals resample whole weeks.
"""
# ruff: noqa: T201

import argparse
import itertools
import json
import time
from pathlib import Path

import numpy as np

from clearway.infra.environment import Environment
from clearway.launch.backtest import policies
from clearway.launch.backtest.models import KeptModels
from clearway.launch.backtest.replay import Replay, Story
from clearway.launch.backtest.year import read_year
from clearway.monitor.decide import Answer
from clearway.product_monitor import Monitor, Signal
from clearway.product_yaml import find_product

SPLIT, MAX_RETRAINS = "2013-09-01", 6
# What the choice is among. Drift's and loss's limits are left alone: on this year they never decide alone.
GAPS, PERSISTENCES, CALENDARS = (0.04, 0.05, 0.06), ((1, 1), (2, 2), (2, 3), (3, 4)), (5, 6, 7, 8, 10, 13, None)
MEASURED = ((Signal.DRIFT,), (Signal.CALIBRATION,), (Signal.LOSS,))


def prepare(replay: Replay, *, seconds: float) -> None:
    """Everything that `table` and `choose` look up."""
    started = time.monotonic()
    for model in replay.year.model_weeks:
        if time.monotonic() - started > seconds:
            print("stopped; run again to go on")
            return
        replay.models.scores(model)
        replay.models.drift(model, model + 1)
    print("complete")


def calendars(replay: Replay) -> dict[str, Story]:
    """Every so many weeks, counted from the first champion."""
    return {"never": policies.never(replay)} | {f"every {n} weeks": replay.every(n) for n in (13, 8, 7, 6, 4, 1)}


def triggered(replay: Replay, policy: Monitor) -> dict[str, Story]:
    """The shipped policy and its signals one by one."""
    groups = {"shipped": policy.triggers, **{f"{g[0].value} alone": (g,) for g in policy.triggers}}
    return {name: replay.run(policy.model_copy(update={"triggers": t})) for name, t in groups.items()}


def row(replay: Replay, name: str, story: Story, base: dict[str, Story], rng: np.random.Generator) -> str:
    """One line of the table."""
    never, weekly = replay.log_loss(base["never"]), replay.log_loss(base["every 1 weeks"])
    found, count = replay.log_loss(story), len(story.retrained)
    kept = (never - found) / (never - weekly)
    beaten = (replay.random_losses(count, rng) < found).mean() if 0 < count < len(replay.weeks) - 1 else np.nan
    low_high = replay.difference(base["never"], story, rng)
    alerts = sum(d.answer is Answer.ALERT for d in story.decisions) if story.decisions else 0
    cells = (
        name,
        count,
        f"{found:.4f}",
        f"{low_high[0]:+.4f} [{low_high[1]:+.4f}, {low_high[2]:+.4f}]",
        f"{kept:.0%}",
        "-" if np.isnan(beaten) else f"{beaten:.0%}",
        alerts,
    )
    return f"| {' | '.join(str(c) for c in cells)} |"


def table(replay: Replay, policy: Monitor) -> None:
    """All policies over all weeks."""
    rng = np.random.default_rng(0)
    base = calendars(replay)
    rules = triggered(replay, policy)
    count = len(rules["shipped"].retrained)
    stories = base | rules | {f"best {count} in hindsight": replay.best(count)}
    for name, story in stories.items():
        print(row(replay, name, story, base, rng), flush=True)
    print("\nshipped:", [replay.year.batch_ids[w] for w in rules["shipped"].retrained])
    for name in ("every 8 weeks", "every 7 weeks", "every 6 weeks", "every 4 weeks", "every 1 weeks"):
        print("shipped -", name, [round(v, 4) for v in replay.difference(rules["shipped"], base[name], rng)])
    print(json.dumps(coverage(replay)))


def choose(replay: Replay, policy: Monitor) -> None:
    """The grid, ranked by the weeks before SPLIT; the best, scored on the rest."""
    rng, split = np.random.default_rng(0), next(w for w in replay.weeks if replay.year.batch_ids[w] >= SPLIT)
    cut = split - replay.weeks[0]
    before, after = slice(0, cut), slice(cut, None)
    allowed = MAX_RETRAINS * cut / len(replay.weeks)
    never, weekly = policies.never(replay), policies.weekly(replay)
    most = replay.log_loss(never) - replay.log_loss(weekly)
    found = []
    for gap, persistence, every in itertools.product(GAPS, PERSISTENCES, CALENDARS):
        triggers = MEASURED if every is None else (*MEASURED, (Signal.TIME,))
        asked = {"calibration_gap": gap, "persistence": persistence, "triggers": triggers, "every_batches": every or 1}
        story = replay.run(policy.model_copy(update=asked))
        if sum(w < split for w in story.retrained) <= allowed:
            found.append((replay.log_loss(story, before), f"{gap} {persistence} {every}", story))
    found.sort(key=lambda f: f[0])
    print(f"{len(found)} policies retrain at most {allowed:.1f} times before {SPLIT}")
    for loss, name, story in found:
        kept = (replay.log_loss(never) - replay.log_loss(story)) / most
        print(f"| {name} | {len(story.retrained)} | {loss:.4f} | {replay.log_loss(story, after):.4f} | {kept:.0%} |")
    scored(replay, found[0][2], split, rng)


def scored(replay: Replay, story: Story, split: int, rng: np.random.Generator) -> None:
    """The chosen one from SPLIT on: against never, calendars that count on from there, and random weeks."""
    after = slice(split - replay.weeks[0], None)
    kept = [w for w in story.retrained if w < split]
    later = len(story.retrained) - len(kept)
    beaten = (replay.random_losses(later, rng, kept=kept, since=split) < replay.log_loss(story, after)).mean()
    print(f"chosen: {[replay.year.batch_ids[w] for w in story.retrained]}")
    print(f"from {SPLIT} on: {later} retrainings, {replay.log_loss(story, after):.4f}, {beaten:.0%} of random better")
    num_weeks = len(replay.weeks) - after.start
    every = num_weeks // (later + 1)
    dates = [split - 1 + every * (i + 1) for i in range(later)]
    others = {
        "never": policies.never(replay),
        "never again": replay.schedule(kept),
        f"calendar of {later}, every {every} weeks": replay.schedule([*kept, *dates]),
        "weekly": policies.weekly(replay),
    }
    for name, other in others.items():
        low_high = [round(v, 4) for v in replay.difference(story, other, rng, after)]
        print(f"chosen - {name} ({replay.log_loss(other, after):.4f}): {low_high}")


def coverage(replay: Replay) -> dict[str, dict[str, float]]:
    """Of weeks whose log-loss was estimated, how many had it inside the interval; never retrained, and as shipped."""
    found = {}
    policy = replay.product.spec.monitor
    for name, triggers in (("never", ()), ("shipped", policy.triggers)):
        story = replay.run(policy.model_copy(update={"triggers": triggers}))
        num_inside, errors = 0, []
        for week, model, summary in zip(replay.weeks, story.serving, story.summaries, strict=True):
            figures = {f.name: f for f in summary.estimate.figures}
            if "log_loss" not in figures:
                continue
            real = replay.losses[model, week] / replay.num_rows[week]
            num_inside += figures["log_loss"].lower <= real <= figures["log_loss"].upper
            errors.append(abs(figures["log_loss"].value - real))
        counts = {"weeks": len(story.summaries), "estimated": len(errors), "inside": int(num_inside)}
        found[name] = counts | {"mean error": round(float(np.mean(errors)), 4) if errors else 0.0}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("prepare", "table", "choose"))
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument(
        "--seconds", type=float, default=500.0, help="of `prepare`: start no further model after so long"
    )
    args = parser.parse_args()
    home, env = args.home.resolve(), Environment.load()
    product = find_product(env.products, "flights")
    year = read_year(env, product, home)
    replay = Replay(year, product, KeptModels(year, product, home))
    if args.what == "prepare":
        prepare(replay, seconds=args.seconds)
    elif args.what == "table":
        table(replay, product.spec.monitor)
    else:
        choose(replay, product.spec.monitor)


if __name__ == "__main__":
    main()
