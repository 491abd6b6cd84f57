"""Which samples a step sees and how far it goes: pure functions of (seed, position, ranks), so a resumed run needs no
history."""

import math

import torch
from torch import Tensor

from clearway.engine.plan import Recipe, Schedule

# One cycle: warm up for this share of the steps, from lr / START_DIV, then down to lr / END_DIV along cosines.
# Source: Smith & Topin 2018; the shares are the defaults of torch's OneCycleLR.
WARMUP_SHARE, START_DIV, END_DIV = 0.3, 25.0, 25.0e4
# Cosine: linear warm-up from 0, then down to this share of lr. Source: Touvron et al. 2023, Llama 2, section 2.2.
COSINE_END_SHARE = 0.1


class Sampler:
    """Sample numbers of a step, for one data-parallel rank.

    The whole batch of a step depends on seed and position alone; a rank takes every `num_ranks`-th of it, so any number
    of ranks sees the same batches.
    """

    def __init__(
        self, num_samples: int, recipe: Recipe, *, rank: int, num_ranks: int, num_parts: int, device: torch.device
    ) -> None:
        self.num_samples, self.recipe, self.device = num_samples, recipe, device
        self.rank, self.num_ranks, self.num_parts = rank, num_ranks, num_parts
        self.steps_per_epoch = num_steps_per_epoch(num_samples, recipe.batch_size)
        self._order = (-1, torch.empty(0))

    def batch_size(self, step: int) -> int:
        """Samples of this step over all ranks; the last batch of an epoch may be smaller."""
        start = step % self.steps_per_epoch * self.recipe.batch_size
        return min(self.recipe.batch_size, self.num_samples - start)

    def parts(self, step: int) -> tuple[Tensor, ...]:
        """This rank's samples of the step, in micro-steps. Each int64 [b], possibly empty in an epoch's last batch."""
        epoch, position = divmod(step, self.steps_per_epoch)
        if self._order[0] != epoch:
            order = epoch_order(self.num_samples, seed=self.recipe.seed, epoch=epoch)
            self._order = (epoch, order.to(self.device))
        start = position * self.recipe.batch_size
        mine = self._order[1][start : start + self.recipe.batch_size][self.rank :: self.num_ranks]
        return (mine,) if self.num_parts == 1 else mine.tensor_split(self.num_parts)


def num_steps_per_epoch(num_samples: int, batch_size: int) -> int:
    """The last batch of an epoch may be smaller."""
    return math.ceil(num_samples / batch_size)


def num_steps(num_samples: int, recipe: Recipe) -> int:
    """Optimizer steps of the whole run."""
    steps = num_steps_per_epoch(num_samples, recipe.batch_size) * recipe.num_epochs
    return steps if recipe.max_steps is None else min(steps, recipe.max_steps)


def epoch_order(num_samples: int, *, seed: int, epoch: int) -> Tensor:
    """A permutation of the samples. [num_samples] int64"""
    generator = torch.Generator().manual_seed(_mix(seed, epoch))
    return torch.randperm(num_samples, generator=generator)


def noise_seed(*, seed: int, step: int, rank: int, micro: int = 0) -> int:
    """Seed of everything random inside one micro-step (dropout), different for each rank."""
    first = _mix(_mix(seed, step), rank + 1)
    return first if micro == 0 else _mix(first, micro)


def learning_rate(step: int, recipe: Recipe, *, num_steps: int) -> float:
    """Learning rate of step 0 to num_steps - 1."""
    if recipe.schedule is Schedule.ONE_CYCLE:
        return one_cycle(step, num_steps=num_steps, lr=recipe.lr, warmup_share=recipe.warmup_share)
    warmup = max(1.0, recipe.warmup_share * num_steps)
    if step < warmup:
        return recipe.lr * (step + 1) / (warmup + 1)
    share = (step - warmup) / max(1.0, num_steps - 1 - warmup)
    return _cosine(recipe.lr, recipe.lr * COSINE_END_SHARE, share)


def one_cycle(step: int, *, num_steps: int, lr: float, warmup_share: float = WARMUP_SHARE) -> float:
    """Learning rate of step 0 to num_steps - 1."""
    warmup = max(1.0, warmup_share * num_steps)
    if step < warmup:
        return _cosine(lr / START_DIV, lr, step / warmup)
    return _cosine(lr, lr / END_DIV, (step - warmup) / max(1.0, num_steps - 1 - warmup))


def _cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * min(1.0, share))) / 2


def _mix(a: int, b: int) -> int:
    """A 63-bit hash of two integers (splitmix64), so that neighbouring seeds give unrelated streams."""
    mask = (1 << 64) - 1
    z = (a * 0x9E3779B97F4A7C15 + b + 0x632BE59BD9B4E019) & mask
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
    return (z ^ (z >> 31)) >> 1
