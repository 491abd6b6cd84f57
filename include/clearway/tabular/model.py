"""The tabular model: piecewise-linear numbers, category embeddings, and K independent MLPs computed in one pass.

Shape letters: B rows, N numeric columns, C categorical columns, T bins, D numeric dimensions, E embedding dimensions,
K members, F = N*D + C*E inputs of an MLP, H hidden units. Single-device code; distribution is applied from outside.
"""

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from clearway.product import Model

# Values in the pool beyond one mask: the number of different masks, far above the number of steps.
POOL_SLACK = 1 << 20
# Size of the first vectors, relative to unit length. Starting small, a column counts once training has made it count;
# on flights 0.1 was worth 0.0027 AUC and 0.0030 log-loss over 1 (mean of April, May and September, all else equal).
INITIAL_SIZE = 0.1

_WORDS = {16: torch.complex128, 8: torch.float64, 4: torch.float32, 2: torch.float16}

Scores = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelShape:
    """Sizes of the model; `cardinalities`: indices per categorical column, the unknown one included. [C]"""

    num_numeric: int
    num_bins: int
    numeric_dim: int
    cardinalities: tuple[int, ...]
    embedding_dim: int
    hidden: tuple[int, ...]
    num_members: int
    dropout: float

    @property
    def num_inputs(self) -> int:
        return self.num_numeric * self.numeric_dim + len(self.cardinalities) * self.embedding_dim


def shape_of(model: Model, *, num_numeric: int, cardinalities: tuple[int, ...]) -> ModelShape:
    """Sizes of the network for a model section and the columns it meets."""
    return ModelShape(
        num_numeric=num_numeric,
        num_bins=model.num_bins,
        numeric_dim=model.numeric_dim,
        cardinalities=cardinalities,
        embedding_dim=model.embedding_dim,
        hidden=model.hidden,
        num_members=model.num_members,
        dropout=model.dropout,
    )


class Noise:
    """Dropout masks cut from one pool of random zeros and 1 / (1 - share), at random offsets.

    Drawing a fresh number per unit and step took 15 % of a training step on a CPU; a slice costs nothing. `start` makes
    the offsets of a step a function of its seed, so a resumed run cuts the same masks.
    """

    def __init__(self, *, share: float, num_values: int, seed: int, device: torch.device) -> None:
        drawn = torch.rand(num_values + POOL_SLACK, generator=torch.Generator().manual_seed(seed))
        self._pool = ((drawn >= share).float() / (1 - share)).to(device)
        self._pools = {torch.float32: self._pool, torch.bfloat16: self._pool.bfloat16()}
        self._offsets = torch.Generator()

    def start(self, seed: int) -> None:
        """Begin a step."""
        self._offsets.manual_seed(seed)

    def mask(self, shape: torch.Size, dtype: torch.dtype) -> Tensor:
        """The next mask of this step."""
        size = shape.numel()
        offset = int(torch.randint(len(self._pool) - size + 1, (), generator=self._offsets))
        return self._pools[dtype][offset : offset + size].view(shape)


class _Rows(torch.autograd.Function):
    """Look-up of table rows. On a CPU torch's own adds up the gradient by one small call per row looked up, which took
    a third of a training step; scatter_add_ sums in the same order, in one."""

    @staticmethod
    def forward(ctx: Any, table: Tensor, index: Tensor) -> Tensor:
        ctx.save_for_backward(index)
        ctx.num_rows = len(table)
        return functional.embedding(index, table)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (index,), (gradient,) = ctx.saved_tensors, gradients
        return _summed(gradient, index, num_rows=ctx.num_rows), None


class _Vectors(torch.autograd.Function):
    """`edge[slot] + place * change[slot]`, both tables side by side in one: one look-up and one sum instead of two, and
    no product kept for the way back."""

    @staticmethod
    def forward(ctx: Any, table: Tensor, slot_BN: Tensor, place_BN: Tensor) -> Tensor:
        ctx.save_for_backward(slot_BN, place_BN)
        ctx.num_rows = len(table)
        edge, change = functional.embedding(slot_BN, table).chunk(2, dim=2)
        return edge + place_BN.unsqueeze(2) * change

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (slot_BN, place_BN), (gradient,) = ctx.saved_tensors, gradients
        both = gradient.new_empty(*gradient.shape[:2], 2, gradient.shape[2])
        both[:, :, 0] = gradient
        torch.mul(gradient, place_BN.unsqueeze(2), out=both[:, :, 1])
        return _summed(both.flatten(2), slot_BN, num_rows=ctx.num_rows), None, None


class _ByMember(torch.autograd.Function):
    """[B, columns, K*D] → [K, B, columns*D]. A CPU moves the few values that stay together in a loop of their own; as
    one larger number they take a fifth of that."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, num_members: int) -> Tensor:
        B, columns, KD = x.shape
        ctx.shape, own = (num_members, B, columns, KD // num_members), KD // num_members
        ordered = _in_words(x, (B, columns, num_members), own).permute(2, 0, 1, 3).contiguous()
        return ordered.view(x.dtype).view(num_members, B, columns * own)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (gradient,), (num_members, B, columns, own) = gradients, ctx.shape
        ordered = _in_words(gradient, (num_members, B, columns), own).permute(1, 2, 0, 3).contiguous()
        return ordered.view(gradient.dtype).view(B, columns, num_members * own), None


def _in_words(x: Tensor, runs: tuple[int, int, int], own: int) -> Tensor:
    """`x` as runs of `own` values, in the largest type that a run divides into; only to be copied. [*runs, words]"""
    num_bytes = own * x.element_size()
    word = _WORDS[math.gcd(num_bytes, max(_WORDS))]
    own_memory = x.clone(memory_format=torch.contiguous_format)  # one that begins where a word may begin
    return own_memory.view(word).view(*runs, num_bytes // word.itemsize)


def _summed(gradient: Tensor, index: Tensor, *, num_rows: int) -> Tensor:
    """Gradient of a table [num_rows, width] from that of what was looked up in it. [..., width]"""
    width = gradient.shape[-1]
    total = gradient.new_zeros(num_rows, width)
    return total.scatter_add_(0, index.reshape(-1, 1).expand(-1, width), gradient.reshape(-1, width))


def _rows(table: Tensor, index: Tensor) -> Tensor:
    """`table` [rows, width] at `index` [...] → [..., width]"""
    if table.device.type == "cpu":
        return cast(Tensor, _Rows.apply(table, index))  # type: ignore[no-untyped-call]
    return functional.embedding(index, table)  # on a GPU torch's own is fast, and scatter_add_ not deterministic


def _vectors(edge: Tensor, change: Tensor, slot_BN: Tensor, place_BN: Tensor) -> Tensor:
    """Vectors of numbers. [B, N, width]"""
    if edge.device.type == "cpu":
        both = torch.cat([edge, change], dim=1)
        return cast(Tensor, _Vectors.apply(both, slot_BN, place_BN))  # type: ignore[no-untyped-call]
    return _rows(edge, slot_BN) + place_BN.unsqueeze(2) * _rows(change, slot_BN)


class TabularModel(nn.Module):
    """(bin [B, N], place [B, N], category [B, C]) → logits [K, B]. Members share no parameter.

    `generator` makes the initial weights, so they depend on nothing else that drew random numbers before.
    """

    slope: Tensor  # change of the vector across each bin [N, T, K*D]
    bias: Tensor  # vector at the lowest edge [N, 1, K*D]
    missing: Tensor  # vector of a missing value [N, 1, K*D]
    embedding: Tensor  # all category tables, one below the other [sum of cardinalities, K*E]
    number_offset: Tensor
    category_offset: Tensor

    def __init__(self, shape: ModelShape, generator: torch.Generator) -> None:
        super().__init__()
        self.shape = shape
        N, T, KD = shape.num_numeric, shape.num_bins, shape.num_members * shape.numeric_dim

        def normal(*size: int, std: float) -> nn.Parameter:
            return nn.Parameter(torch.randn(*size, generator=generator) * std)

        self.slope = normal(N, T, KD, std=INITIAL_SIZE * T**-0.5)
        self.bias = normal(N, 1, KD, std=INITIAL_SIZE * shape.numeric_dim**-0.5)
        self.missing = normal(N, 1, KD, std=INITIAL_SIZE * shape.numeric_dim**-0.5)
        self.embedding = normal(
            sum(shape.cardinalities),
            shape.num_members * shape.embedding_dim,
            std=INITIAL_SIZE * shape.embedding_dim**-0.5,
        )
        sizes = (shape.num_inputs, *shape.hidden, 1)
        pairs = list(itertools.pairwise(sizes))
        self.weights = nn.ParameterList(normal(shape.num_members, i, o, std=_gain(o) * i**-0.5) for i, o in pairs)
        self.biases = nn.ParameterList(nn.Parameter(torch.zeros(shape.num_members, 1, o)) for _, o in pairs)
        offsets = torch.tensor([0, *shape.cardinalities[:-1]] if shape.cardinalities else [], dtype=torch.int64)
        self.register_buffer("number_offset", torch.arange(N) * (T + 1), persistent=False)
        self.register_buffer("category_offset", offsets.cumsum(0), persistent=False)
        with torch.no_grad():  # an unknown value says nothing until training shows some
            self.embedding[self.category_offset] = 0

    def number_tables(self) -> tuple[Tensor, Tensor]:
        """Per (column, bin): the vector at the lower edge, and its change across the bin. Both [N*(T+1), K*D]"""
        below = functional.pad(self.slope.cumsum(1)[:, :-1], (0, 0, 1, 0))
        edge = torch.cat([self.bias + below, self.missing], dim=1)
        change = functional.pad(self.slope, (0, 0, 0, 1))
        return edge.flatten(0, 1), change.flatten(0, 1)

    def forward(self, bin_BN: Tensor, place_BN: Tensor, category_BC: Tensor, noise: Noise | None = None) -> Tensor:
        shape, B = self.shape, bin_BN.shape[0]
        edge, change = self.number_tables()
        slot_BN = bin_BN + self.number_offset
        numbers = _vectors(edge, change, slot_BN, place_BN)  # [B, N, K*D]
        x = _by_member(numbers, shape.num_members)
        if shape.cardinalities:
            categories = _rows(self.embedding, category_BC + self.category_offset)
            x = torch.cat([x, _by_member(categories, shape.num_members)], dim=2)  # [K, B, F]
        last = len(self.weights) - 1
        for i, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            x = torch.baddbmm(bias, x, weight)
            if i < last:
                x = functional.relu(x) if noise is None else functional.relu(x) * noise.mask(x.shape, x.dtype)
        return x.view(shape.num_members, B)


def score(logits: Tensor) -> Tensor:
    """Mean probability of the members. [K, B] → [B]"""
    return torch.sigmoid(logits.float()).mean(0)


def loss_sum(logits: Tensor, label_B: Tensor) -> Tensor:
    """Binary cross-entropy summed over rows and members: each member trains as if it were alone."""
    return functional.binary_cross_entropy_with_logits(logits.float(), label_B.expand(logits.shape), reduction="sum")


@torch.no_grad()
def predict(model: nn.Module, arrays: Mapping[str, npt.NDArray[Any]], *, chunk_rows: int = 4096) -> Scores:
    """Scores of encoded rows (`training_set.encode`), in chunks that bound the memory. [B]"""
    inputs = [torch.from_numpy(arrays[name]) for name in ("bin", "place", "category")]
    parts = []
    for start in range(0, len(inputs[0]), chunk_rows):
        index, place, category = (x[start : start + chunk_rows] for x in inputs)
        parts.append(score(model(index.to(torch.int64), place, category.to(torch.int64))).numpy())
    return np.concatenate(parts)


def build(shape: ModelShape, *, seed: int) -> TabularModel:
    """A fresh model; equal seeds give equal weights on every machine."""
    return TabularModel(shape, torch.Generator().manual_seed(seed))


def parameter_arrays(model: nn.Module) -> dict[str, Any]:
    """Parameters as contiguous float32 NumPy arrays, by name."""
    return {name: p.detach().cpu().contiguous().numpy() for name, p in model.named_parameters()}


def _gain(num_outputs: int) -> float:
    """He initialisation before a ReLU; 1 for the output."""
    return 1.0 if num_outputs == 1 else 2**0.5


def _by_member(x: Tensor, num_members: int) -> Tensor:
    """[B, columns, K*D] → [K, B, columns*D], as matrix products will take it: one copy for order and precision."""
    B, columns, KD = x.shape
    own = KD // num_members  # said, not inferred: a rank may have no row of an epoch's last batch
    kind = torch.get_autocast_dtype(x.device.type) if torch.is_autocast_enabled(x.device.type) else x.dtype
    if num_members == 1:
        return x.to(kind).reshape(1, B, columns * own)
    if x.device.type == "cpu":
        return cast(Tensor, _ByMember.apply(x.to(kind), num_members))  # type: ignore[no-untyped-call]
    ordered = x.view(B, columns, num_members, own).permute(2, 0, 1, 3)
    return ordered.to(kind, copy=True, memory_format=torch.contiguous_format).view(num_members, B, columns * own)
