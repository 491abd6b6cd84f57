"""Can a model tell two sets of rows apart? Sees what no single feature shows: values that no longer go together.

N and M rows, F columns. The classifier is kernel ridge with a kernel of degree two, so it sees means, spreads and all
pairs of columns; each half of the rows is scored by the fit on the other half.
"""

# ruff: noqa: N803 - shape letters in names

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from clearway.contracts.errors import Unmeasurable
from clearway.measures import binary

Floats = npt.NDArray[np.float64]

# Rows per side: the solve costs their cube, and 500 leave an AUC a standard error of 0.03.
MAX_ROWS = 500
MIN_ROWS = 50
# Weight of the penalty in units of the mean eigenvalue: with more pairs of columns than rows, none is trusted alone.
RIDGE = 1.0
SEED = 2013
NORMAL_975 = 1.959964


@dataclass(frozen=True, slots=True, kw_only=True)
class Separation:
    """AUC of telling current rows from reference rows: 0.5 not at all, 1 always.

    `lower`, `upper`: 95 %, for independent rows; what usual batches reach says more.
    """

    auc: float
    lower: float
    upper: float
    num_reference: int
    num_current: int


def separation(reference_NF: Floats, current_MF: Floats) -> Separation:
    """Cross-fitted AUC. Columns are numbers; NaN and infinity count as missing, which is itself seen.

    Raises: Unmeasurable for fewer than MIN_ROWS rows on a side.
    Source: classifier two-sample test, Lopez-Paz and Oquab 2017; standard error of Hanley and McNeil 1982.
    """
    rng = np.random.default_rng(SEED)
    sides = [_drawn(side, rng) for side in (reference_NF, current_MF)]
    for side in sides:
        if len(side) < MIN_ROWS:
            raise Unmeasurable(f"{len(side)} rows cannot be told from others; at least {MIN_ROWS} on each side")
    is_current = np.repeat([0.0, 1.0], [len(side) for side in sides])
    rows = _standardised(np.concatenate(sides))
    scores = _cross_fitted(rows, is_current)
    auc = binary.auc(is_current, scores)
    # Each half is judged by a fit on the other, so the two are no two samples: the interval trusts one of them.
    error = _standard_error(auc, num_positives=len(sides[1]) // 2, num_negatives=len(sides[0]) // 2)
    return Separation(
        auc=auc,
        lower=max(0.0, auc - NORMAL_975 * error),
        upper=min(1.0, auc + NORMAL_975 * error),
        num_reference=len(sides[0]),
        num_current=len(sides[1]),
    )


def _drawn(rows: Floats, rng: np.random.Generator) -> Floats:
    """At most MAX_ROWS of the rows, in random order, so that halves hold all times."""
    chosen: Floats = rows[rng.permutation(len(rows))[:MAX_ROWS]]
    return chosen


def _standardised(rows: Floats) -> Floats:
    """Mean 0, spread 1 over both sides together; a missing value sits at the mean and speaks through a column of its
    own. Values beyond three spreads are drawn in: one wild value must not be the whole kernel."""
    is_missing = ~np.isfinite(rows)
    held = np.where(is_missing, np.nan, rows)
    has_any = ~is_missing.all(axis=0)
    held, is_missing = held[:, has_any], is_missing[:, has_any]
    spread = np.nanstd(held, axis=0)
    centred = (held - np.nanmean(held, axis=0)) / np.where(spread > 0, spread, 1.0)
    values = np.clip(np.where(is_missing, 0.0, centred), -3.0, 3.0)
    gone = is_missing[:, is_missing.any(axis=0)].astype(np.float64)
    both: Floats = np.concatenate([values, gone - gone.mean(axis=0)], axis=1)
    return both


def _cross_fitted(rows: Floats, is_current: Floats) -> Floats:
    kernel = (1.0 + rows @ rows.T / max(1, rows.shape[1])) ** 2
    # Each half holds both sides in their proportion; each side's rows are already in random order.
    half = np.concatenate([np.arange(int((is_current == side).sum())) % 2 for side in (0.0, 1.0)])
    scores = np.empty(len(rows))
    for fold in (0, 1):
        fit, judged = np.flatnonzero(half != fold), np.flatnonzero(half == fold)
        target = is_current[fit] - is_current[fit].mean()
        gram = kernel[np.ix_(fit, fit)]
        penalty = RIDGE * np.trace(gram) / len(fit)
        weights = np.linalg.solve(gram + penalty * np.eye(len(fit)), target)
        found = kernel[np.ix_(judged, fit)] @ weights
        # The two fits differ in level; ranks within a half are what they share.
        scores[judged] = np.argsort(np.argsort(found, kind="stable"), kind="stable") / len(judged)
    return scores


def _standard_error(auc: float, *, num_positives: int, num_negatives: int) -> float:
    both_positive, both_negative = auc / (2 - auc), 2 * auc**2 / (1 + auc)
    variance = (
        auc * (1 - auc)
        + (num_positives - 1) * (both_positive - auc**2)
        + (num_negatives - 1) * (both_negative - auc**2)
    ) / (num_positives * num_negatives)
    return math.sqrt(max(0.0, variance))
