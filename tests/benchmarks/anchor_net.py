"""The network that the bars of the training loop were set on, so that loops are compared and not networks.

29 numbers and 5 looked-up categories into three layers of 256, AdamW in one kernel, batches of 1,024, one thread:
small enough per sample for what a loop does around it to show. Labels follow from the columns, so quality can be
compared.
"""

import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from clearway.engine.adamw import AdamW
from clearway.engine.loop import Trained, train
from clearway.engine.order import epoch_order, num_steps, one_cycle
from clearway.engine.plan import DataParallel, Plan, Precision, Recipe
from clearway.engine.world import World
from clearway.measures.binary import auc

NUM_NUMERIC, CARDINALITIES, EMBEDDING_DIM, HIDDEN = 29, (16, 100, 300, 60, 400), 16, (256, 256, 256)
BATCH_SIZE, LR, WEIGHT_DECAY = 1024, 2e-3, 0.01


class AnchorNet(nn.Module):
    """(number [B, N], category [B, C]) → logits [B]; as a tutorial would write it."""

    def __init__(self) -> None:
        super().__init__()
        self.tables = nn.ModuleList(nn.Embedding(size, EMBEDDING_DIM) for size in CARDINALITIES)
        sizes = (NUM_NUMERIC + EMBEDDING_DIM * len(CARDINALITIES), *HIDDEN)
        layers: list[nn.Module] = []
        for i in range(len(HIDDEN)):
            layers += [nn.Linear(sizes[i], sizes[i + 1]), nn.ReLU()]
        self.body = nn.Sequential(*layers, nn.Linear(HIDDEN[-1], 1))

    def forward(self, number: Tensor, category: Tensor) -> Tensor:
        looked_up = [table(category[:, i]) for i, table in enumerate(self.tables)]
        return self.body(torch.cat([number, *looked_up], dim=1)).squeeze(1)


def build() -> AnchorNet:
    torch.manual_seed(1)
    return AnchorNet()


def loss_sum(logits: Tensor, label: Tensor) -> Tensor:
    return functional.binary_cross_entropy_with_logits(logits.float(), label, reduction="sum")


@dataclass(frozen=True, slots=True, kw_only=True)
class AnchorRows:
    number: Tensor
    category: Tensor
    label: Tensor

    def __len__(self) -> int:
        return len(self.label)

    @classmethod
    def drawn(cls, num_rows: int, *, seed: int) -> "AnchorRows":
        """The rule behind the labels is always the same; the rows follow from the seed."""
        rng, rule = torch.Generator().manual_seed(seed), torch.Generator().manual_seed(0)
        number = torch.randn(num_rows, NUM_NUMERIC, generator=rng)
        category = torch.stack([torch.randint(c, (num_rows,), generator=rng) for c in CARDINALITIES], dim=1)
        score = number @ torch.randn(NUM_NUMERIC, generator=rule) / 4 + torch.sin(2 * number[:, 0]) * number[:, 1]
        for i, size in enumerate(CARDINALITIES):
            score += 0.5 * torch.randn(size, generator=rule)[category[:, i]]
        label = (torch.rand(num_rows, generator=rng) < torch.sigmoid(score)).float()
        return cls(number=number, category=category, label=label)


@dataclass(kw_only=True)
class AnchorTask:
    """Implements `engine.task.Task`."""

    rows: AnchorRows
    is_resident: bool = True
    terms_per_sample: float = 1.0

    @property
    def num_samples(self) -> int:
        return len(self.rows)

    @property
    def flops_per_sample(self) -> float:
        return 6.0 * sum(layer.weight.numel() for layer in build().body if isinstance(layer, nn.Linear))

    def place(self, device: torch.device) -> None:
        assert device.type == "cpu"

    def build(self) -> nn.Module:
        return build()

    def blocks(self, model: nn.Module) -> Sequence[nn.Module]:
        return ()

    def tensor_plan(self, model: nn.Module) -> Mapping[str, Any]:
        return {}

    def is_decayed(self, name: str) -> bool:
        return True

    def batch(self, index: Tensor) -> dict[str, Tensor]:
        rows = self.rows
        return {"number": rows.number[index], "category": rows.category[index], "label": rows.label[index]}

    def loss(self, model: nn.Module, batch: Mapping[str, Tensor], context: Any) -> tuple[Tensor, int]:
        return loss_sum(model(batch["number"], batch["category"]), batch["label"]), len(batch["label"])


def stock(rows: AnchorRows, *, num_epochs: int = 1) -> AnchorNet:
    """DataLoader with its defaults: single rows, put together again."""
    model = build()
    optimizer = torch.optim.AdamW(model.parameters(), lr=LR, weight_decay=WEIGHT_DECAY, fused=True)
    loader = DataLoader(TensorDataset(rows.number, rows.category, rows.label), batch_size=BATCH_SIZE, shuffle=True)
    for _ in range(num_epochs):
        for number, category, label in loader:
            optimizer.zero_grad()
            (loss_sum(model(number, category), label) / len(label)).backward()
            optimizer.step()
    return model


def bare(rows: AnchorRows, *, num_epochs: int = 1, is_bfloat16: bool = False) -> AnchorNet:
    """Slices of resident rows, the engine's optimizer and order, and nothing else."""
    model, recipe = build(), recipe_of(num_epochs)
    optimizer = AdamW(model.named_parameters(), weight_decay=WEIGHT_DECAY, is_fused=True)
    last = num_steps(len(rows), recipe)
    step = 0
    for epoch in range(num_epochs):
        for mine in epoch_order(len(rows), seed=recipe.seed, epoch=epoch).split(BATCH_SIZE):
            with torch.autocast("cpu", torch.bfloat16) if is_bfloat16 else nullcontext():
                loss = loss_sum(model(rows.number[mine], rows.category[mine]), rows.label[mine]) / len(mine)
            loss.backward()
            optimizer.update(step=step + 1, lr=one_cycle(step, num_steps=last, lr=LR))
            step += 1
    return model


def ours(
    rows: AnchorRows,
    *,
    num_epochs: int = 1,
    is_bfloat16: bool = False,
    world: World | None = None,
    batch_size: int = BATCH_SIZE,
) -> Trained:
    """The engine's loop."""
    plan = Plan(
        data_parallel=DataParallel.DDP,
        precision=Precision.BFLOAT16 if is_bfloat16 else Precision.FLOAT32,
        is_fused=True,
    )
    return train(
        AnchorTask(rows=rows),
        recipe_of(num_epochs, batch_size=batch_size),
        plan,
        world=world or World(),
        keeping=None,
        should_stop=lambda: False,
    )


def recipe_of(num_epochs: int, *, batch_size: int = BATCH_SIZE) -> Recipe:
    return Recipe(seed=0, batch_size=batch_size, num_epochs=num_epochs, lr=LR, weight_decay=WEIGHT_DECAY)


@torch.no_grad()
def quality(model: nn.Module, rows: AnchorRows) -> float:
    """Area under the ROC curve."""
    return auc(rows.label.numpy(), model.eval()(rows.number, rows.category).numpy())


def loading_us(rows: AnchorRows) -> dict[str, float]:
    """CPU microseconds per row of reading batches alone: single rows put together, and slices."""

    def slices() -> None:
        for mine in torch.randperm(len(rows)).split(BATCH_SIZE):
            AnchorTask(rows=rows).batch(mine)

    def singles() -> None:
        for _ in DataLoader(TensorDataset(rows.number, rows.category, rows.label), BATCH_SIZE, shuffle=True):
            pass

    found = {}
    for name, read in (("DataLoader", singles), ("slices", slices)):
        before = time.process_time()
        read()
        found[name] = (time.process_time() - before) / len(rows) * 1e6
    return found
