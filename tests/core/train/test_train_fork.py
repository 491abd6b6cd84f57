"""Whether a training may be forked from this process."""

import os
import subprocess
import sys

import pytest

from clearway.infra.environment import project_root

# What a job is: a fork of a process that has loaded torch. Each answer is a line.
ASK = """
import os, sys, torch
from clearway.train.run import can_fork
if os.fork() == 0:
    print(can_fork(), flush=True)
    torch.rand(600, 600) @ torch.rand(600, 600)
    print(can_fork(), flush=True)
    os._exit(0)
os.wait()
"""


@pytest.mark.slow
def test_a_fork_of_a_process_that_loaded_torch_may_fork_until_it_computes() -> None:
    variables = os.environ | {"OMP_NUM_THREADS": "2", "MKL_NUM_THREADS": "2"}
    command = [sys.executable, "-W", "ignore", "-c", ASK]
    done = subprocess.run(
        command, env=variables, cwd=project_root(), capture_output=True, text=True, timeout=120, check=True
    )
    assert done.stdout.split() == ["True", "False"]
