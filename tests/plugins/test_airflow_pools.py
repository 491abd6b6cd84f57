"""What Airflow's own scheduler does with the slots of a pool; the simulation's model of it is held to this."""

import random
import sys
from typing import Any

import pytest

from clearway.infra.environment import project_root
from scheduler_kit import ask_scheduler

sys.path.append(str(project_root() / "tests" / "benchmarks"))

from simulate_devices import pick

pytestmark = [pytest.mark.slow, pytest.mark.airflow]
NUM_RANDOM = 30


def case(slots: int, running: list[int], *waiting: tuple[str, int, int]) -> dict[str, Any]:
    return {"slots": slots, "running": running, "waiting": [list(task) for task in waiting]}


def random_case(seed: int) -> dict[str, Any]:
    rng = random.Random(seed)  # noqa: S311 - test cases
    running = [rng.randint(1, 20) for _ in range(rng.randint(0, 4))]
    weights = rng.sample(range(1, 10_000), 8)
    waiting = [(f"t{i}", rng.choice([1, 2, 4, 8, 32, 64]), weight) for i, weight in enumerate(weights)]
    return case(100, running, *waiting)


KNOWN = [
    ("a big task starves while small ones fit", case(100, [60], ("gang", 64, 9000), ("a", 8, 2), ("b", 4, 1)), "a b"),
    ("all its slots, or none", case(100, [36], ("gang", 64, 9000), ("a", 8, 2)), "gang"),
    ("more than the pool has: never", case(4, [], ("gang", 5, 9000), ("a", 1, 1)), "a"),
    ("highest weight first", case(8, [], ("a", 8, 1), ("b", 8, 2)), "b"),
    ("a full pool offers nothing", case(8, [8], ("a", 1, 1)), ""),
]


def test_the_scheduler_hands_out_slots_as_documented_and_as_simulated() -> None:
    cases = [*(found for _, found, _ in KNOWN), *(random_case(seed) for seed in range(NUM_RANDOM))]
    answers = ask_scheduler(cases)
    for (what, _, expected), answer in zip(KNOWN, answers, strict=False):
        assert answer == expected.split(), what
    for found, answer in zip(cases, answers, strict=True):
        assert answer == pick(found["waiting"], free=found["slots"] - sum(found["running"])), found
    assert any(len(answer) > 2 for answer in answers[len(KNOWN) :])
