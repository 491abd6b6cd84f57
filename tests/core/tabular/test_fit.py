"""The loop: learns, repeats itself, resumes to the bit, stops at nonsense."""

import numpy as np
import pytest
import torch

from clearway.contracts.errors import DataError, IntegrityError
from clearway.engine.adamw import AdamW
from clearway.engine.loop import Trained
from clearway.measures.binary import auc
from clearway.product import Model
from clearway.tabular.bins import Bins
from clearway.tabular.fit import Keeping, Rows, World, fit
from clearway.tabular.model import score, shape_of
from clearway.tabular.training_set import encode

SETTINGS = Model(
    num_bins=8, numeric_dim=2, embedding_dim=2, hidden=(8,), num_members=2, batch_size=64, num_epochs=2, dropout=0.2
)


def rows_of(num_rows: int = 400) -> Rows:
    rng = np.random.default_rng(0)
    numeric = rng.normal(size=(num_rows, 3)).astype(np.float32)
    category = rng.integers(0, 3, (num_rows, 1))
    label = (rng.random(num_rows) < 1 / (1 + np.exp(-3 * np.sin(2 * numeric[:, 0])))).astype(np.float32)
    arrays = encode(Bins.fit(numeric, num_bins=8), numeric, category) | {"label": label}
    return Rows(**{name: torch.from_numpy(value) for name, value in arrays.items()})


def train(
    rows: Rows, settings: Model = SETTINGS, keeping: Keeping | None = None, stop_after: int | None = None
) -> Trained:
    torch.set_num_threads(1)
    steps = iter(range(10**6))
    shape = shape_of(settings, num_numeric=3, cardinalities=(3,))

    def should_stop() -> bool:
        return stop_after is not None and next(steps) + 1 >= stop_after

    return fit(rows, shape, settings, world=World(), keeping=keeping, should_stop=should_stop)


def bits(fitted: Trained) -> bytes:
    return b"".join(p.detach().numpy().tobytes() for p in fitted.model.parameters())


def test_it_learns():
    rows = rows_of(3000)
    fitted = train(rows, SETTINGS.model_copy(update={"lr": 0.01, "num_epochs": 4}))
    with torch.no_grad():
        found = score(fitted.model(rows.bin.long(), rows.place, rows.category.long()))
    assert auc(rows.label.numpy(), found.numpy()) > 0.84
    assert fitted.history[-1][2] < fitted.history[0][2] - 0.1
    assert [point[1] for point in fitted.history][-1] == 4.0


def test_two_runs_are_equal_and_seeds_differ():
    rows = rows_of()
    assert bits(train(rows)) == bits(train(rows))
    assert bits(train(rows)) != bits(train(rows, SETTINGS.model_copy(update={"seed": 1})))


def test_interrupted_at_any_step_it_ends_at_the_same_bits(tmp_path):
    rows = rows_of()
    whole = train(rows)
    for step in range(1, whole.num_steps):
        folder = tmp_path / str(step)
        folder.mkdir()
        keeping = Keeping(folder=folder, job="j", every_s=1e9)
        part = train(rows, keeping=keeping, stop_after=step)
        assert not part.is_complete
        rest = train(rows, keeping=keeping)
        assert rest.resumed_step == step
        assert rest.is_complete
        assert bits(rest) == bits(whole)
        assert rest.history == whole.history


def test_checkpoints_come_by_the_clock(tmp_path):
    train(rows_of(), keeping=Keeping(folder=tmp_path, job="j", every_s=1e-9))
    assert [p.name for p in sorted(tmp_path.iterdir())] == ["step-000000013.ckpt", "step-000000014.ckpt"]


def test_another_job_does_not_resume(tmp_path):
    train(rows_of(), keeping=Keeping(folder=tmp_path, job="one", every_s=1e9), stop_after=3)
    with pytest.raises(IntegrityError, match="none of"):
        train(rows_of(), keeping=Keeping(folder=tmp_path, job="two", every_s=1e9))


@pytest.mark.parametrize("what", ["label", "place"])
def test_nonsense_stops_the_run_and_nothing_of_it_is_kept(tmp_path, what):
    rows = rows_of()
    getattr(rows, what).view(-1)[5] = float("nan")
    with pytest.raises(DataError, match=r"loss became nan"):
        train(rows, keeping=Keeping(folder=tmp_path, job="j", every_s=1e9))
    assert not list(tmp_path.iterdir())


def test_diverging_parameters_are_not_kept(tmp_path):
    rows = rows_of(64)
    keeping = Keeping(folder=tmp_path, job="j", every_s=1e9)
    with pytest.raises(DataError, match="are not finite"):
        train(rows, SETTINGS.model_copy(update={"lr": 25e37, "weight_decay": 33.0, "num_epochs": 1}), keeping=keeping)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_optimizer_equals_torchs_own():
    torch.manual_seed(0)
    ours, theirs = (torch.nn.Linear(5, 3) for _ in range(2))
    theirs.load_state_dict(ours.state_dict())
    mine = AdamW(ours.named_parameters(), weight_decay=0.1)
    reference = torch.optim.AdamW(theirs.parameters(), lr=1.0, weight_decay=0.1)
    for step in range(1, 20):
        x, lr = torch.randn(7, 5), 0.1 / step
        for model in (ours, theirs):
            model.zero_grad()
            (model(x) ** 2).sum().backward()
        reference.param_groups[0]["lr"] = lr
        reference.step()
        mine.update(step=step, lr=lr)
        for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
