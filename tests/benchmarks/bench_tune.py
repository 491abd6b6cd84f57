"""What a second worker saves a study, and whether kill -9 at random ever loses or repeats a trial.

    python tests/benchmarks/bench_tune.py walls [--rounds 3] [--trials 16] [--without "1 worker, 2 threads"]
    python tests/benchmarks/bench_tune.py kills [--seeds 10] [--kills 8]

`walls`: the same study with one worker of one thread, one worker of two threads, and two workers of one thread each, in
interleaved rounds: wall seconds of the stage's process, imports included, and of its trials alone. `kills`: studies of
two workers, killed at random moments (mostly a worker, one time in six the whole stage, which is started again); every
trial must be there once, with the values and losses of a run that nobody disturbed.
"""
# ruff: noqa: T201

import argparse
import json
import os
import resource
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from clearway.infra.environment import Environment, project_root
from clearway.product import Model
from clearway.product_yaml import find_product
from tune_kit import Study, make_study, run_under_fire, told, trials_of

# Name → (threads of the job, workers).
WAYS = {"1 worker, 1 thread": (1, 1), "1 worker, 2 threads": (2, 1), "2 workers, 1 thread each": (2, 2)}
# Rows and model of a study that is worth two workers: a trial takes two to three seconds.
NUM_ROWS = 20_000


def environment(folder: Path, *, num_threads: int = 2) -> Environment:
    """One of its own below `folder`."""
    home = folder / "home"
    loaded = Environment.load({"CLEARWAY__HOME": str(home), "CLEARWAY__STORAGE__ROOT": (home / "store").as_uri()})
    return loaded.model_copy(update={"jobs": loaded.jobs.model_copy(update={"num_threads": num_threads})})


def cost(folder: Path, way: str, num_trials: int) -> tuple[float, float, float]:
    """Of one whole study: wall seconds, those from the first trial's start to the last one's end, CPU seconds."""
    num_threads, num_workers = WAYS[way]
    flights = find_product(project_root() / "include" / "products", "flights")
    env = environment(folder, num_threads=num_threads)
    study = make_study(
        env,
        flights,
        num_workers=num_workers,
        num_rows=NUM_ROWS,
        num_trials=num_trials,
        max_rows=NUM_ROWS,
        model=Model(num_bins=16),
    )
    begun_s, cpu_s = time.monotonic(), _reaped_s()
    child = study.start()
    said, _ = child.communicate(timeout=600)
    wall_s, cpu_s = time.monotonic() - begun_s, _reaped_s() - cpu_s
    assert child.returncode == 0, study.log()[-3000:]
    assert json.loads(said)["num_trials"] == num_trials
    entries = study.ended().values()
    ends = [entry.datetime_complete.timestamp() for entry in entries]
    starts = [end - entry.user_attrs["seconds"] for end, entry in zip(ends, entries, strict=True)]
    return wall_s, max(ends) - min(starts), cpu_s


def _reaped_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def walls(rounds: int, num_trials: int, *, ways: list[str]) -> None:
    """Print wall and CPU seconds of each way, and of the last as a share of each other, medians."""
    found: dict[str, list[tuple[float, float, float]]] = {way: [] for way in ways}
    for _ in range(rounds):
        for way in ways:
            with tempfile.TemporaryDirectory() as folder:
                found[way].append(cost(Path(folder), way, num_trials))
            wall_s, trials_s, cpu_s = found[way][-1]
            load = os.getloadavg()[0]
            print(f"{way}: {wall_s:.1f} s, trials {trials_s:.1f} s, {cpu_s:.1f} CPU s, load {load:.1f}", flush=True)
    middle = {way: [statistics.median(column) for column in zip(*costs, strict=True)] for way, costs in found.items()}
    *others, last = middle
    for place, name in enumerate(("wall", "wall of the trials alone", "CPU")):
        shares = [f"{middle[last][place] / middle[way][place]:.2f} of {way}" for way in others]
        print(f"{name} of {last}: {', '.join(shares)}")


def kills(num_seeds: int, num_kills: int) -> None:
    """Print what each seed did; ends at the first difference."""
    flights = find_product(project_root() / "include" / "products", "flights")
    total = 0
    with tempfile.TemporaryDirectory() as folder:
        study = make_study(
            environment(Path(folder)),
            flights,
            num_workers=2,
            num_rows=8000,
            num_trials=14,
            max_rows=3000,
            refresh_every=6,
            pruner="median",
        )
        calm = told(study.calmly())
        for seed in range(num_seeds):
            again: Study = study.beside(f"seed-{seed}")
            struck = run_under_fire(again, seed=seed, num_kills=num_kills)
            assert told(again.ended()) == calm, f"seed {seed} ended with other trials"
            assert len(trials_of(again)) == struck.said["num_trials"] == 14
            total += struck.workers + struck.stages
            print(
                f"seed {seed}: {struck.workers} workers and {struck.stages} stages killed, "
                f"{struck.said['num_deaths']} attempts at a task died; 14 of 14 trials, all as undisturbed",
                flush=True,
            )
    print(f"{num_seeds} studies, {total} kills: no trial lost, none counted twice, none different")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["walls", "kills"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--trials", type=int, default=16)
    parser.add_argument("--without", nargs="*", choices=list(WAYS), default=[], help="ways to leave out")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--kills", type=int, default=8)
    args = parser.parse_args()
    if args.what == "walls":
        walls(args.rounds, args.trials, ways=[way for way in WAYS if way not in args.without])
    else:
        kills(args.seeds, args.kills)


if __name__ == "__main__":
    main()
