"""The language model as the engine trains it: sequences by number, and the loss of predicting each next token."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from clearway.engine.task import Batch, Context
from clearway.language.initial import build
from clearway.language.model import LanguageModel
from clearway.language.shape import LanguageShape
from clearway.language.stream import TokenStream, documents_of

if TYPE_CHECKING:
    from torch.distributed.tensor.parallel import ParallelStyle


@dataclass(frozen=True, slots=True, kw_only=True)
class LanguageTask:
    """A `clearway.engine.task.Task`. `seed`: of the first weights; nothing else here is random."""

    shape: LanguageShape
    stream: TokenStream
    seed: int

    @property
    def num_samples(self) -> int:
        return self.stream.num_windows(self.shape.context_length)

    @property
    def terms_per_sample(self) -> float:
        return float(self.shape.context_length)

    @property
    def flops_per_sample(self) -> float:
        return self.shape.flops_per_token * self.shape.context_length

    @property
    def is_resident(self) -> bool:
        return False  # the text may be larger than any device

    def place(self, device: torch.device) -> None:
        """Nothing is kept on the device."""

    def build(self) -> nn.Module:
        return build(self.shape, seed=self.seed)

    def blocks(self, model: nn.Module) -> Sequence[nn.Module]:
        return tuple(_network(model).layers)

    def tensor_plan(self, model: nn.Module) -> Mapping[str, "ParallelStyle"]:
        """Heads and hidden units are split; what they add to the stream is summed over the group."""
        from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel  # noqa: PLC0415 - slow import

        split = ("attention.query", "attention.key", "attention.value", "feed.gate", "feed.up")
        summed = ("attention.output", "feed.down")
        plan: dict[str, ParallelStyle] = {}
        for number in range(len(_network(model).layers)):
            plan |= {f"layers.{number}.{name}": ColwiseParallel() for name in split}
            plan |= {f"layers.{number}.{name}": RowwiseParallel() for name in summed}
        return plan

    def is_decayed(self, name: str) -> bool:
        """Matrices; scales of norms keep their size, and so do tables, whose rare rows would only shrink."""
        return name.startswith("layers.") and "norm" not in name

    def batch(self, index: Tensor) -> Batch:
        """tokens, targets, positions, documents: int64 [B, S] each."""
        windows = self.stream.windows(index.numpy(), self.shape.context_length)
        positions, documents = documents_of(windows[:, :-1])
        arrays = {"tokens": windows[:, :-1], "targets": windows[:, 1:], "positions": positions, "documents": documents}
        return {name: torch.from_numpy(array).contiguous() for name, array in arrays.items()}

    def loss(self, model: nn.Module, batch: Batch, context: Context) -> tuple[Tensor, int]:  # noqa: ARG002 - no noise
        logits = model(batch["tokens"], batch["positions"], batch["documents"])
        targets = batch["targets"].flatten()
        total = functional.cross_entropy(logits.flatten(0, 1).float(), targets, reduction="sum")
        return total, targets.numel()


def _network(model: nn.Module) -> LanguageModel:
    assert isinstance(model, LanguageModel), type(model)  # the engine hands back what `build` made
    return model
