"""Apply a plan to a model from outside: split layers, recompute, compile, shard or replicate, in this order.

The order is not free: layers are split before anything wraps them, recomputation is part of what is compiled, and the
outermost wrapper gathers and reduces. Models stay single-device code.
"""

import functools
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

from clearway.contracts.errors import ConfigError
from clearway.engine.plan import DataParallel, Plan, Precision
from clearway.engine.task import Task
from clearway.engine.world import World

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh

_TORCH_TYPES = {Precision.BFLOAT16: torch.bfloat16, Precision.FLOAT16: torch.float16}
_REPLICAS, _SHARDS, _TENSOR = "replicas", "shards", "tensor"


@dataclass(frozen=True, slots=True, kw_only=True)
class Parallel:
    """A model ready to be trained.

    Args:
        model: the task's module; its parameters may be sharded now, their names are what they were.
        called: what a step calls; the model itself, or its wrapper.
        data_rank, num_data_ranks: which part of a batch this rank computes.
    """

    model: nn.Module
    called: nn.Module
    plan: Plan
    world: World
    data_rank: int
    num_data_ranks: int

    def micro_step(self, *, is_last: bool) -> AbstractContextManager[Any]:
        """Around forward and backward: gradients are exchanged in the last micro-step of a step only."""
        if self.plan.num_micro_steps == 1:
            return nullcontext()
        if isinstance(self.called, DistributedDataParallel):
            return nullcontext() if is_last else self.called.no_sync()
        set_sync: Callable[[bool], None] | None = getattr(self.called, "set_requires_gradient_sync", None)
        if set_sync is not None:
            set_sync(is_last)
        return nullcontext()

    def autocast(self) -> AbstractContextManager[Any]:
        """Matrix products in the plan's precision."""
        kind = _TORCH_TYPES.get(self.plan.precision)
        return nullcontext() if kind is None else torch.autocast(self.world.device.type, kind)


def parallelize(task: Task, plan: Plan, world: World) -> Parallel:
    """Build the task's model on this rank's device, and apply the plan.

    Raises: ConfigError if the plan does not suit the number of ranks, the device or the model.
    """
    num_shards = plan.num_shards(world.size)
    _check_device(plan, world)
    model = task.build().to(world.device)
    blocks = task.blocks(model)
    mesh = _mesh(plan, world, num_shards)
    if plan.tensor_parallel > 1:
        _split_layers(task, model, mesh)
    if plan.is_recomputing:
        _recompute(blocks)
    if plan.is_compiled:
        _compile(blocks or [model])
    return Parallel(
        model=model,
        called=_distribute(model, blocks, plan, world, mesh),
        plan=plan,
        world=world,
        data_rank=world.rank // plan.tensor_parallel,
        num_data_ranks=plan.num_data_ranks(world.size),
    )


def full_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Whole parameters and persistent buffers in host memory, by name, on every rank. Every rank must call it."""
    return {name: whole(tensor).detach().cpu() for name, tensor in model.state_dict().items()}


def whole(tensor: Tensor) -> Tensor:
    """A sharded tensor gathered; any other as it is. Every rank must call it."""
    gather: Callable[[], Tensor] | None = getattr(tensor, "full_tensor", None)
    return tensor if gather is None else gather()


def _check_device(plan: Plan, world: World) -> None:
    if plan.precision is Precision.FLOAT16 and world.device.type == "cpu" and plan.is_compiled:
        raise ConfigError("precision float16 cannot be compiled for a CPU; choose bfloat16, or is_compiled false")


def _mesh(plan: Plan, world: World, num_shards: int) -> "DeviceMesh | None":
    if plan.data_parallel is not DataParallel.FSDP2 and plan.tensor_parallel == 1:
        return None
    from torch.distributed.device_mesh import init_device_mesh  # noqa: PLC0415 - 0.6 s that one device need not pay

    replicas = world.size // (num_shards * plan.tensor_parallel)
    names = (_REPLICAS, _SHARDS, _TENSOR)
    return init_device_mesh(world.device.type, (replicas, num_shards, plan.tensor_parallel), mesh_dim_names=names)


def _split_layers(task: Task, model: nn.Module, mesh: "DeviceMesh | None") -> None:
    from torch.distributed.tensor.parallel import parallelize_module  # noqa: PLC0415 - as above

    assert mesh is not None, "tensor parallelism has a mesh"
    styles = dict(task.tensor_plan(model))
    if not styles:
        raise ConfigError(
            f"tensor_parallel is {mesh[_TENSOR].size()}, but {type(task).__name__} names no layers to split; set 1"
        )
    parallelize_module(model, mesh[_TENSOR], styles)


def _recompute(blocks: Sequence[nn.Module]) -> None:
    """Replace each block's forward by one that keeps only its inputs. Names of parameters do not change."""
    if not blocks:
        raise ConfigError("is_recomputing is true, but the task names no blocks to recompute; set it to false")
    for block in blocks:
        block.forward = functools.partial(checkpoint, block.forward, use_reentrant=False)


def _compile(blocks: Sequence[nn.Module]) -> None:
    """Block by block: equal blocks share one compilation, and wrappers outside stay visible."""
    torch.use_deterministic_algorithms(torch.are_deterministic_algorithms_enabled())  # tells the compiler too
    for block in blocks:
        block.compile()


def _distribute(
    model: nn.Module, blocks: Sequence[nn.Module], plan: Plan, world: World, mesh: "DeviceMesh | None"
) -> nn.Module:
    if plan.data_parallel is DataParallel.FSDP2:
        assert mesh is not None, "sharding has a mesh"
        _shard(model, blocks, plan, mesh)
    elif plan.data_parallel is DataParallel.DDP and world.size > 1:
        # Constants are equal everywhere already; only buffers that training changes need rank 0's values.
        has_state = len(model.state_dict()) > len(list(model.parameters()))
        return DistributedDataParallel(model, forward_sync_buffers=has_state)
    return model


def _shard(model: nn.Module, blocks: Sequence[nn.Module], plan: Plan, mesh: "DeviceMesh") -> None:
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard  # noqa: PLC0415 - as above

    # Gradients are summed in float32 whatever the products were computed in.
    policy = MixedPrecisionPolicy(
        param_dtype=_TORCH_TYPES.get(plan.precision), reduce_dtype=torch.float32, cast_forward_inputs=False
    )
    axes = (_REPLICAS, _SHARDS) if plan.num_replicas > 1 else _SHARDS
    for block in blocks:
        fully_shard(block, mesh=mesh[axes], mp_policy=policy)
    fully_shard(model, mesh=mesh[axes], mp_policy=policy)
