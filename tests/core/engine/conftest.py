"""Tests here fork: heavy imports happen once, in the parent, which computes with one thread (see engine_kit)."""

import pytest
import torch
import torch.distributed.tensor.parallel  # noqa: F401 - in the parent, not once per child


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
