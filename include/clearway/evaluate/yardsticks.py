"""The yardsticks of one evaluation: fitted on the training rows, scored on the holdout, judged on the past.

Two candidates for the same dataset share them; only the encoding (which category values are known) is the candidate's.
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
from clearway.evaluate.margins import Margins, derive
from clearway.infra.datasets import DAY, LABEL
from clearway.measures.binary import Array
from clearway.packaging.encoder import Encoder
from clearway.packaging.split import Split
from clearway.product import Product
from clearway.tabular.teacher import lightgbm

# The reference on the full training rows; more trees than on the folds, since it has more rows.
REFERENCE_TREES = 200
# A line has about 150 weights; more rows than this change none of its scores visibly.
MAX_LINE_ROWS = 30_000

MakeRng = Callable[[str], np.random.Generator]


@dataclass(frozen=True, slots=True, kw_only=True)
class Yardsticks:
    """What a candidate is held against.

    Args:
        held: the holdout's rows, encoded. base_rate: share of positives in training.
        scores: trees and line on the holdout. [N]
        reference: the trees as text, for comparisons on later rows.
    """

    held: Rows
    base_rate: float
    scores: dict[str, Array]
    folds: tuple[Fold, ...]
    margins: Margins
    reference: str


def fit_yardsticks(
    split: Split, encoder: Encoder, *, product: Product, num_threads: int, make_rng: MakeRng
) -> Yardsticks:
    """Fit, score, judge on folds, derive the margins. Raises: Unmeasurable."""
    gates, train, held = product.tabular.gates, rows_of(split.train, encoder), rows_of(split.holdout, encoder)
    lightgbm()  # in one thread: see there
    # The trees on all rows take about as long as all else, and a second thread gains them nothing: see Trees.
    with ThreadPoolExecutor(1) as beside:
        growing = beside.submit(Trees, train, num_trees=REFERENCE_TREES)
        folds = run_folds(
            train,
            slice_values(split.train, product.features.slices),
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
        held=held,
        base_rate=float(train.labels.mean()),
        scores={TREES: trees.score(held), LINE: line},
        folds=folds,
        margins=margins,
        reference=trees.to_text(),
    )


def rows_of(table: pa.Table, encoder: Encoder) -> Rows:
    """Labelled rows as the yardsticks take them, encoded as the candidate encodes them."""
    numeric, categorical = encoder.encode_table(table)
    return Rows(
        numeric=numeric,
        categorical=categorical,
        labels=table[LABEL].to_numpy().astype(np.float64),
        days=table[DAY].cast(pa.date32()).cast(pa.int32()).to_numpy().astype(np.int64),
    )


def slice_values(table: pa.Table, columns: Sequence[str]) -> dict[str, npt.NDArray[np.object_]]:
    """Values of the slicing columns. [N] each"""
    return {c: table[c].cast(pa.string()).to_numpy(zero_copy_only=False) for c in columns}


def seeded(digest: str) -> MakeRng:
    """Generators that depend on the dataset and the question alone: a second evaluation draws the same days."""

    def make(question: str) -> np.random.Generator:
        return np.random.default_rng(int(sha256_of(f"{digest}/{question}".encode())[:16], 16))

    return make
