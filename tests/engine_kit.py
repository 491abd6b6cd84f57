"""A small task for the engine, and groups of real processes to run it in, forked from a process that has torch already.

Forked children inherit no OpenMP threads, so the parent must not have computed with more than one thread: `one_thread`.
"""

import hashlib
import json
import multiprocessing
import os
import socket
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from clearway.engine.keeping import Keeping
from clearway.engine.loop import Trained, train
from clearway.engine.parallel import full_tensors, whole
from clearway.engine.plan import DataParallel, Plan, Recipe
from clearway.engine.world import World

FORK = multiprocessing.get_context("fork")
RECIPE = Recipe(seed=3, batch_size=16, num_epochs=4, lr=0.02, weight_decay=0.01)  # 10 steps an epoch, 40 in all
SINGLE = Plan()
DDP = Plan(data_parallel=DataParallel.DDP)
TIMEOUT = timedelta(seconds=60)


class Block(nn.Module):
    """A residual layer whose hidden size a tensor-parallel group can split."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
        self.dropout = dropout

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.down(torch.relu(self.up(x)))
        return nn.functional.dropout(x, self.dropout, training=self.training)


class Net(nn.Module):
    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.enter, self.leave = nn.Linear(3, width), nn.Linear(width, 1)
        self.layers = nn.ModuleList(Block(width, dropout) for _ in range(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.enter(x)
        for layer in self.layers:
            x = layer(x)
        return self.leave(x).sum(1)


@dataclass(kw_only=True)
class Curve:
    """Learn a function of three numbers. Implements `engine.task.Task`."""

    num_samples: int = 160
    is_resident: bool = True
    dropout: float = 0.1  # drawn from torch's own generator
    poisoned: int = -1  # this sample is no number
    terms_per_sample: float = 1.0
    flops_per_sample: float = 1e3
    seen: list[list[int]] = field(default_factory=list)

    def place(self, device: torch.device) -> None:
        self.x = torch.randn(self.num_samples, 3, generator=torch.Generator().manual_seed(0)).to(device)
        self.y = torch.sin(2 * self.x[:, 0]) + self.x[:, 1] * self.x[:, 2]
        if self.poisoned >= 0:
            self.y[self.poisoned] = float("nan")

    def build(self) -> nn.Module:
        torch.manual_seed(1)
        return Net(8, self.dropout)

    def blocks(self, model: nn.Module) -> list[nn.Module]:
        return list(model.layers)

    def tensor_plan(self, model: nn.Module) -> Mapping[str, Any]:
        from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel

        return {
            f"layers.{i}.{name}": style()
            for i in range(len(model.layers))
            for name, style in (("up", ColwiseParallel), ("down", RowwiseParallel))
        }

    def is_decayed(self, name: str) -> bool:
        return name.endswith("weight")

    def batch(self, index: torch.Tensor) -> dict[str, torch.Tensor]:
        self.seen.append(index.tolist())
        return {"x": self.x[index], "y": self.y[index]}

    def loss(self, model: nn.Module, batch: Mapping[str, torch.Tensor], context: Any) -> tuple[torch.Tensor, int]:
        return ((model(batch["x"]).float() - batch["y"]) ** 2).sum(), len(batch["y"])


def run(
    world: World,
    *,
    task: Curve | None = None,
    recipe: Recipe = RECIPE,
    plan: Plan = SINGLE,
    keeping: Keeping | None = None,
    stop_after: int = 10**9,
) -> Trained:
    """Train here; `stop_after` counts this call's steps."""
    steps = iter(range(10**9))
    return train(
        task or Curve(),
        recipe,
        plan,
        world=world,
        keeping=keeping,
        should_stop=lambda: next(steps) + 1 >= stop_after,
    )


def digest(trained: Trained, task: Curve | None = None) -> str:
    """Of what a resumed run must reach again: weights, averages, curve, the last batch, torch's generator."""
    found = hashlib.sha256()
    tensors = full_tensors(trained.model) | {f"a.{n}": whole(t) for n, t in trained.average.items()}
    for name, tensor in sorted(tensors.items()):
        found.update(name.encode() + tensor.detach().numpy().tobytes())
    found.update(json.dumps(trained.history).encode())
    found.update(json.dumps(task.seen[-1] if task else []).encode())
    found.update(torch.get_rng_state().numpy().tobytes())
    return found.hexdigest()


def keep_in(folder: Path, **fields: Any) -> Keeping:
    """A checkpoint after every step."""
    folder.mkdir(parents=True, exist_ok=True)
    return Keeping(**({"folder": folder, "job": "j" * 64, "every_s": 1e-9} | fields))


@dataclass(kw_only=True)
class Ended:
    """How one rank ended: what its work returned, or why it raised; `exitcode` as multiprocessing says."""

    exitcode: int | None
    result: Any = None
    error: str = ""


def together(
    work: Callable[[World], Any],
    *,
    num_ranks: int = 2,
    faults: Mapping[int, str] | None = None,
    timeout: timedelta = TIMEOUT,
    limit_s: float = 120.0,
    hung: frozenset[int] = frozenset(),
) -> list[Ended]:
    """`work` on every rank of a gloo group of forked processes. `faults`: CLEARWAY_FAULT by rank; `hung`: ranks that
    are not waited for once those before them have ended."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    pipes = [FORK.Pipe(duplex=False) for _ in range(num_ranks)]
    processes = [
        FORK.Process(target=_child, args=(work, rank, num_ranks, port, (faults or {}).get(rank, ""), pipe[1], timeout))
        for rank, pipe in enumerate(pipes)
    ]
    for process in processes:
        process.start()
    for _, end in pipes:
        end.close()
    ended = []
    for rank, (process, (start, _)) in enumerate(zip(processes, pipes, strict=True)):
        patience_s = 0.0 if rank in hung else limit_s
        found = _word(start, patience_s)
        process.join(patience_s)
        if process.is_alive():
            process.kill()
            process.join()
        ended.append(Ended(exitcode=process.exitcode, **found))
    return ended


def results(work: Callable[[World], Any], **how: Any) -> list[Any]:
    """What every rank returned; an error of any is one here."""
    ended = together(work, **how)
    assert [e.exitcode for e in ended] == [0] * len(ended), "\n".join(e.error for e in ended)
    return [e.result for e in ended]


def _word(connection: Any, limit_s: float) -> dict[str, Any]:
    """What a child said last; {} if it died first, which closes its end of the pipe."""
    try:
        return connection.recv() if connection.poll(limit_s) else {}
    except EOFError:
        return {}


def _child(work: Any, rank: int, size: int, port: int, fault: str, pipe: Any, timeout: timedelta) -> None:
    os.environ["CLEARWAY_FAULT"] = fault
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    try:
        dist.init_process_group("gloo", rank=rank, world_size=size, timeout=timeout)
        found = {"result": work(World(rank=rank, size=size))}
        dist.destroy_process_group()
    except BaseException:  # noqa: BLE001 - told to the parent
        pipe.send({"error": traceback.format_exc()})
        os._exit(1)
    pipe.send(found)
    os._exit(0)
