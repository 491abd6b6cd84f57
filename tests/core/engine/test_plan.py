"""Impossible arrangements are refused when they are written down, with what to do instead."""

import pytest

from clearway.contracts.errors import ConfigError
from clearway.engine.plan import DataParallel, Plan, Recipe

FSDP2 = DataParallel.FSDP2


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"batch_size": 0}, "batch_size is 0"),
        ({"lr": 0.0}, "lr is 0.0"),
        ({"lr": float("inf")}, "lr is inf"),
        ({"clip_norm": -1.0}, "clip_norm"),
        ({"average_decay": 1.0}, "average_decay"),
        ({"max_steps": 0}, "max_steps"),
        ({"warmup_share": 1.5}, "warmup_share"),
    ],
)
def test_a_recipe_without_sense_is_refused(fields, word):
    with pytest.raises(ConfigError, match=word):
        Recipe(**({"seed": 0, "batch_size": 1, "lr": 0.1} | fields))


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"num_replicas": 2}, "only fsdp2"),
        ({"num_replicas": 2, "data_parallel": DataParallel.DDP}, "only fsdp2"),
        ({"tensor_parallel": 2, "data_parallel": DataParallel.DDP}, "cannot hold split"),
        ({"num_micro_steps": 0}, "num_micro_steps is 0"),
    ],
)
def test_a_plan_that_cannot_be_is_refused(fields, word):
    with pytest.raises(ConfigError, match=word):
        Plan(**fields)


@pytest.mark.parametrize(
    ("plan", "world_size", "num_shards", "num_data_ranks"),
    [
        (Plan(), 1, 1, 1),
        (Plan(tensor_parallel=4), 4, 1, 1),
        (Plan(data_parallel=DataParallel.DDP), 8, 1, 8),
        (Plan(data_parallel=FSDP2), 8, 8, 8),
        (Plan(data_parallel=FSDP2, num_replicas=2), 8, 4, 8),
        (Plan(data_parallel=FSDP2, num_replicas=2, tensor_parallel=2), 8, 2, 4),
    ],
)
def test_ranks_are_divided(plan, world_size, num_shards, num_data_ranks):
    assert plan.num_shards(world_size) == num_shards
    assert plan.num_data_ranks(world_size) == num_data_ranks


@pytest.mark.parametrize(("plan", "world_size"), [(Plan(), 2), (Plan(data_parallel=FSDP2, num_replicas=2), 3)])
def test_ranks_that_do_not_divide_are_refused(plan, world_size):
    with pytest.raises(ConfigError, match=f"{world_size} ranks"):
        plan.num_shards(world_size)
