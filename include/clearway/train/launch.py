"""Start the workers: torch's elastic agent, the engine of torchrun, inside this process.

One process per local GPU, or one for all cores. Where that is safe, workers are forked from this process, which has
imported torch already (2.5 CPU seconds saved per worker); otherwise they are new interpreters. CUDA survives no fork.
A worker that dies is started again from its last checkpoint, as often as the restart budget says. Several machines form
one group when each calls `launch` with the same job in a shared folder and the same rendezvous; or when one `lead`s and
the others `assist`, each with the job in a folder of its own.
"""

import json
import logging
import sys
import tempfile
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.distributed import DistError
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.elastic.rendezvous import RendezvousError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from clearway.contracts.codec import from_jsonable, to_jsonable
from clearway.contracts.errors import ConfigError, DataError, JobFailed
from clearway.contracts.manifest import canonical_json
from clearway.infra.clock import SystemClock
from clearway.train.machines import Died, First, Meeting, talk_by
from clearway.train.worker import JOB, OUTCOME, End, Job, Outcome, work

LOG = logging.getLogger("clearway.train")
# One line of JSON per state change of the agent, of use to a fleet, not to a reader of this log.
logging.getLogger("torchelastic-events-null").setLevel(logging.WARNING)
# The agent looks this often whether its workers are done; it adds half of this to every training.
MONITOR_INTERVAL_S = 0.05
# Machines that were told at once to meet have this long, at least.
MEET_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """The agents of one training.

    Args:
        min_nodes, max_nodes: machines; with fewer than `max_nodes` it starts after a wait, and more may join, which
            restarts all workers from the last checkpoint and costs one restart.
        rendezvous: host:port where they meet, the same on all; port 0 for a machine alone.
        max_restarts: how often all workers are started again before the training fails.
        index: of this machine, where `rendezvous` is of one round and everybody knows who comes; -1: they find out.
    """

    min_nodes: int = 1
    max_nodes: int = 1
    rendezvous: str = "localhost:0"
    max_restarts: int = 2
    index: int = -1

    def __post_init__(self) -> None:
        if not 1 <= self.min_nodes <= self.max_nodes:
            raise ConfigError(f"nodes are {self.min_nodes}:{self.max_nodes}; allowed: 1 <= smallest <= largest")
        if self.max_nodes > 1 and self.rendezvous.endswith(":0"):
            raise ConfigError(f"{self.max_nodes} nodes cannot meet at {self.rendezvous}; name one of them as host:port")
        if self.max_restarts < 0:
            raise ConfigError(f"max_restarts is {self.max_restarts}; allowed: 0 or more")


ALONE = Group()


def num_local_processes() -> int:
    """GPUs of this machine, or 1."""
    return torch.cuda.device_count() if has_gpu() else 1


def has_gpu() -> bool:
    """Whether torch sees a GPU here; asks the driver without starting CUDA in this process."""
    return torch.cuda.device_count() > 0


def launch(job: Job, *, num_processes: int, can_fork: bool, group: Group = ALONE) -> Outcome:
    """Train to the end.

    `can_fork`: torch has computed nothing in this process yet. Its OpenMP threads do not survive a fork: a child of a
    process that used them waits forever in its first parallel loop (seen).

    Raises: DataError if the worker refused its rows; JobFailed (retryable, resumes) if it was stopped or kept dying.
    """
    folder = _begun(job)
    try:
        _run_agent(job, group, num_processes, is_forking=can_fork and not has_gpu())
    except Died as error:
        raise JobFailed(f"training in {folder} died {group.max_restarts + 1} times: {error}") from error
    return _checked_outcome(folder)


def lead(job: Job, *, first: First, num_processes: int, can_fork: bool, max_restarts: int) -> Outcome:
    """Train to the end on the machines that `first` waits for, this one among them. `can_fork`: as in `launch`.

    Raises: as `launch`; JobFailed with the reason of the machine that failed first.
    """
    folder = _begun(job)
    first.gather(job.identity)
    talk_by(first.lines[0].own_address)

    def run(meeting: Meeting) -> Outcome:
        group = _round_of(meeting, len(first.place.names), 0)
        _run_agent(job, group, num_processes, is_forking=can_fork and not has_gpu())
        return _checked_outcome(folder)

    return first.train(run, max_restarts=max_restarts)


def assist(job: Job, meeting: Meeting, *, index: int, count: int, num_processes: int, can_fork: bool) -> None:
    """One round on a machine that is not the first: its outcome is the first one's.

    Raises: Died if processes here did; JobFailed if they were stopped.
    """
    _begun(job)
    _run_agent(job, _round_of(meeting, count, index), num_processes, is_forking=can_fork and not has_gpu())


def _begun(job: Job) -> Path:
    folder = Path(job.folder)
    (folder / OUTCOME).unlink(missing_ok=True)
    (folder / JOB).write_bytes(canonical_json(to_jsonable(job)))
    return folder


def _round_of(meeting: Meeting, count: int, index: int) -> Group:
    """Of one round: whoever restarts is `First`, which knows about all machines."""
    endpoint = f"{meeting.address}:{meeting.port}"
    return Group(min_nodes=count, max_nodes=count, rendezvous=endpoint, max_restarts=0, index=index)


def _checked_outcome(folder: Path) -> Outcome:
    if not (folder / OUTCOME).exists():
        raise JobFailed(f"training in {folder} ended without an outcome; start it again, it resumes")
    outcome = from_jsonable(Outcome, json.loads((folder / OUTCOME).read_bytes()))
    if outcome.end is End.REFUSED:
        raise DataError(outcome.reason)
    if outcome.end is End.STOPPED:
        raise JobFailed(f"training in {folder} stopped: {outcome.reason}")
    return outcome


def _run_agent(job: Job, group: Group, num_processes: int, *, is_forking: bool) -> None:
    """Raises: Died; JobFailed if this process was told to stop."""
    job_path = str(Path(job.folder) / JOB)
    with tempfile.TemporaryDirectory(prefix="clearway-torchrun-") as logs:
        config = _config(job, group, num_processes, logs)
        try:
            if is_forking:
                elastic_launch(config, work)(job_path)
            else:
                elastic_launch(config, sys.executable)("-m", "clearway.train.worker", job_path)
        except ChildFailedError as error:
            raise Died(_first_line(error), at_s=SystemClock().now_s()) from error
        except SignalException as error:
            raise JobFailed(f"training in {job.folder} was stopped by signal {error.sigval}; start it again") from error
        except (DistError, RendezvousError) as error:  # the agents did not meet
            raise Died(f"{type(error).__name__}: {error}", at_s=SystemClock().now_s()) from error


def _config(job: Job, group: Group, num_processes: int, logs: str) -> LaunchConfig:
    is_known = group.index >= 0
    return LaunchConfig(
        min_nodes=group.min_nodes,
        max_nodes=group.max_nodes,
        nproc_per_node=num_processes,
        run_id=job.identity if group.max_nodes > 1 else uuid.uuid4().hex,
        rdzv_backend="static" if is_known else "c10d",
        rdzv_configs={"rank": group.index, "timeout": max(MEET_S, job.collective_timeout_s)} if is_known else {},
        rdzv_endpoint=group.rendezvous,
        max_restarts=group.max_restarts,
        monitor_interval=MONITOR_INTERVAL_S,
        start_method="fork",
        logs_specs=DefaultLogsSpecs(log_dir=logs),
    )


def _first_line(error: ChildFailedError) -> str:
    """What the worker raised, where it could still write that down."""
    _, failure = error.get_first_failure()
    said: Any = failure.message
    text = str(said.get("message", said) if isinstance(said, dict) else said).strip().splitlines()
    return f"exit code {failure.exitcode}: {text[0] if text else 'nothing said'}"
