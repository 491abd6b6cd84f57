"""One training process under torchrun: joins its peers, trains, leaves an outcome file.

`python -m torch.distributed.run --standalone --nproc-per-node 2 -m clearway.train.worker job.json`, or in-process
through launch.py. Expected ends (done, stopped, refused rows) are outcomes, not crashes, so that only real crashes
use up restarts.
"""

import fcntl
import json
import logging
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.elastic.multiprocessing.errors import record

from clearway.contracts.codec import from_jsonable, to_jsonable
from clearway.contracts.errors import DataError, Unavailable
from clearway.contracts.manifest import canonical_json
from clearway.engine.interrupt import Interrupts
from clearway.engine.keeping import Keeping
from clearway.engine.loop import Trained
from clearway.engine.meter import Pace
from clearway.engine.world import World, keep_freed_memory, make_deterministic
from clearway.infra.orphans import die_with_parent
from clearway.kinds.kind import kind_named

LOG = logging.getLogger("clearway.train")
OUTCOME, JOB = "outcome.json", "job.json"
# An earlier process of the same job, told to stop, needs one step and one checkpoint.
LOCK_TIMEOUT_S = 30.0


class End(StrEnum):
    """How a training run ended."""

    DONE = "done"
    STOPPED = "stopped"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """Everything a worker needs. `identity`: digest of all that decides the result.

    `kind`: of the model; `sizes`: what it says of the data (`kinds.kind.Prepared`); `settings`: the product's model
    section with overrides applied. `is_bfloat16`: precision of matrix products; decided once, so that all ranks agree
    and a run resumed elsewhere does not change it. `collective_timeout_s`: a rank that says nothing for this long is
    lost; the group ends and is started again from the last checkpoint. `allows_other_world`: go on with another number
    of ranks, no longer bitwise. `stop_file`, `metadata_url`: as in
    `engine.interrupt.Interrupts`, "" for none.
    """

    folder: str
    identity: str
    kind: str
    sizes: dict[str, Any]
    settings: dict[str, Any]
    num_threads: int
    is_bfloat16: bool
    collective_timeout_s: float = 60.0
    allows_other_world: bool = False
    stop_file: str = ""
    metadata_url: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What rank 0 leaves behind: `engine.loop.Trained` without its tensors. `fit_s`: wall seconds of this process's
    loop, in which all ranks together saw `num_samples` rows."""

    end: End
    reason: str
    history: tuple[tuple[float, ...], ...]
    num_steps: int
    resumed_step: int
    fit_s: float
    num_samples: int
    device: str
    world_size: int
    is_bitwise: bool = True
    paces: tuple[Pace, ...] = ()


def work(job_path: str) -> None:
    """Entry point of every rank."""
    die_with_parent(by=signal.SIGTERM)  # an orphan would train on beside its successor
    job = from_jsonable(Job, json.loads(Path(job_path).read_text(encoding="utf-8")))
    interrupts = Interrupts(file=Path(job.stop_file) if job.stop_file else None, metadata_url=job.metadata_url or None)
    interrupts.on_signals()
    with _world(job) as world, _locked(Path(job.folder), world):
        make_deterministic(job.num_threads)
        keep_freed_memory()
        outcome = _train(job, world, interrupts)
    if world.rank == 0:
        _write_outcome(Path(job.folder), outcome)


def _train(job: Job, world: World, interrupts: Interrupts) -> Outcome:
    folder, started_s = Path(job.folder), time.monotonic()

    def keeping(every_s: float) -> Keeping:
        return Keeping(folder=folder, job=job.identity, every_s=every_s, allows_other_world=job.allows_other_world)

    try:
        trained = kind_named(job.kind).fit(
            folder,
            settings=job.settings,
            sizes=job.sizes,
            is_bfloat16=job.is_bfloat16,
            world=world,
            keeping=keeping,
            should_stop=interrupts.should_stop,
        )
    except DataError as error:
        return _outcome(End.REFUSED, str(error), None, world, started_s)
    end = End.DONE if trained.is_complete else End.STOPPED
    asked = interrupts.reason or "another rank was asked"
    reason = "" if trained.is_complete else f"asked to stop ({asked}); a checkpoint is written, start again to go on"
    return _outcome(end, reason, trained, world, started_s)


def _outcome(end: End, reason: str, trained: Trained | None, world: World, started_s: float) -> Outcome:
    return Outcome(
        end=end,
        reason=reason,
        history=tuple(tuple(point) for point in trained.history) if trained else (),
        num_steps=trained.num_steps if trained else 0,
        resumed_step=trained.resumed_step if trained else 0,
        fit_s=time.monotonic() - started_s,
        num_samples=trained.num_samples if trained else 0,
        device=str(world.device) if world.device.type == "cpu" else torch.cuda.get_device_name(world.device),
        world_size=world.size,
        is_bitwise=trained.is_bitwise if trained else True,
        paces=tuple(trained.paces) if trained else (),
    )


def _write_outcome(folder: Path, outcome: Outcome) -> None:
    temporary = folder / (OUTCOME + ".tmp")
    temporary.write_bytes(canonical_json(to_jsonable(outcome)))
    temporary.replace(folder / OUTCOME)


@contextmanager
def _world(job: Job) -> Iterator[World]:
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    has_gpu = torch.cuda.is_available()
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"])) if has_gpu else torch.device("cpu")
    if has_gpu:
        torch.cuda.set_device(device)
    world = World(rank=rank, size=size, device=device)
    if size == 1:  # nobody to talk to; joining a group of one would only cost start-up time
        yield world
        return
    # Sharded checkpoints are gathered in host memory, so gloo is there beside nccl.
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if has_gpu else "gloo", timeout=timedelta(seconds=job.collective_timeout_s)
    )
    try:
        yield world
    finally:
        dist.destroy_process_group()


@contextmanager
def _locked(folder: Path, world: World) -> Iterator[None]:
    """Only one group writes checkpoints of a job. Raises: Unavailable if another holds the folder too long."""
    if world.rank != 0:
        yield
        return
    with (folder / "lock").open("w") as file:
        deadline_s = time.monotonic() + LOCK_TIMEOUT_S
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if time.monotonic() > deadline_s:
                    raise Unavailable(f"another process trains in {folder}; wait for it, or stop it") from error
                time.sleep(0.1)
        yield


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    record(work)(sys.argv[1])  # what it raises is the agent's to tell
