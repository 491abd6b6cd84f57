"""How much a model's predictions hang on each column, and what drift of a column therefore counts.

Permutation importance (Breiman, Random Forests, 2001), of predictions instead of their error (a model class reliance on
the model's own output; Fisher, Rudin and Dominici, JMLR 20, 2019): the values of one column are dealt anew among the
rows, and the mean absolute change of the score is its effect. It needs no label, and no batch: once per model.
A row that is dealt the value it had is not scored again.

Shapes: F features, N rows.
"""

# ruff: noqa: N803, N806 - shape letters in names

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

# Rows that are scored once per column; the mean of a thousand changes is known to a few percent.
MAX_ROWS = 1_000


def effects(
    score: Callable[..., npt.NDArray[Any]],
    parts: Sequence[npt.NDArray[Any]],
    names: Sequence[str],
    *,
    num_threads: int = 1,
) -> dict[str, float]:
    """Mean absolute change of the score when a column is dealt anew, 0 to 1, by name.

    Args:
        score: takes all of `parts`, gives one score per row, the same alone and among others. [N]
        parts: inputs of the model, a column per feature: [N, .] each; at most MAX_ROWS of their rows are looked at.
        names: of all columns, part after part.
        num_threads: columns looked at side by side; changes no figure.
    """
    num_rows = len(parts[0])
    chosen = np.unique(np.linspace(0, num_rows - 1, min(num_rows, MAX_ROWS)).astype(np.int64))
    held = [part[chosen] for part in parts]
    before = score(*held).astype(np.float64)
    order = np.random.default_rng(0).permutation(len(chosen))

    def effect(place: tuple[int, int]) -> float:
        at, column = place
        had = held[at][:, column]
        dealt = had[order]
        is_other = (dealt != had) & ~(np.isnan(dealt) & np.isnan(had))
        changes = np.zeros(len(order))
        if is_other.any():
            rows = [part[is_other] for part in held]
            rows[at][:, column] = dealt[is_other]
            changes[is_other] = np.abs(score(*rows).astype(np.float64) - before[is_other])
        return float(changes.mean())

    places = [(at, column) for at, part in enumerate(held) for column in range(part.shape[1])]
    with ThreadPoolExecutor(num_threads) as pool:
        return dict(zip(names, pool.map(effect, places), strict=True))


def weights(effects_F: Sequence[float | None]) -> Floats:
    """What each feature counts in a share of features; they add up to 1. [F]

    Half of it is its place among the others, half its share of all effects: a model that hangs on a single column makes
    no alarm of that column alone, and a column that it does not use yet still counts. Equal if no effect is known.
    """
    known_F = np.asarray([e or 0.0 for e in effects_F])
    equal_F = np.full(len(known_F), 1 / max(1, len(known_F)))
    return (equal_F + known_F / known_F.sum()) / 2 if known_F.sum() > 0 else equal_F
