"""The norm of all gradients over all ranks, clipping by it, and the loss scale that float16 needs."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn

from clearway.engine.adamw import local

# Source: torch's GradScaler, whose defaults have proved themselves: double after 2,000 good steps, halve after a bad.
FIRST_SCALE, GROWTH, BACKOFF, GROWTH_STEPS = 65536.0, 2.0, 0.5, 2000


def global_norm(parameters: Iterable[nn.Parameter]) -> Tensor:
    """Euclidean norm over every element once, wherever it lies. The same on every rank. float32 scalar

    A rank sums the squares of its shards; sums of one layout are added up over just those mesh axes that split it, so
    replicated elements are not counted twice.
    """
    totals: dict[tuple[object, ...], Tensor] = {}
    groups: dict[tuple[object, ...], list[dist.ProcessGroup]] = {}
    for p in parameters:
        if p.grad is None:
            continue
        layout = _split_axes(p.grad)
        key: tuple[object, ...] = tuple(id(group) for group in layout)
        groups[key] = layout
        square = local(p.grad).float().square().sum()
        totals[key] = totals[key] + square if key in totals else square
    for key, layout in groups.items():
        for group in layout:
            dist.all_reduce(totals[key], group=group)
    return torch.stack(list(totals.values())).sum().sqrt() if totals else torch.zeros(())


def scale_(parameters: Iterable[nn.Parameter], factor: Tensor | float) -> None:
    """Multiply every gradient in place."""
    for p in parameters:
        if p.grad is not None:
            local(p.grad).mul_(factor)


def clip_factor(norm: Tensor, *, limit: float) -> Tensor:
    """What gradients of this norm are multiplied by; 1 below the limit. Source: torch's clip_grad_norm_."""
    return (limit / (norm + 1e-6)).clamp(max=1.0)


@dataclass(slots=True, kw_only=True)
class LossScale:
    """Keeps small float16 gradients from vanishing: the loss is multiplied by `scale`, gradients divided by it."""

    scale: float = FIRST_SCALE
    num_good: int = 0

    def update(self, *, is_finite: bool) -> None:
        """After a step: grow after many good ones, shrink after one that overflowed (which is not applied)."""
        if not is_finite:
            self.scale, self.num_good = max(1.0, self.scale * BACKOFF), 0
            return
        self.num_good += 1
        if self.num_good == GROWTH_STEPS:
            self.scale, self.num_good = self.scale * GROWTH, 0


def _split_axes(tensor: Tensor) -> list[dist.ProcessGroup]:
    """Groups of ranks that hold different parts of this tensor; [] if this rank has all of it."""
    placements = getattr(tensor, "placements", None)
    if placements is None:
        return []
    mesh = tensor.device_mesh  # type: ignore[attr-defined] # of a DTensor, whose import costs 0.6 s
    assert not any(placement.is_partial() for placement in placements), "gradients are reduced before their norm"
    return [mesh.get_group(axis) for axis, placement in enumerate(placements) if not placement.is_replicate()]
