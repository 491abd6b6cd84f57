"""Jensen-Shannon distance: shown to readers; no decision reads it."""

# ruff: noqa: N803 - shape letters in names

import numpy as np
import numpy.typing as npt

from clearway.measures.shares import Floats, shares


def jensen_shannon(reference_B: npt.ArrayLike, current_B: npt.ArrayLike) -> float:
    """Square root of the divergence in bits, 0 (same) to 1 (no bin in common).

    Source: Lin 1991; docs/reference/drift.md#jensen-shannon.
    """
    p, q = shares(reference_B), shares(current_B)
    middle = (p + q) / 2
    divergence = (_relative_entropy(p, middle) + _relative_entropy(q, middle)) / 2
    return float(np.sqrt(max(0.0, divergence)))


def _relative_entropy(p: Floats, q: Floats) -> float:
    held = p > 0
    return float(np.sum(p[held] * np.log2(p[held] / q[held])))
