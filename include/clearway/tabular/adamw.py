"""AdamW in a dozen lines. torch's own imports its compiler on the first step: 2 CPU seconds, a small training's worth.

Source: Loshchilov & Hutter 2019, algorithm 2, with torch's defaults for beta and epsilon.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

BETA_MEAN, BETA_SQUARE, EPSILON = 0.9, 0.999, 1e-8


class AdamW:
    """Adam with decoupled weight decay. The state is plain tensors; copying them makes a checkpoint complete."""

    def __init__(self, parameters: Iterable[tuple[str, nn.Parameter]], *, weight_decay: float) -> None:
        self.parameters = dict(parameters)
        self.mean = {name: torch.zeros_like(p) for name, p in self.parameters.items()}
        self.square = {name: torch.zeros_like(p) for name, p in self.parameters.items()}
        self.weight_decay = weight_decay

    @torch.no_grad()
    def update(self, *, step: int, lr: float) -> None:
        """Apply and clear the gradients; `step` counts from 1."""
        rate = lr / (1 - BETA_MEAN**step)
        root = (1 - BETA_SQUARE**step) ** 0.5
        for name, p in self.parameters.items():
            if p.grad is None:
                continue
            mean, square = self.mean[name], self.square[name]
            mean.lerp_(p.grad, 1 - BETA_MEAN)
            square.mul_(BETA_SQUARE).addcmul_(p.grad, p.grad, value=1 - BETA_SQUARE)
            scale = square.sqrt().div_(root).add_(EPSILON)
            p.mul_(1 - lr * self.weight_decay).addcdiv_(mean, scale, value=-rate)
            p.grad = None

    def tensors(self) -> dict[str, Tensor]:
        """State by name, for a checkpoint."""
        named = (("mean", self.mean), ("square", self.square))
        return {f"{kind}.{name}": tensor.detach().cpu() for kind, group in named for name, tensor in group.items()}

    @torch.no_grad()
    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Inverse of `tensors`; other names are ignored (KeyError for a missing one)."""
        for name in self.parameters:
            self.mean[name].copy_(tensors[f"mean.{name}"])
            self.square[name].copy_(tensors[f"square.{name}"])
