"""What is trained, as the engine sees it: a model, samples by number, and a loss.

A task is single-device code. Which samples a step sees, on which rank, in which precision and split over how many
devices is the engine's business; a task that draws random numbers draws them from `Context.seed` or from torch's own
generators, which the engine seeds before every micro-step, so that a resumed run draws the same.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeAlias

import torch
from torch import Tensor, nn

if TYPE_CHECKING:  # costs an import of torch's distributed tensors
    from torch.distributed.tensor.parallel import ParallelStyle

Batch: TypeAlias = Mapping[str, Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """Where a micro-step stands.

    Args:
        step: optimizer steps taken before this one, from 0.
        micro: micro-step within it, from 0.
        seed: of everything random in this micro-step; another for each data-parallel rank, the same for the ranks of
            one tensor-parallel group.
        device: where model and batch are.
    """

    step: int
    micro: int
    seed: int
    device: torch.device


class Task(Protocol):
    """One thing to train; the conformance suite is tests/contracts/test_task_conformance.py."""

    @property
    def num_samples(self) -> int:
        """Samples of one epoch; they are numbered from 0."""
        ...

    @property
    def terms_per_sample(self) -> float:
        """What the summed loss of a batch is divided by, per sample, before it is differentiated: 1 for a row, the
        sequence length for a packed sequence. Known beforehand, so that no rank waits for another's count; masked
        terms weigh nothing."""
        ...

    @property
    def flops_per_sample(self) -> float:
        """Floating-point operations of one forward and backward pass, recomputation not counted; for utilization."""
        ...

    @property
    def is_resident(self) -> bool:
        """True: `place` puts every sample on the device and `batch` slices there, without waiting.
        False: `batch` reads host memory; the engine calls it ahead of time from another thread, pins and moves."""
        ...

    def place(self, device: torch.device) -> None:
        """Called once before the first step. Resident tasks move their samples to the device."""
        ...

    def build(self) -> nn.Module:
        """A fresh model in host memory, in float32; equal weights on every call and every machine."""
        ...

    def blocks(self, model: nn.Module) -> Sequence[nn.Module]:
        """Layers that are sharded, recomputed and compiled one by one, in the order they run; () for small models."""
        ...

    def tensor_plan(self, model: nn.Module) -> Mapping[str, "ParallelStyle"]:
        """How each module, by its dotted name, is split over a tensor-parallel group; {} if it cannot be."""
        ...

    def is_decayed(self, name: str) -> bool:
        """Whether weight decay applies to the parameter of this dotted name."""
        ...

    def batch(self, index: Tensor) -> Batch:
        """The samples of these numbers. `index`: int64 [B], on the device for a resident task, else on the host."""
        ...

    def loss(self, model: nn.Module, batch: Batch, context: Context) -> tuple[Tensor, int]:
        """Sum of the loss over the batch (a scalar in float32, differentiable), and the number of terms in it, for the
        mean that is reported. Call `model(...)` once: it may be wrapped, and its hooks do the communication."""
        ...
