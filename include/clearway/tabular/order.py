"""Which rows a step sees and how far it goes: pure functions of (seed, position), so a resumed run needs no history."""

import math

import torch
from torch import Tensor

# One cycle: warm up for this share of the steps, from lr / START_DIV, then down to lr / END_DIV along cosines.
# Source: Smith & Topin 2018; the shares are the defaults of torch's OneCycleLR.
WARMUP_SHARE, START_DIV, END_DIV = 0.3, 25.0, 25.0e4


def num_steps_per_epoch(num_rows: int, batch_size: int) -> int:
    """The last batch of an epoch may be smaller."""
    return math.ceil(num_rows / batch_size)


def epoch_order(num_rows: int, *, seed: int, epoch: int) -> Tensor:
    """A permutation of the rows. [num_rows] int64"""
    generator = torch.Generator().manual_seed(_mix(seed, epoch))
    return torch.randperm(num_rows, generator=generator)


def noise_seed(*, seed: int, step: int, rank: int) -> int:
    """Seed of everything random inside one step (dropout), different for each rank."""
    return _mix(_mix(seed, step), rank + 1)


def one_cycle(step: int, *, num_steps: int, lr: float) -> float:
    """Learning rate of step 0 to num_steps - 1."""
    warmup = max(1.0, WARMUP_SHARE * num_steps)
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
