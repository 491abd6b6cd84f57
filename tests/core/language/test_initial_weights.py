"""First weights: the same for a seed, wherever and however the model is built."""

import pytest
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.testing._internal.distributed.fake_pg import FakeStore

from clearway.language.initial import build, build_on_meta, initialize
from clearway.language.shape import LanguageShape

SHAPE = LanguageShape(
    vocab_size=257, context_length=24, num_layers=2, dim=32, num_heads=4, num_kv_heads=2, hidden_dim=48, is_tied=False
)


def test_weights_follow_from_the_seed_alone():
    first = build(SHAPE, seed=1).state_dict()
    torch.rand(5)  # what else drew random numbers does not count
    again, other = build(SHAPE, seed=1).state_dict(), build(SHAPE, seed=2).state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    differs = {name for name in first if not torch.equal(first[name], other[name])}
    assert differs == {name for name in first if "norm" not in name}


def test_every_parameter_is_drawn_with_its_own_deviation():
    shape = LanguageShape(
        vocab_size=4096, context_length=24, num_layers=8, dim=128, num_heads=4, num_kv_heads=4, hidden_dim=256
    )
    model = build(shape, seed=0).requires_grad_(False)
    assert model.embedding.weight.std() == pytest.approx(0.02, rel=0.02)
    assert model.layers[3].attention.query.weight.std() == pytest.approx(0.02, rel=0.02)
    # 16 additions to the stream: a quarter.
    assert model.layers[3].feed.down.weight.std() == pytest.approx(0.005, rel=0.02)
    assert torch.equal(model.norm.weight, torch.ones(128))


# Each number of ranks once: torch remembers the local shape of a tensor per mesh, not per rank.
@pytest.mark.parametrize(("rank", "num_ranks"), [(0, 2), (1, 3), (3, 4)])
def test_a_model_sharded_before_it_has_memory_gets_the_same_weights(rank, num_ranks):
    """One rank of several, alone: torch's "fake" process group sends nothing, and nothing has to be sent."""
    dist.init_process_group("fake", store=FakeStore(), rank=rank, world_size=num_ranks)
    try:
        model = build_on_meta(SHAPE)
        mesh = init_device_mesh("cpu", (num_ranks,))
        for layer in model.layers:
            fully_shard(layer, mesh=mesh)
        fully_shard(model, mesh=mesh)
        model.to_empty(device="cpu")
        initialize(model, seed=1)
        whole = dict(build(SHAPE, seed=1).named_parameters())
        for name, parameter in model.named_parameters():
            mine = whole[name].detach().chunk(num_ranks)[rank]
            assert torch.equal(parameter.to_local()[: len(mine)], mine), name
    finally:
        dist.destroy_process_group()
