"""How far a batch of blocks lies from held-out ones if it is like them: what texts are held against.

Source: bootstrap of the difference between K blocks and H blocks, both drawn from the held-out ones: the batch varies,
and so does what it is held against. Widened for few blocks as in `resample`.

Shapes: H held-out blocks, K blocks of the batch, R draws.
"""

# ruff: noqa: N806 - shape letters in names

from collections.abc import Callable

import numpy as np

from clearway.measures.binary import Array
from clearway.measures.resample import draw_day_counts, expanded_tail

NUM_DRAWS = 1_000
SEED = 2014
# Of the limit, and of each bound of an interval alone: 95 % for both.
CONFIDENCE = 0.975
# With fewer blocks on the held-out side the spread between them is a guess.
MIN_HELD_BLOCKS = 5


def limit_by_chance(
    between: Callable[[Array, Array], Array], *, num_held: int, num_blocks: int, floor: float
) -> float | None:
    """The distance that a batch of `num_blocks` reaches by chance, `floor` at least; None where too few were held out.

    Args:
        between: distances of draws, from how often each held-out block is drawn for the batch and for what it is held
            against; [R, H] both, to [R].
    """
    if num_held < MIN_HELD_BLOCKS:
        return None
    rng = np.random.default_rng(SEED)
    batch_RH, held_RH = (
        draw_day_counts(num_held, num_drawn=num, num_resamples=NUM_DRAWS, rng=rng) for num in (num_blocks, num_held)
    )
    tail = expanded_tail(CONFIDENCE, num_days=num_held)
    return max(floor, float(np.quantile(between(batch_RH, held_RH), 1.0 - tail)))
