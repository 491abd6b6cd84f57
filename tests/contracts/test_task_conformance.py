"""What every Task owes the engine. To add one: a case in TASKS."""

import pytest
import torch

from clearway.engine.task import Context, Task
from clearway.engine.world import CPU
from clearway.product import Model
from clearway.tabular.fit import Rows, TabularTask
from clearway.tabular.model import shape_of
from engine_kit import Curve

SETTINGS = Model(num_bins=4, numeric_dim=2, embedding_dim=2, hidden=(8,), num_members=2, batch_size=16, dropout=0.2)


def tabular() -> Task:
    generator = torch.Generator().manual_seed(0)
    rows = Rows(
        bin=torch.randint(4, (40, 3), generator=generator, dtype=torch.int16),
        place=torch.rand(40, 3, generator=generator),
        category=torch.randint(3, (40, 1), generator=generator, dtype=torch.int32),
        label=torch.randint(2, (40,), generator=generator).float(),
    )
    return TabularTask(rows, shape_of(SETTINGS, num_numeric=3, cardinalities=(3,)), SETTINGS, rank=0)


TASKS = {"tabular": tabular, "curve": Curve}


@pytest.fixture(params=TASKS.values(), ids=TASKS)
def task(request) -> Task:
    made = request.param()
    made.place(CPU)
    return made


def context(seed: int) -> Context:
    torch.manual_seed(seed)
    return Context(step=0, micro=0, seed=seed, device=CPU)


def gradients(task: Task, index: torch.Tensor, seed: int = 5) -> tuple[torch.Tensor, float, int]:
    model = task.build().train()
    total, num_terms = task.loss(model, task.batch(index), context(seed))
    total.backward()
    return torch.cat([p.grad.flatten() for p in model.parameters()]), float(total.detach()), num_terms


def test_every_build_is_the_same_in_float32_on_the_host(task: Task):
    first, second = task.build().state_dict(), task.build().state_dict()
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name])
        assert tensor.device == CPU
        assert tensor.dtype is torch.float32


def test_one_seed_is_one_loss_and_one_gradient(task: Task):
    index = torch.arange(16)
    first, again = gradients(task, index), gradients(task, index)
    assert torch.equal(first[0], again[0])
    assert first[1:] == again[1:]
    assert not torch.equal(first[0], gradients(task, index, seed=6)[0])  # and another seed, other noise


def test_losses_are_sums(task: Task):
    model = task.build().eval()
    whole, num_whole = task.loss(model, task.batch(torch.arange(20)), context(0))
    assert whole.dtype is torch.float32
    assert whole.shape == ()
    if getattr(task, "settings", None) is None:  # the tabular noise does not follow the mode of the model
        parts = [task.loss(model, task.batch(torch.arange(20)[i::2]), context(0)) for i in range(2)]
        assert sum(float(total.detach()) for total, _ in parts) == pytest.approx(float(whole.detach()), rel=1e-5)
        assert sum(count for _, count in parts) == num_whole


def test_an_empty_batch_weighs_nothing(task: Task):
    """A rank may have no sample of an epoch's last batch, and still takes part in the exchange."""
    gradient, total, num_terms = gradients(task, torch.arange(0))
    assert (total, num_terms) == (0.0, 0)
    assert not gradient.any()


def test_samples_are_counted(task: Task):
    assert task.num_samples > 0
    assert task.terms_per_sample > 0
    assert task.flops_per_sample > 0
    names = {name for name, _ in task.build().named_parameters()}
    assert all(isinstance(task.is_decayed(name), bool) for name in names)
