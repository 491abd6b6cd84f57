"""Counts that are known before there is a weight."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from clearway.contracts.errors import ConfigError
from clearway.language.initial import build_on_meta
from clearway.language.shape import LanguageShape

TINY = {"vocab_size": 257, "context_length": 16, "num_layers": 2, "dim": 32, "num_heads": 4, "hidden_dim": 48}
# Llama 3's own sizes (Meta, "The Llama 3 Herd of Models", table 3); its model cards say 8.03 and 70.6 billion.
LLAMA = {"vocab_size": 128_256, "context_length": 8192, "num_kv_heads": 8, "rope_theta": 5e5, "is_tied": False}
LLAMA_8B = LanguageShape(**LLAMA, num_layers=32, dim=4096, num_heads=32, hidden_dim=14_336)
LLAMA_70B = LanguageShape(**LLAMA, num_layers=80, dim=8192, num_heads=64, hidden_dim=28_672)


@pytest.mark.parametrize("is_tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("num_kv_heads", [1, 2, 4])
def test_parameters_are_those_of_the_network(is_tied, num_kv_heads):
    shape = LanguageShape(**TINY, num_kv_heads=num_kv_heads, is_tied=is_tied)
    model = build_on_meta(shape)
    assert shape.num_parameters == sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize(("shape", "published"), [(LLAMA_8B, 8_030_261_248), (LLAMA_70B, 70_553_706_496)])
def test_billions_of_parameters_are_counted_and_built_without_memory(shape, published):
    assert shape.num_parameters == published
    model = build_on_meta(shape)
    assert sum(parameter.numel() for parameter in model.parameters()) == published
    assert {parameter.device.type for parameter in model.parameters()} == {"meta"}


def test_operations_are_those_torch_counts():
    """torch counts 2 operations per multiply-add, as the formula does, and no look-ups."""
    shape = LanguageShape(**TINY, num_kv_heads=4, is_tied=False)
    model = build_on_meta(shape)
    tokens = torch.zeros(3, 16, dtype=torch.int64, device="meta")
    with FlopCounterMode(display=False) as counter:
        model(tokens, tokens, None).sum().backward()
    # Norm scales (160 of them) are in N though torch does not count them.
    assert counter.get_total_flops() == pytest.approx(shape.flops_per_token * 3 * 16, rel=0.02)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"num_kv_heads": 3}, "num_heads 4 is no multiple of num_kv_heads 3"),
        ({"dim": 36, "num_kv_heads": 4}, "dim 36 does not divide into 4 heads of even width"),
        ({"num_layers": 0, "num_kv_heads": 4}, "must all be 1 or more"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(changed, words):
    with pytest.raises(ConfigError, match=words):
        LanguageShape(**{**TINY, **changed})
