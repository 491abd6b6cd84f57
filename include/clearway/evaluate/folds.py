"""What honest models do on this product's own past: forward-chaining folds of the training period.

Fold k trains on all days before its block and is judged on the block, as the holdout is. The blocks are the newest days
of the training period, each as long as the holdout, so that a fold's spread is the holdout's spread.

Shapes: K folds, D days, N rows.
"""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from clearway.contracts.errors import Unmeasurable
from clearway.evaluate.cheap_models import Floats, Line, Rows, Trees, thinned
from clearway.evaluate.slices import SliceFigures, slice_figures
from clearway.measures import binary
from clearway.measures.resample import auc_difference, mean_difference

# A fold shorter than this has too few day blocks to say anything about spread.
MIN_BLOCK_DAYS = 3
# Enough for margins: on flights 20,000 rows give AUC within 0.006 of 70,000, at a quarter of the time.
MAX_FOLD_ROWS = 20_000
FOLD_TREES = 80
# Of bounds nobody reads here: a fold contributes its standard errors.
CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True, kw_only=True)
class Fold:
    """One fold's figures.

    Args:
        first_day, last_day: of the judged block, days since 1970.
        skill: log-loss saved by the trees against the base rate of the fold's training rows, as a share.
        gain_nats: the same in nats per row.
        logloss_se, auc_se: day-block standard errors of the paired difference trees - line.
        slices: the trees, slice by slice; `logloss_excess` is against the line.
    """

    first_day: int
    last_day: int
    num_rows: int
    num_train_rows: int
    auc_trees: float
    auc_line: float
    ece_trees: float
    skill: float
    gain_nats: float
    logloss_trees: float
    logloss_line: float
    logloss_se: float
    auc_se: float
    slices: tuple[SliceFigures, ...]


def block_days(days: npt.NDArray[np.int64], *, num_folds: int, holdout_days: int) -> int:
    """Length of a fold's block: the holdout's, or less where the training period is short.

    At least two parts of the period are left for the first fold to train on. Raises: Unmeasurable.
    """
    num_days = int(np.unique(days).size)
    length = min(holdout_days, num_days // (num_folds + 2))
    if length < MIN_BLOCK_DAYS:
        raise Unmeasurable(
            f"{num_days} training days cannot give {num_folds} folds of {MIN_BLOCK_DAYS} days with twice as many to "
            f"train on; {MIN_BLOCK_DAYS * (num_folds + 2)} are needed, use more data or fewer folds"
        )
    return length


def blocks(
    days: npt.NDArray[np.int64], *, num_folds: int, length: int
) -> list[tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]]:
    """(training rows, judged rows) per fold, oldest fold first; days are those that have rows."""
    distinct = np.unique(days)
    cuts = [distinct[len(distinct) - k * length] for k in range(num_folds, 0, -1)]
    ends = [*cuts[1:], distinct[-1] + 1]
    return [(days < start, (days >= start) & (days < end)) for start, end in zip(cuts, ends, strict=True)]


def run_folds(
    rows: Rows,
    slices: Mapping[str, npt.NDArray[np.object_]],
    *,
    num_folds: int,
    holdout_days: int,
    num_resamples: int,
    min_slice: tuple[int, int],
    num_threads: int,
    make_rng: Callable[[str], np.random.Generator],
) -> tuple[Fold, ...]:
    """Fit and judge the two yardsticks on every fold, `num_threads` folds at a time.

    Raises: Unmeasurable if a fold holds one class only.
    """
    length = block_days(rows.days, num_folds=num_folds, holdout_days=holdout_days)

    def one(fold: tuple[int, tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]]) -> Fold:
        k, (is_train, is_judged) = fold
        # Thinned before it is copied: late in a year most rows would be copied to be thrown away.
        train = rows.take(thinned(np.flatnonzero(is_train), MAX_FOLD_ROWS))
        judged = rows.take(is_judged)
        scores = {
            "trees": Trees(train, num_trees=FOLD_TREES).score(judged),
            "line": Line(train).score(judged),
        }
        return judge_fold(
            judged,
            scores,
            {name: values[is_judged] for name, values in slices.items()},
            base_rate=float(train.labels.mean()),
            num_train_rows=len(train),
            num_resamples=num_resamples,
            min_slice=min_slice,
            rng=make_rng(f"fold {k}"),
        )

    # The numbers behind a fold are computed in C with the interpreter free, so threads do share the cores.
    with ThreadPoolExecutor(num_threads) as pool:
        return tuple(pool.map(one, enumerate(blocks(rows.days, num_folds=num_folds, length=length))))


def judge_fold(
    judged: Rows,
    scores: Mapping[str, Floats],
    slices: Mapping[str, npt.NDArray[np.object_]],
    *,
    base_rate: float,
    num_train_rows: int,
    num_resamples: int,
    min_slice: tuple[int, int],
    rng: np.random.Generator,
) -> Fold:
    """Figures of one block; pure."""
    labels, trees, line = judged.labels, scores["trees"], scores["line"]
    losses = {name: binary.row_log_loss(labels, s) for name, s in scores.items()}
    loss_base = binary.log_loss(labels, np.full(len(judged), base_rate))
    logloss = mean_difference(
        losses["trees"], losses["line"], judged.days, num_resamples=num_resamples, confidence=CONFIDENCE, rng=rng
    )
    auc = auc_difference(labels, trees, line, judged.days, num_resamples=num_resamples, confidence=CONFIDENCE, rng=rng)
    return Fold(
        first_day=int(judged.days.min()),
        last_day=int(judged.days.max()),
        num_rows=len(judged),
        num_train_rows=num_train_rows,
        auc_trees=binary.auc(labels, trees),
        auc_line=binary.auc(labels, line),
        ece_trees=binary.ece(labels, trees),
        skill=1.0 - float(losses["trees"].mean()) / loss_base,
        gain_nats=loss_base - float(losses["trees"].mean()),
        logloss_trees=float(losses["trees"].mean()),
        logloss_line=float(losses["line"].mean()),
        logloss_se=logloss.standard_error,
        auc_se=auc.standard_error,
        slices=slice_figures(labels, trees, slices, other=line, yardstick=line, min_slice=min_slice),
    )


def used_slices(folds: Sequence[Fold]) -> list[SliceFigures]:
    """Slices of all folds that are large enough to be gated."""
    return [s for fold in folds for s in fold.slices if s.is_gated]
