"""Kill one rank of two at one step and one phase of saving, start again, compare with a run nobody disturbed.

A run that is to be killed at step k starts from the undisturbed run's checkpoint of step k - 2, so that the save before
the kill can still be under way; what it resumes to is compared at step 40.
"""

import json
import shutil
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch._dynamo  # noqa: F401 - what DDP imports: a second of every fork, here once for all of them

import clearway.engine.sharded
from clearway.engine.world import World
from engine_kit import DDP, RECIPE, Curve, digest, keep_in, results, run, together

NUM_STEPS, NUM_RANKS = 40, 2
# Phases that both ranks pass, in order; those that only rank 0 passes.
PHASES = ("step", "before_staging", "after_staging", "before_shard", "after_shard", "before_digests", "before_manifest")
PHASES_OF_RANK_0 = ("before_pointer", "before_retention", "inside_retention")


@dataclass(frozen=True, slots=True, kw_only=True)
class Kill:
    """SIGKILL to `rank` at this phase of this step, 1 to 40."""

    step: int
    phase: str
    rank: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Undisturbed:
    """Every checkpoint of a whole run, and what it ended with, by rank."""

    folder: Path
    end: list[Any]


def all_kills() -> list[Kill]:
    """Every step, every phase, both ranks."""
    both = [Kill(step=s, phase=p, rank=r) for s in range(1, NUM_STEPS + 1) for p in PHASES for r in range(NUM_RANKS)]
    first = [Kill(step=s, phase=p, rank=0) for s in range(1, NUM_STEPS + 1) for p in PHASES_OF_RANK_0]
    return both + first


def undisturbed(folder: Path) -> Undisturbed:
    """Run once, keeping everything."""

    def work(world: World) -> Any:
        clearway.engine.sharded.NUM_KEPT = NUM_STEPS
        return _train(world, folder, every_s=1e-9)

    return Undisturbed(folder=folder, end=results(work))


def kill_and_resume(whole: Undisturbed, kill: Kill, folder: Path) -> str:
    """What went wrong, "" if nothing did: the kill must happen, and the resumed run must end at the same bits."""
    start = max(0, kill.step - 2)
    folder.mkdir(parents=True)
    for step in range(max(1, start - 1), start + 1):
        name = f"step-{step:09d}"
        shutil.copytree(whole.folder / name, folder / name)
    visit = kill.step - start
    if kill.phase == "inside_retention":  # there is nothing to forget before the third checkpoint
        visit = 1
    killed = together(
        lambda world: _train(world, folder, every_s=1e-9),
        faults={kill.rank: f"engine.{kill.phase}=kill@{visit}"},
    )
    if killed[kill.rank].exitcode != -signal.SIGKILL:
        return f"was not killed: {killed}"
    resumed = together(lambda world: _train(world, folder, every_s=1e9))
    ends = [ended.result for ended in resumed]
    shutil.rmtree(folder)
    if any(ended.exitcode != 0 for ended in resumed):
        return f"did not resume: {resumed}"
    lost = kill.step - ends[0]["resumed"]
    if lost > NUM_RANKS + 1:  # the step at hand, the save at hand, and the one still under way
        return f"lost {lost} steps"
    differing = {name for end, calm in zip(ends, whole.end, strict=True) for name in _differing(end, calm)}
    return f"ended with another {' and '.join(sorted(differing))}: {ends} instead of {whole.end}" if differing else ""


def _differing(end: dict[str, Any], calm: dict[str, Any]) -> list[str]:
    """What a rank ended with that a calm run did not. A run resumed at the very end sees no batch at all."""
    seen = calm["last_batch"] if end["resumed"] < NUM_STEPS else []
    expected = calm | {"last_batch": seen, "resumed": end["resumed"]}
    return [name for name in expected if end[name] != expected[name]]


def _train(world: World, folder: Path, *, every_s: float) -> Any:
    task = Curve()
    keeping = keep_in(folder, is_sharded=True, every_s=every_s)
    trained = run(world, task=task, recipe=RECIPE, plan=DDP, keeping=keeping)
    manifest = json.loads((folder / f"step-{NUM_STEPS:09d}" / "manifest.json").read_bytes())
    # The optimizer's state is in the shards; torch's own metadata names each save differently.
    shards = {name: sha for name, sha in manifest["files"].items() if name != ".metadata"}
    kept = {"shards": shards, "progress": manifest["progress"], "step": manifest["step"]}
    return {
        "digest": digest(trained),
        "last_batch": task.seen[-1:],
        "kept": kept,
        "resumed": trained.resumed_step,
    }
