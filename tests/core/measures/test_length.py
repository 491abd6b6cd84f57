"""Lengths of texts: doublings are counted, chance is drawn from blocks, and a cut shows where it was made."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clearway.measures.length import HeldLengths, doublings, held_lengths, share_longest, usual_doublings

NUM_BLOCKS, PER_BLOCK, NUM_WORLDS = 30, 20, 25


def world(*, seed: int = 0, num_blocks: int = NUM_BLOCKS) -> tuple[np.ndarray, list[str]]:  # type: ignore[type-arg]
    """Texts of services, each of which has a length of its own."""
    rng = np.random.default_rng(seed)
    centre = np.repeat(rng.normal(8.0, 0.7, num_blocks), PER_BLOCK)
    blocks = np.repeat([f"service-{seed}-{i}" for i in range(num_blocks)], PER_BLOCK)
    return np.maximum(1, np.exp2(rng.normal(centre, 1.0))).astype(np.int64), blocks.tolist()


def test_values_worked_by_hand() -> None:
    held = held_lengths([64, 128, 256, 512], ["a", "a", "b", "b"])
    assert doublings([64, 128, 256, 512], held) == pytest.approx(0.0)
    assert doublings([128, 256, 512, 1024], held) == pytest.approx(1.0)
    assert doublings([32, 64, 128, 256], held) == pytest.approx(1.0)
    assert held.share_longest == 0.25
    assert share_longest([100, 97, 96, 10]) == 0.5, "a cut inside a character loses up to three bytes"


@given(st.integers(0, 100), st.integers(1, 4))
def test_whatever_the_texts_are_twice_as_long_is_one_doubling(seed: int, times: int) -> None:
    num_bytes, blocks = world(seed=seed, num_blocks=6)
    held = held_lengths(num_bytes, blocks)
    assert doublings(num_bytes * 2**times, held) == pytest.approx(times, rel=0.05)


def test_a_package_carries_them() -> None:
    held = held_lengths(*world())
    kept = HeldLengths.from_json(json.loads(json.dumps(held.to_json())))
    num_bytes, _ = world(seed=1)
    assert doublings(num_bytes, kept) == pytest.approx(doublings(num_bytes, held), rel=1e-6)
    assert usual_doublings(kept, num_blocks=9) == pytest.approx(usual_doublings(held, num_blocks=9), rel=1e-6)
    assert kept.share_longest == held.share_longest


@pytest.mark.slow
@pytest.mark.parametrize("num_blocks", [8, 30])
def test_quiet_batches_stay_within_the_limit_and_changed_ones_do_not(num_blocks: int) -> None:
    over = {"quiet": 0, "a quarter of each": 0, "four in one": 0}
    for seed in range(NUM_WORLDS):
        held = held_lengths(*world(seed=seed))
        limit = usual_doublings(held, num_blocks=num_blocks)
        assert limit is not None
        num_bytes, _ = world(seed=1_000 + seed, num_blocks=num_blocks)
        four = num_bytes[: len(num_bytes) // 4 * 4].reshape(-1, 4).sum(axis=1)
        for name, now in (
            ("quiet", num_bytes),
            ("a quarter of each", np.maximum(1, num_bytes // 4)),
            ("four in one", four),
        ):
            over[name] += doublings(now, held) > limit
    assert over["quiet"] <= 4, "one is expected, and services are drawn from few"
    assert (over["a quarter of each"], over["four in one"]) == (NUM_WORLDS, NUM_WORLDS)


def test_texts_cut_at_one_place_pile_up_there() -> None:
    num_bytes, _ = world()
    cut = np.minimum(num_bytes, 300)
    assert share_longest(num_bytes) < 0.01
    assert share_longest(cut) == pytest.approx((num_bytes >= 297).mean())


def test_too_few_blocks_have_no_limit() -> None:
    held = held_lengths([10, 20, 30, 40], ["a", "b", "c", "d"])
    assert usual_doublings(held, num_blocks=3) is None
    alike = held_lengths([50] * 10, [f"b{i}" for i in range(10)])
    assert usual_doublings(alike, num_blocks=3) == 0.01
    assert doublings([50], alike) == 0.0
    assert doublings([100], alike) == pytest.approx(math.log2(2))
