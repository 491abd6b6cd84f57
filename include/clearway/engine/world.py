"""This process among its peers, and what makes its arithmetic repeatable."""

import os
from dataclasses import dataclass

import torch

CPU = torch.device("cpu")


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """Rank 0 to size - 1, all in torch's default process group; one rank needs none."""

    rank: int = 0
    size: int = 1
    device: torch.device = CPU


def make_deterministic(num_threads: int) -> None:
    """Sums depend on how threads split them, so their number is part of what decides the result."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.set_num_threads(num_threads)
    # What use_deterministic_algorithms(True) does, without loading the compiler: 1.4 CPU seconds of every training.
    torch.set_deterministic_debug_mode("error")
    # Else every new tensor is filled with NaN first, 7 % of a step; no operation here reads what it has not written.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
