"""A seeded part of tests/benchmarks/simulate_devices.py: 100 GPUs, and a 64-GPU job among small ones."""

import sys

import pytest

from clearway.infra.environment import project_root

sys.path.append(str(project_root() / "tests" / "benchmarks"))

from simulate_devices import GPUS, HOUR_S, POLICIES, Cluster, gang_jobs, simulate, sweep_jobs


def wait_min(cluster: Cluster) -> float:
    """Minutes that the 64-GPU job waited."""
    (gang,) = [job for job in [*cluster.done, *cluster.running, *cluster.waiting] if job.kind == "gang"]
    return (gang.start_s - gang.submit_s) / 60 if gang.start_s >= 0 else float("inf")


def test_a_large_job_starves_in_a_pool_and_not_behind_the_desk() -> None:
    waits = {
        policy: wait_min(simulate(policy, gang_jobs(1), until_s=11 * HOUR_S)) for policy in ("fifo", "pool", "clearway")
    }
    assert waits["clearway"] <= waits["fifo"] < 180
    assert waits["pool"] > 500


def test_a_preempted_sweep_finishes_and_the_large_job_starts_at_once() -> None:
    cluster = simulate("clearway", sweep_jobs(1), until_s=12 * HOUR_S)
    assert wait_min(cluster) <= 1
    trials = [job for job in cluster.done if job.kind == "trial"]
    assert len(trials) == 32
    assert sum(job.num_yields for job in trials) == 20, "96 GPUs were busy, 60 have to come free"


@pytest.mark.parametrize("policy", POLICIES)
def test_no_policy_uses_more_gpus_than_there_are(policy: str) -> None:
    cluster = simulate(policy, gang_jobs(2, is_preemptible=True), until_s=4 * HOUR_S)
    assert max(sum(busy.values()) for busy in cluster.busy) <= GPUS
