"""First weights: a function of the seed and each parameter's name and shape, of nothing else.

So they are the same whether the model was built in memory, or on the meta device, sharded, and filled shard by shard:
one parameter at a time is drawn in full, which is also all the memory this needs beyond the model's own.
"""

import hashlib

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

from clearway.language.model import LanguageModel
from clearway.language.shape import LanguageShape

# Standard deviation of GPT-2's weights (Radford et al. 2019); those that add to the residual stream are divided by
# the root of the number of additions, two per layer, so that the stream keeps its size however deep the model is.
STANDARD_DEVIATION = 0.02
_ADDS_TO_STREAM = (".output.weight", ".down.weight")


def build(shape: LanguageShape, *, seed: int) -> LanguageModel:
    """A model with its first weights, in host memory, in float32."""
    model = build_on_meta(shape).to_empty(device="cpu")
    initialize(model, seed=seed)
    return model


def build_on_meta(shape: LanguageShape) -> LanguageModel:
    """The model without memory for its weights: shard it, then `to_empty(device=...)`, then `initialize`."""
    with torch.device("meta"):
        return LanguageModel(shape)


def initialize(model: nn.Module, *, seed: int) -> None:
    """Fill every parameter in place; of a sharded one, this rank's part."""
    num_layers = len(model.layers) if isinstance(model, LanguageModel) else 1
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            drawn = _draw(name, parameter.shape, seed=seed, num_layers=num_layers)
            _fill(parameter, drawn)


def _draw(name: str, shape: torch.Size, *, seed: int, num_layers: int) -> Tensor:
    if len(shape) == 1:  # scales of the norms
        return torch.ones(shape)
    digest = hashlib.sha256(f"{seed} {name}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
    deviation = STANDARD_DEVIATION / ((2 * num_layers) ** 0.5 if name.endswith(_ADDS_TO_STREAM) else 1)
    return torch.empty(shape).normal_(std=deviation, generator=generator)


def _fill(parameter: Tensor, full: Tensor) -> None:
    if isinstance(parameter, DTensor):
        # Every rank has drawn the same, so nothing has to be sent.
        full = full.to(parameter.device)
        shared = distribute_tensor(full, parameter.device_mesh, parameter.placements, src_data_rank=None)
        parameter.to_local().copy_(shared.to_local())
    else:
        parameter.copy_(full)
