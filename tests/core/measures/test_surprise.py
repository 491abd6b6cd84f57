"""What texts cost beyond held-out ones: values by hand, and how often quiet batches are called loud."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clearway.contracts.errors import Unmeasurable
from clearway.measures.surprise import LIMIT_FLOOR, HeldOut, cost, held_out, usual_excess

TEXTS = st.lists(st.tuples(st.floats(0.1, 8), st.integers(1, 5_000), st.sampled_from("abcde")), min_size=1, max_size=40)


def world(rng: np.random.Generator, num_blocks: int, *, shift: float = 0.0) -> tuple[list[float], list[int], list[int]]:
    """Texts of some services, each with a difficulty of its own: scores, bytes, services."""
    scores, num_bytes, blocks = list[float](), list[int](), list[int]()
    for block in range(num_blocks):
        own, size = rng.normal(2.0, 0.2), int(rng.integers(5, 30))
        scores += (rng.normal(own + shift, 0.3, size)).clip(0.05).tolist()
        num_bytes += rng.integers(20, 900, size).tolist()
        blocks += [block] * size
    return scores, num_bytes, blocks


def test_sums_per_block_are_those_of_hand() -> None:
    found = held_out([2.0, 1.0, 4.0], [10, 30, 5], ["b", "a", "b"])
    assert found == HeldOut(bits=(30.0, 40.0), num_bytes=(30, 15))
    assert found.bits_per_byte == pytest.approx(70 / 45)
    assert HeldOut.from_json(found.to_json()) == found


@settings(max_examples=40)
@given(TEXTS)
def test_a_cost_lies_between_its_texts_and_inside_its_interval(texts: list[tuple[float, int, str]]) -> None:
    scores, num_bytes, blocks = (list(part) for part in zip(*texts, strict=True))
    found = cost(scores, num_bytes, blocks)
    assert min(scores) - 1e-9 <= found.bits_per_byte <= max(scores) + 1e-9
    assert found.bits_per_byte == pytest.approx(held_out(scores, num_bytes, blocks).bits_per_byte)
    if len(texts) == 1:
        assert found.lower is None and found.upper is None
    else:
        assert found.lower is not None and found.upper is not None and found.lower <= found.upper


@settings(max_examples=40)
@given(TEXTS, st.permutations(range(5)))
def test_names_of_blocks_mean_nothing(texts: list[tuple[float, int, str]], order: list[int]) -> None:
    scores, num_bytes, blocks = (list(part) for part in zip(*texts, strict=True))
    renamed = ["abcde"[order["abcde".index(block)]] for block in blocks]
    one, other = held_out(scores, num_bytes, blocks), held_out(scores, num_bytes, renamed)
    assert sorted(zip(one.bits, one.num_bytes, strict=True)) == sorted(zip(other.bits, other.num_bytes, strict=True))


def test_more_blocks_leave_less_to_chance() -> None:
    held = held_out(*world(np.random.default_rng(0), 60))
    limits = [usual_excess(held, num_blocks=k) for k in (1, 4, 16, 64, 5_000)]
    assert all(a is not None and b is not None and a > b for a, b in itertools.pairwise(limits))


def test_texts_all_alike_still_leave_the_floor() -> None:
    held = HeldOut(bits=(20.0,) * 9, num_bytes=(10,) * 9)
    assert usual_excess(held, num_blocks=3) == LIMIT_FLOOR


def test_too_few_held_out_blocks_set_no_limit() -> None:
    assert usual_excess(HeldOut(bits=(1.0,) * 4, num_bytes=(1,) * 4), num_blocks=3) is None


@pytest.mark.parametrize("scores", [[], [math.nan]])
def test_a_cost_of_nothing_is_refused(scores: list[float]) -> None:
    with pytest.raises(Unmeasurable, match="none or not finite"):
        cost(scores, [1] * len(scores), ["a"] * len(scores))


def loud_share(*, num_held: int, num_blocks: int, shift: float, num_worlds: int = 200) -> float:
    """Of worlds in which held-out texts and a batch come from the same services, up to `shift`."""
    num_loud = 0
    for seed in range(num_worlds):
        rng = np.random.default_rng(seed)
        held = held_out(*world(rng, num_held))
        found = cost(*world(rng, num_blocks, shift=shift))
        limit = usual_excess(held, num_blocks=num_blocks)
        assert limit is not None
        num_loud += found.bits_per_byte - held.bits_per_byte > limit
    return num_loud / num_worlds


@pytest.mark.slow
@pytest.mark.parametrize(("num_held", "num_blocks"), [(8, 8), (30, 8)])
def test_a_quiet_batch_is_seldom_loud_and_a_dearer_one_nearly_always(num_held: int, num_blocks: int) -> None:
    """One-sided at 2.5 %: of 200 worlds at most 7 % (about four standard deviations above)."""
    assert loud_share(num_held=num_held, num_blocks=num_blocks, shift=0.0) <= 0.07
    assert loud_share(num_held=num_held, num_blocks=num_blocks, shift=0.6, num_worlds=40) >= 0.9
