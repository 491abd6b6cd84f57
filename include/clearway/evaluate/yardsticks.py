"""The yardsticks of a dataset: fitted on the training rows, scored on the holdout, judged on the past.

They need no candidate, so they are fitted while one is trained, and all candidates for the same dataset share them.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from clearway.contracts.manifest import sha256_of
from clearway.evaluate.cheap_models import Line, Rows, Trees
from clearway.evaluate.evidence import LINE, TREES
from clearway.evaluate.folds import Fold, run_folds
from clearway.evaluate.kinds import Ground
from clearway.evaluate.margins import Margins, derive
from clearway.infra.datasets import DAY, LABEL
from clearway.measures.binary import Array
from clearway.packaging.encoder import Encoder
from clearway.packaging.split import Split
from clearway.product import Product
from clearway.tabular.teacher import lightgbm
from clearway.tabular.training_set import fit_encoder, training_rows

# The reference on the full training rows; more trees than on the folds, since it has more rows.
REFERENCE_TREES = 200
# A line has about 150 weights; more rows than this change none of its scores visibly.
MAX_LINE_ROWS = 30_000

MakeRng = Callable[[str], np.random.Generator]


@dataclass(frozen=True, slots=True, kw_only=True)
class Yardsticks:
    """What a candidate is held against.

    Args:
        holdout_start: its first day, ISO 8601.
        base_rate: share of positives in training.
        scores: trees and line on the holdout, in its order. [N]
        reference: the trees as text, for comparisons on later rows.
    """

    holdout_start: str
    base_rate: float
    scores: dict[str, tuple[float, ...]]
    folds: tuple[Fold, ...]
    margins: Margins
    reference: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Cases:
    """What yardsticks are fitted and scored on. `slices`: values of the training rows, by column, [N] each;
    `holdout_start`: its first day, ISO 8601."""

    train: Rows
    held: Rows
    slices: dict[str, npt.NDArray[np.object_]]
    holdout_start: str


def measure(ground: Ground) -> Yardsticks:
    """See `kinds.yardsticks_of`."""
    env, product = ground.env, ground.product
    split = training_rows(ground.storage, ground.dataset, product=product, env=env)
    cases = cases_of(split, product.spec)
    del split  # half of what this job would hold, beside a training that needs the memory
    pa.default_memory_pool().release_unused()
    return fit_yardsticks(
        cases,
        product=product.spec,
        num_threads=env.jobs.num_threads,
        make_rng=seeded(ground.dataset.digest),
    )


def cases_of(split: Split, product: Product) -> Cases:
    """Both parts, as the yardsticks take them."""
    encoder = fit_encoder(split.train, product.features)
    return Cases(
        train=rows_of(split.train, encoder),
        held=rows_of(split.holdout, encoder),
        slices=slice_values(split.train, product.features.slices),
        holdout_start=split.holdout_start.isoformat(),
    )


def fit_yardsticks(cases: Cases, *, product: Product, num_threads: int, make_rng: MakeRng) -> Yardsticks:
    """Fit, score, judge on folds, derive the margins. Raises: Unmeasurable."""
    gates, train, held = product.tabular.gates, cases.train, cases.held
    lightgbm()  # in one thread: see there
    # The trees on all rows take about as long as all else, and a second thread gains them nothing: see Trees.
    with ThreadPoolExecutor(1) as beside:
        growing = beside.submit(Trees, train, num_trees=REFERENCE_TREES)
        folds = run_folds(
            train,
            cases.slices,
            num_folds=gates.num_folds,
            holdout_days=product.release.holdout_days,
            num_resamples=gates.num_resamples,
            min_slice=(gates.min_slice_rows, gates.min_slice_positives),
            num_threads=max(1, num_threads - 1),
            make_rng=make_rng,
        )
        margins = derive(folds, confidence=gates.confidence)
        line = Line(train.thinned(MAX_LINE_ROWS)).score(held)
        trees = growing.result()
    return Yardsticks(
        holdout_start=cases.holdout_start,
        base_rate=float(train.labels.mean()),
        scores={TREES: tuple(trees.score(held).tolist()), LINE: tuple(line.tolist())},
        folds=folds,
        margins=margins,
        reference=trees.to_text(),
    )


def rows_of(table: pa.Table, encoder: Encoder) -> Rows:
    """Labelled rows as the yardsticks take them, encoded as models encode them."""
    numeric, categorical = encoder.encode_table(table)
    return Rows(numeric=numeric, categorical=categorical, labels=labels_of(table), days=days_of(table))


def labels_of(table: pa.Table) -> Array:
    """0 or 1. [N]"""
    labels: Array = table[LABEL].to_numpy().astype(np.float64)
    return labels


def days_of(table: pa.Table) -> npt.NDArray[np.int64]:
    """Days since 1970. [N]"""
    days: npt.NDArray[np.int64] = table[DAY].cast(pa.date32()).cast(pa.int32()).to_numpy().astype(np.int64)
    return days


def slice_values(table: pa.Table, columns: Sequence[str]) -> dict[str, npt.NDArray[np.object_]]:
    """Values of the slicing columns. [N] each"""
    return {c: table[c].cast(pa.string()).to_numpy(zero_copy_only=False) for c in columns}


def seeded(digest: str) -> MakeRng:
    """Generators that depend on the dataset and the question alone: a second evaluation draws the same days."""

    def make(question: str) -> np.random.Generator:
        return np.random.default_rng(int(sha256_of(f"{digest}/{question}".encode())[:16], 16))

    return make
