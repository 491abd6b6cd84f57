"""Tests here fork: heavy imports happen once, in the parent, which computes with one thread (see engine_kit)."""

from collections import Counter

import pytest
import torch
import torch.distributed.checkpoint  # noqa: F401 - these in the parent, not once per child
import torch.distributed.fsdp  # noqa: F401
import torch.distributed.tensor.parallel  # noqa: F401


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def no_visits(monkeypatch):
    """Fault points count from this test on."""
    monkeypatch.setattr("clearway.infra.faults._visits", Counter())
