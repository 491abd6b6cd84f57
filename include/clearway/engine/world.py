"""This process among its peers, and what makes its arithmetic repeatable."""

import ctypes
import os
from dataclasses import dataclass

import torch

CPU = torch.device("cpu")
# malloc.h of glibc; the block size is the largest that every version takes.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_MOST_KEPT_BYTES, _LARGEST_KEPT_BLOCK_BYTES = 1 << 30, 32 << 20


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


def keep_freed_memory() -> None:
    """For a process that trains on a CPU and then ends. A step takes memory that the one before freed; glibc may hand
    it to the kernel in between, which clears it page by page: up to a tenth of a step. No effect elsewhere."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(_TRIM_THRESHOLD, _MOST_KEPT_BYTES)
        libc.mallopt(_MMAP_THRESHOLD, _LARGEST_KEPT_BLOCK_BYTES)
