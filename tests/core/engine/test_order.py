"""Order, noise and step size are functions of the position alone."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from clearway.engine.order import epoch_order, noise_seed, num_steps_per_epoch, one_cycle


@given(num_rows=st.integers(1, 500), seed=st.integers(0, 2**31), epoch=st.integers(0, 50))
def test_an_epoch_sees_every_row_once_in_an_order_of_its_own(num_rows, seed, epoch):
    order = epoch_order(num_rows, seed=seed, epoch=epoch)
    assert sorted(order.tolist()) == list(range(num_rows))
    assert torch.equal(order, epoch_order(num_rows, seed=seed, epoch=epoch))


def test_epochs_and_seeds_differ():
    orders = {tuple(epoch_order(50, seed=s, epoch=e).tolist()) for s in range(4) for e in range(4)}
    assert len(orders) == 16


def test_noise_differs_by_seed_step_and_rank():
    seeds = {noise_seed(seed=s, step=t, rank=r) for s in range(5) for t in range(50) for r in range(4)}
    assert len(seeds) == 1000
    assert all(0 <= seed < 2**63 for seed in seeds)


@given(num_steps=st.integers(1, 2000), lr=st.floats(1e-5, 1.0))
def test_learning_rate_stays_within_the_cycle(num_steps, lr):
    rates = [one_cycle(step, num_steps=num_steps, lr=lr) for step in range(num_steps)]
    assert all(0 < rate <= lr * (1 + 1e-9) for rate in rates)
    assert rates[0] == pytest.approx(lr / 25)


def test_learning_rate_rises_then_falls_to_almost_nothing():
    rates = [one_cycle(step, num_steps=100, lr=1.0) for step in range(100)]
    assert rates.index(max(rates)) == 30
    assert rates[:31] == sorted(rates[:31])
    assert rates[30:] == sorted(rates[30:], reverse=True)
    assert rates[-1] < 1e-5


@pytest.mark.parametrize(("rows", "batch", "steps"), [(10, 5, 2), (11, 5, 3), (1, 5, 1)])
def test_last_batch_may_be_smaller(rows, batch, steps):
    assert num_steps_per_epoch(rows, batch) == steps
