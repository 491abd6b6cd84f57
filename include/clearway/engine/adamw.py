"""AdamW in a dozen lines. torch's own imports its compiler on the first step: 2 CPU seconds, a small training's worth.

Source: Loshchilov & Hutter 2019, algorithm 2, with torch's defaults for epsilon and the decay of the mean.
"""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

BETA_MEAN, BETA_SQUARE, EPSILON = 0.9, 0.999, 1e-8


def local(tensor: Tensor) -> Tensor:
    """This rank's part of a sharded tensor, sharing its memory; any other tensor as it is."""
    to_local: Callable[[], Tensor] | None = getattr(tensor, "to_local", None)
    return tensor if to_local is None else to_local()


class AdamW:
    """Adam with decoupled weight decay. The state is tensors laid out like the parameters; copying them makes a
    checkpoint complete. Sharded parameters are updated shard by shard, which no rank needs another for.

    Args:
        is_decayed: whether weight decay applies to the parameter of this name.
        is_fused: one kernel over all parameters instead of seven per parameter; rounds differently.
    """

    def __init__(
        self,
        parameters: Iterable[tuple[str, nn.Parameter]],
        *,
        weight_decay: float,
        beta_square: float = BETA_SQUARE,
        is_decayed: Callable[[str], bool] = lambda _: True,
        is_fused: bool = False,
    ) -> None:
        self.parameters = dict(parameters)
        self.mean = {name: torch.zeros_like(p) for name, p in self.parameters.items()}
        self.square = {name: torch.zeros_like(p) for name, p in self.parameters.items()}
        self.weight_decay = {name: weight_decay if is_decayed(name) else 0.0 for name in self.parameters}
        self.beta_square, self.is_fused = beta_square, is_fused

    @torch.no_grad()
    def update(self, *, step: int, lr: float) -> None:
        """Apply and clear the gradients; `step` counts from 1."""
        if self.is_fused:
            self._update_fused(step=step, lr=lr)
        else:
            self._update_plain(step=step, lr=lr)
        self.clear()

    def clear(self) -> None:
        """Forget the gradients."""
        for p in self.parameters.values():
            p.grad = None

    def _update_plain(self, *, step: int, lr: float) -> None:
        rate = lr / (1 - BETA_MEAN**step)
        root = (1 - self.beta_square**step) ** 0.5
        for name, parameter in self.parameters.items():
            if parameter.grad is None:
                continue
            p, grad = local(parameter), local(parameter.grad)
            mean, square = local(self.mean[name]), local(self.square[name])
            mean.lerp_(grad, 1 - BETA_MEAN)
            square.mul_(self.beta_square).addcmul_(grad, grad, value=1 - self.beta_square)
            scale = square.sqrt().div_(root).add_(EPSILON)
            p.mul_(1 - lr * self.weight_decay[name]).addcdiv_(mean, scale, value=-rate)

    def _update_fused(self, *, step: int, lr: float) -> None:
        for weight_decay in sorted(set(self.weight_decay.values())):
            names = [n for n, p in self.parameters.items() if p.grad is not None]
            names = [n for n in names if self.weight_decay[n] == weight_decay]
            if not names:
                continue
            parameters = [local(self.parameters[n]) for n in names]
            # The kernel asks for one counter per parameter and only reads it: the same for all.
            counters = [torch.full((), float(step), device=parameters[0].device)] * len(parameters)
            torch._fused_adamw_(
                parameters,
                [local(_gradient(self.parameters[n])) for n in names],
                [local(self.mean[n]) for n in names],
                [local(self.square[n]) for n in names],
                [],
                counters,
                lr=lr,
                beta1=BETA_MEAN,
                beta2=self.beta_square,
                weight_decay=weight_decay,
                eps=EPSILON,
                amsgrad=False,
                maximize=False,
            )

    def tensors(self) -> dict[str, Tensor]:
        """The state itself by name, for a checkpoint to copy or to fill."""
        named = (("mean", self.mean), ("square", self.square))
        return {f"{kind}.{name}": tensor for kind, group in named for name, tensor in group.items()}


def _gradient(parameter: nn.Parameter) -> Tensor:
    assert parameter.grad is not None, "only parameters with a gradient are updated"
    return parameter.grad
