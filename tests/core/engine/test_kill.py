"""SIGKILL to either rank while a step or a save is under way: what is resumed ends at the bits of a calm run.

24 of the kills of tests/benchmarks/sweep_kills.py, the same 24 every time, and one after the last step.
"""

import random

import pytest

from engine_kill_kit import NUM_STEPS, Kill, all_kills, kill_and_resume, undisturbed

KILLS = random.Random(4).sample(all_kills(), 24)  # noqa: S311 - which ones is no secret
KILLS.append(Kill(step=NUM_STEPS, phase="before_pointer", rank=0))  # all is kept: what is resumed has nothing to do


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return undisturbed(tmp_path_factory.mktemp("calm") / "whole")


@pytest.mark.slow
@pytest.mark.parametrize("kill", KILLS, ids=lambda kill: f"step {kill.step} {kill.phase} rank {kill.rank}")
def test_a_killed_rank_ends_at_the_same_bits(whole, tmp_path, kill):
    assert not kill_and_resume(whole, kill, tmp_path / "run")
