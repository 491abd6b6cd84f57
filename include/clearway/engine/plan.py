"""What a run computes (`Recipe`), and how it is computed (`Plan`): typed, frozen, checked when made."""

import math
from dataclasses import dataclass
from enum import StrEnum

from clearway.contracts.errors import ConfigError


class Schedule(StrEnum):
    """Learning rate over the run, see order.py."""

    ONE_CYCLE = "one_cycle"
    COSINE = "cosine"


class DataParallel(StrEnum):
    """How ranks share the work on a batch."""

    SINGLE = "single"
    DDP = "ddp"  # every rank holds the whole model
    FSDP2 = "fsdp2"  # parameters, gradients and optimizer state are sharded


class Precision(StrEnum):
    """Type of matrix products. Parameters, optimizer state, sums and losses are float32 in all of them."""

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"
    FLOAT16 = "float16"  # with a loss scaler


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """What decides the result, whatever it is computed on.

    Args:
        seed: of the order of samples and of everything random within a step.
        batch_size: samples of one optimizer step, over all ranks and micro-steps.
        num_epochs: passes over the samples.
        max_steps: ends the run sooner; None for no limit.
        lr: largest learning rate.
        warmup_share: share of the steps in which the learning rate rises, 0-1.
        beta_square: decay of the mean squared gradient in AdamW (its mean: 0.9).
        clip_norm: gradients of a greater norm over all parameters and ranks are scaled down to it; None: never.
        average_decay: keep an exponential moving average of the parameters with this decay per step; None: none.
    """

    seed: int
    batch_size: int
    lr: float
    weight_decay: float = 0.0
    num_epochs: int = 1
    max_steps: int | None = None
    schedule: Schedule = Schedule.ONE_CYCLE
    warmup_share: float = 0.3
    beta_square: float = 0.999
    clip_norm: float | None = None
    average_decay: float | None = None

    def __post_init__(self) -> None:
        _require("batch_size", self.batch_size, self.batch_size >= 1, "1 or more")
        _require("num_epochs", self.num_epochs, self.num_epochs >= 1, "1 or more")
        _require("max_steps", self.max_steps, self.max_steps is None or self.max_steps >= 1, "None, or 1 or more")
        _require("lr", self.lr, self.lr > 0 and math.isfinite(self.lr), "a number above 0")
        _require("weight_decay", self.weight_decay, self.weight_decay >= 0, "0 or more")
        _require("warmup_share", self.warmup_share, 0 <= self.warmup_share <= 1, "0 to 1")
        _require("beta_square", self.beta_square, 0 < self.beta_square < 1, "between 0 and 1")
        _require("clip_norm", self.clip_norm, self.clip_norm is None or self.clip_norm > 0, "None, or above 0")
        decay = self.average_decay
        _require("average_decay", decay, decay is None or 0 < decay < 1, "None, or between 0 and 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How the ranks compute it. The default is one device.

    Args:
        num_replicas: copies of the sharded model (HSDP); ranks = replicas x shards x tensor_parallel.
        tensor_parallel: ranks that split each large layer.
        num_micro_steps: parts that a rank's share of a batch is computed in, to need less memory.
        is_recomputing: forget activations inside blocks and compute them again (activation checkpointing).
        is_compiled: torch.compile, block by block.
        is_fused: one kernel for the whole optimizer step.
    """

    data_parallel: DataParallel = DataParallel.SINGLE
    num_replicas: int = 1
    tensor_parallel: int = 1
    precision: Precision = Precision.FLOAT32
    num_micro_steps: int = 1
    is_recomputing: bool = False
    is_compiled: bool = False
    is_fused: bool = False

    def __post_init__(self) -> None:
        for name in ("num_replicas", "tensor_parallel", "num_micro_steps"):
            _require(name, getattr(self, name), getattr(self, name) >= 1, "1 or more")
        if self.num_replicas > 1 and self.data_parallel is not DataParallel.FSDP2:
            raise ConfigError(
                f"num_replicas is {self.num_replicas} with data_parallel {self.data_parallel.value!r}; only fsdp2 "
                "shards within replicas: choose it, or set num_replicas to 1"
            )
        if self.tensor_parallel > 1 and self.data_parallel is DataParallel.DDP:
            raise ConfigError(
                f"tensor_parallel is {self.tensor_parallel} with data_parallel 'ddp', which cannot hold split "
                "parameters; choose fsdp2, or single for tensor parallelism alone"
            )

    def num_shards(self, world_size: int) -> int:
        """Ranks that share one copy of the parameters (1 without sharding).

        Raises: ConfigError if this many ranks cannot be arranged so.
        """
        fixed = self.num_replicas * self.tensor_parallel
        if world_size % fixed:
            raise ConfigError(
                f"{world_size} ranks do not divide into {self.num_replicas} replicas x {self.tensor_parallel} "
                f"tensor-parallel ranks; start a multiple of {fixed}"
            )
        if self.data_parallel is DataParallel.SINGLE and world_size != self.tensor_parallel:
            raise ConfigError(
                f"{world_size} ranks with data_parallel 'single' and tensor_parallel {self.tensor_parallel}; "
                f"start {self.tensor_parallel}, or choose ddp or fsdp2"
            )
        return world_size // fixed if self.data_parallel is DataParallel.FSDP2 else 1

    def num_data_ranks(self, world_size: int) -> int:
        """Ranks, or tensor-parallel groups of ranks, that each see their own part of a batch."""
        self.num_shards(world_size)
        return world_size // self.tensor_parallel


def _require(name: str, value: object, is_allowed: bool, allowed: str) -> None:
    if not is_allowed:
        raise ConfigError(f"{name} is {value!r}; allowed: {allowed}")
