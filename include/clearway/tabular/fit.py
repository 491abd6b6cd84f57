"""The training loop: index slices of resident tensors, one process or one of many, resumable at any step.

Everything a step does is a function of the state and its position: rows, dropout, learning rate. So a run that was
killed and resumed takes the same steps as one that was not.
"""

import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from clearway.contracts.errors import DataError
from clearway.infra.faults import fault
from clearway.product import Model
from clearway.tabular import checkpoint
from clearway.tabular.adamw import AdamW
from clearway.tabular.model import ModelShape, Noise, TabularModel, build, loss_sum
from clearway.tabular.order import epoch_order, noise_seed, num_steps_per_epoch, one_cycle

LOG = logging.getLogger("clearway.train")
# Points of the loss curve per epoch: enough to see a bend, few enough for one MLflow request.
POINTS_PER_EPOCH = 10
CPU = torch.device("cpu")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """The training rows, resident on the device: bin [R, N] uint8/int16, place [R, N], category [R, C], label [R]."""

    bin: Tensor
    place: Tensor
    category: Tensor
    label: Tensor

    def __len__(self) -> int:
        return int(self.label.shape[0])

    def to(self, device: torch.device) -> "Rows":
        return Rows(
            bin=self.bin.to(device),
            place=self.place.to(device),
            category=self.category.to(device),
            label=self.label.to(device),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """This process among its peers: rank 0 to size - 1. `is_bfloat16`: products of matrices in bfloat16, all else and
    every parameter in float32."""

    rank: int = 0
    size: int = 1
    device: torch.device = CPU
    is_bfloat16: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Keeping:
    """Where and how often progress is kept. `job`: digest of everything that decides the result."""

    folder: Path
    job: str
    every_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitted:
    """What came out. `history`: [step, epochs done, mean loss, learning rate] per report; `is_complete` is False when
    the run was asked to stop: its checkpoint is written, and the same call again goes on."""

    model: TabularModel
    history: list[list[float]]
    is_complete: bool
    num_steps: int
    resumed_step: int
    num_samples: int


def fit(
    rows: Rows,
    shape: ModelShape,
    settings: Model,
    *,
    world: World,
    keeping: Keeping | None,
    should_stop: Callable[[], bool],
) -> Fitted:
    """Train to the end, or until any rank is asked to stop.

    Raises: DataError if the loss or a parameter stops being finite (nothing of that state is kept).
    """
    return _Loop(rows, shape, settings, world, keeping).run(should_stop)


class _Loop:
    def __init__(self, rows: Rows, shape: ModelShape, settings: Model, world: World, keeping: Keeping | None) -> None:
        self.rows, self.settings, self.world, self.keeping = rows.to(world.device), settings, world, keeping
        self.model = build(shape, seed=settings.seed).to(world.device)
        self.wrapped: nn.Module = self.model if world.size == 1 else DistributedDataParallel(self.model)
        self.optimizer = AdamW(self.model.named_parameters(), weight_decay=settings.weight_decay)
        self.steps_per_epoch = num_steps_per_epoch(len(rows), settings.batch_size)
        self.num_steps = self.steps_per_epoch * settings.num_epochs
        self.report_every = max(1, self.steps_per_epoch // POINTS_PER_EPOCH)
        self.step, self.history, self.window_loss = 0, list[list[float]](), 0.0
        self.noise = _noise(settings, world)
        self.num_samples = 0  # seen by this process and its peers since they started
        self.order = (-1, torch.empty(0))
        self._restore()

    def run(self, should_stop: Callable[[], bool]) -> Fitted:
        resumed, saved_s = self.step, time.monotonic()
        self.wrapped.train()
        while self.step < self.num_steps:
            must_stop = self._one_step(should_stop())
            fault("train.step")
            if must_stop:
                break
            if self.keeping is not None and time.monotonic() - saved_s >= self.keeping.every_s:
                self._save()
                saved_s = time.monotonic()
        self._save()
        return Fitted(
            model=self.model.eval(),
            history=self.history,
            is_complete=self.step == self.num_steps,
            num_steps=self.num_steps,
            resumed_step=resumed,
            num_samples=self.num_samples,
        )

    def _one_step(self, is_asked_to_stop: bool) -> bool:
        """One optimizer step on this rank's share of the global batch; True if any rank wants to stop."""
        epoch, position = divmod(self.step, self.steps_per_epoch)
        batch = self._order(epoch)[position * self.settings.batch_size : (position + 1) * self.settings.batch_size]
        mine = batch[self.world.rank :: self.world.size]
        if self.noise is not None:
            self.noise.start(noise_seed(seed=self.settings.seed, step=self.step, rank=self.world.rank))
        with torch.autocast(self.world.device.type, torch.bfloat16, enabled=self.world.is_bfloat16):
            logits = self.wrapped(
                self.rows.bin[mine].to(torch.int64),
                self.rows.place[mine],
                self.rows.category[mine].to(torch.int64),
                self.noise,
            )
            total = loss_sum(logits, self.rows.label[mine])
        # DDP averages over ranks, so the share of each is scaled up: the sum is the gradient of the global mean.
        torch.autograd.backward(total * (self.world.size / len(batch)))
        lr = one_cycle(self.step, num_steps=self.num_steps, lr=self.settings.lr)
        self.step += 1
        self.optimizer.update(step=self.step, lr=lr)
        self.num_samples += len(batch)
        return self._account(total.detach(), is_asked_to_stop, num_rows=len(batch))

    def _account(self, total: Tensor, is_asked_to_stop: bool, *, num_rows: int) -> bool:
        shared = torch.stack([total.double(), torch.tensor(float(is_asked_to_stop), device=total.device).double()])
        if self.world.size > 1:
            dist.all_reduce(shared)
        loss, stops = shared.tolist()
        loss /= num_rows * self.model.shape.num_members
        if not loss < float("inf"):  # also catches NaN
            raise DataError(
                f"loss became {loss} at step {self.step}; check the rows of this dataset, "
                f"or lower lr (now {self.settings.lr})"
            )
        self.window_loss += loss
        if self.step % self.report_every == 0 or self.step == self.num_steps:
            self._report()
        return bool(stops > 0)

    def _report(self) -> None:
        since = self.step % self.report_every or self.report_every
        lr = one_cycle(self.step - 1, num_steps=self.num_steps, lr=self.settings.lr)
        self.history.append([self.step, self.step / self.steps_per_epoch, self.window_loss / since, lr])
        self.window_loss = 0.0
        if self.world.rank == 0 and self.step % self.steps_per_epoch == 0:
            LOG.info("epoch %d of %d done", self.step // self.steps_per_epoch, self.settings.num_epochs)

    def _order(self, epoch: int) -> Tensor:
        if self.order[0] != epoch:
            order = epoch_order(len(self.rows), seed=self.settings.seed, epoch=epoch)
            self.order = (epoch, order.to(self.world.device))
        return self.order[1]

    def _save(self) -> None:
        if self.keeping is None or self.world.rank != 0:
            return
        tensors = {f"model.{n}": p.detach().cpu() for n, p in self.model.named_parameters()}
        broken = [name for name, tensor in tensors.items() if not torch.isfinite(tensor).all()]
        if broken:
            raise DataError(f"parameters {broken} are not finite after step {self.step}; lower lr ({self.settings.lr})")
        state = checkpoint.Checkpoint(
            job=self.keeping.job,
            step=self.step,
            tensors=tensors | self.optimizer.tensors(),
            history=self.history,
            loss_sum=self.window_loss,
        )
        checkpoint.save(self.keeping.folder, state)

    def _restore(self) -> None:
        state = None if self.keeping is None else checkpoint.load_newest(self.keeping.folder, job=self.keeping.job)
        if state is None:
            return
        self.step, self.history, self.window_loss = state.step, state.history, state.loss_sum
        with torch.no_grad():
            for name, parameter in self.model.named_parameters():
                parameter.copy_(state.tensors[f"model.{name}"])
        self.optimizer.restore(state.tensors)
        LOG.info("resumed at step %d of %d", self.step, self.num_steps)


def make_deterministic(num_threads: int) -> None:
    """Sums depend on how threads split them, so their number is part of what decides the result."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.set_num_threads(num_threads)
    torch.use_deterministic_algorithms(True)
    # Else every new tensor is filled with NaN first, 7 % of a step; no operation here reads what it has not written.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def has_fast_bfloat16(device: torch.device) -> bool:
    """Whether bfloat16 products are faster here: every GPU this runs on, and CPUs with instructions for them (2.1 times
    float32 on AVX-512-BF16, measured). Others would emulate them."""
    if device.type == "cuda":
        return True
    info = Path("/proc/cpuinfo")
    flags = info.read_text(encoding="utf-8", errors="replace") if info.exists() else ""
    return "avx512_bf16" in flags or "amx_bf16" in flags


def _noise(settings: Model, world: World) -> Noise | None:
    if not settings.dropout or not settings.hidden:
        return None
    size = settings.num_members * settings.batch_size * max(settings.hidden)
    seed = noise_seed(seed=settings.seed, step=-1, rank=world.rank)
    return Noise(share=settings.dropout, num_values=size, seed=seed, device=world.device)
