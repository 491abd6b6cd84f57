"""Fit the tabular model: its rows and its loss as a task of the training engine."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from clearway.engine.keeping import Keeping
from clearway.engine.loop import Report, Trained, train
from clearway.engine.order import noise_seed
from clearway.engine.plan import DataParallel, Plan, Precision, Recipe
from clearway.engine.task import Batch, Context
from clearway.engine.world import CPU, make_deterministic
from clearway.engine.world import World as Peers
from clearway.product import Model
from clearway.tabular.model import ModelShape, Noise, TabularModel, build, loss_sum

if TYPE_CHECKING:
    from torch.distributed.tensor.parallel import ParallelStyle

__all__ = ["CPU", "Keeping", "Rows", "TabularTask", "World", "fit", "has_fast_bfloat16", "make_deterministic"]


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
class World(Peers):
    """This process among its peers. `is_bfloat16`: products of matrices in bfloat16, all else and every parameter in
    float32."""

    is_bfloat16: bool = False


class TabularTask:
    """Rows in memory, one network that is small enough for every device. Implements `engine.task.Task`."""

    is_resident = True
    terms_per_sample = 1.0  # a row; its members each train as if they were alone

    def __init__(self, rows: Rows, shape: ModelShape, settings: Model, *, rank: int) -> None:
        self.rows, self.shape, self.settings, self._rank = rows, shape, settings, rank
        self._noise: Noise | None = None

    @property
    def num_samples(self) -> int:
        return len(self.rows)

    @property
    def flops_per_sample(self) -> float:
        """Two per weight and row forward, twice that backward; sums and look-ups are not counted."""
        sizes = (self.shape.num_inputs, *self.shape.hidden, 1)
        weights = sum(i * o for i, o in itertools.pairwise(sizes))
        return 6.0 * self.shape.num_members * weights

    def place(self, device: torch.device) -> None:
        self.rows = self.rows.to(device)
        self._noise = _noise(self.settings, device, rank=self._rank)

    def build(self) -> TabularModel:
        return build(self.shape, seed=self.settings.seed)

    def blocks(self, model: nn.Module) -> Sequence[nn.Module]:  # noqa: ARG002 - a network of a few MB has none
        return ()

    def tensor_plan(self, model: nn.Module) -> Mapping[str, "ParallelStyle"]:  # noqa: ARG002 - likewise
        return {}

    def is_decayed(self, name: str) -> bool:  # noqa: ARG002 - all are
        return True

    def batch(self, index: Tensor) -> Batch:
        return {
            "bin": self.rows.bin[index].to(torch.int64),
            "place": self.rows.place[index],
            "category": self.rows.category[index].to(torch.int64),
            "label": self.rows.label[index],
        }

    def loss(self, model: nn.Module, batch: Batch, context: Context) -> tuple[Tensor, int]:
        if self._noise is not None:
            self._noise.start(context.seed)
        logits = model(batch["bin"], batch["place"], batch["category"], self._noise)
        return loss_sum(logits, batch["label"]), logits.numel()


def fit(
    rows: Rows,
    shape: ModelShape,
    settings: Model,
    *,
    world: World,
    keeping: Keeping | None,
    should_stop: Callable[[], bool],
    on_report: Callable[[Report], None] | None = None,
) -> Trained:
    """Train to the end, or until any rank is asked to stop.

    Raises: DataError if the loss or a parameter stops being finite (nothing of that state is kept).
    """
    return train(
        TabularTask(rows, shape, settings, rank=world.rank),
        recipe_of(settings),
        plan_of(world),
        world=world,
        keeping=keeping,
        should_stop=should_stop,
        on_report=on_report,
    )


def recipe_of(settings: Model) -> Recipe:
    """What the product's model section says about training."""
    return Recipe(
        seed=settings.seed,
        batch_size=settings.batch_size,
        num_epochs=settings.num_epochs,
        lr=settings.lr,
        weight_decay=settings.weight_decay,
    )


def plan_of(world: World) -> Plan:
    """Every rank holds the whole network: a few MB."""
    return Plan(
        data_parallel=DataParallel.DDP,
        precision=Precision.BFLOAT16 if world.is_bfloat16 else Precision.FLOAT32,
        is_fused=True,
    )


def has_fast_bfloat16(device: torch.device) -> bool:
    """Whether bfloat16 products are faster here: every GPU this runs on, and CPUs with instructions for them (2.1 times
    float32 on AVX-512-BF16, measured). Others would emulate them."""
    if device.type == "cuda":
        return True
    info = Path("/proc/cpuinfo")
    flags = info.read_text(encoding="utf-8", errors="replace") if info.exists() else ""
    return "avx512_bf16" in flags or "amx_bf16" in flags


def _noise(settings: Model, device: torch.device, *, rank: int) -> Noise | None:
    if not settings.dropout or not settings.hidden:
        return None
    size = settings.num_members * settings.batch_size * max(settings.hidden)
    seed = noise_seed(seed=settings.seed, step=-1, rank=rank)
    return Noise(share=settings.dropout, num_values=size, seed=seed, device=device)
