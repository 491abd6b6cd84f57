"""From a dataset to the arrays that every training process maps into memory.

Written once per job as safetensors: bin int16 [R, N], place float32 [R, N], category int32 [R, C], label float32 [R].
With a teacher (teacher.py) rows are made up, and a label is the teacher's score.
Workers get a path instead of rows, so one process or many, forked or launched by torchrun elsewhere, read the same.
"""

from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import safetensors
import safetensors.numpy

from clearway.contracts.errors import DataError, Unavailable
from clearway.contracts.refs import DatasetRef
from clearway.infra.datasets import LABEL, open_dataset, read_labelled
from clearway.infra.environment import Environment
from clearway.infra.layout import Layout
from clearway.infra.storage import Storage
from clearway.packaging.encoder import Encoder
from clearway.packaging.split import Split, split_at
from clearway.product import Features, LoadedProduct, Model
from clearway.tabular.bins import Bins
from clearway.tabular.teacher import lesson

# In a job's folder.
ARRAYS = "arrays.safetensors"
# A category value seen less often than this shares the unknown index: its own vector could only memorise.
MIN_CATEGORY_COUNT = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingSet:
    """Encoded rows with the state they were encoded by."""

    encoder: Encoder
    bins: Bins
    arrays: dict[str, npt.NDArray[np.generic]]

    @property
    def num_rows(self) -> int:
        return int(self.arrays["label"].shape[0])


def make_training_set(table: pa.Table, *, features: Features, model: Model, num_threads: int = 1) -> TrainingSet:
    """Fit encoder and bins on `table` (training rows only) and encode it, or what a teacher makes of it.

    `num_threads`: the result does not depend on it.

    Raises: DataError if a label is not 0 or 1, or if there is only one class; RowError for a value that is no number.
    """
    encoder = fit_encoder(table, features)
    numeric, category = encoder.encode_table(table)
    label, bins = _labels(table), Bins.fit(numeric, num_bins=model.num_bins)
    learned: npt.NDArray[np.generic] = category
    if model.teacher is not None:
        mixtures, label = lesson(
            label,
            np.hstack([numeric, category.astype(np.float32)]),
            num_numeric=bins.num_columns,
            teacher=model.teacher,
            seed=model.seed,
            num_threads=num_threads,
        )
        numeric, learned = np.split(mixtures, [bins.num_columns], axis=1)
    arrays = encode(bins, numeric, learned, num_threads=num_threads)
    return TrainingSet(encoder=encoder, bins=bins, arrays=arrays | {"label": label})


def fit_encoder(table: pa.Table, features: Features) -> Encoder:
    """The encoder of whatever learns from these training rows."""
    return Encoder.fit(table, numeric=features.numeric, categorical=features.categorical, min_count=MIN_CATEGORY_COUNT)


def encode(
    bins: Bins, numeric: npt.NDArray[np.float32], category: npt.NDArray[np.generic], *, num_threads: int = 1
) -> dict[str, npt.NDArray[np.generic]]:
    """Model inputs of already encoded rows, by name."""
    bin_index, place = bins.place(numeric, num_threads=num_threads)
    return {"bin": bin_index, "place": place, "category": category.astype(np.int32)}


def settings_of(product: LoadedProduct, params: dict[str, float]) -> Model:
    """The product's model section with overrides applied. Raises: ConfigError naming the first that does not fit."""
    return product.spec.tabular.model.overridden(params)


def training_rows(storage: Storage, dataset: DatasetRef, *, product: LoadedProduct, env: Environment) -> Split:
    """Labelled rows of the dataset, holdout apart. Raises: DataError if either part is empty."""
    rows = labelled_rows(storage, dataset, product=product, env=env)
    return split_at(rows, holdout_days=product.spec.release.holdout_days)


def labelled_rows(
    storage: Storage, dataset: DatasetRef, *, product: LoadedProduct, env: Environment, since: date | None = None
) -> pa.Table:
    """Rows of the dataset that have a label, oldest first; of the day `since` or later, if given."""
    document, layout = open_dataset(storage, dataset), Layout(env.store_root, product.name)
    label, key = product.spec.tabular.label, product.spec.features.key
    return read_labelled(storage, layout, document, table=label.table, key=key, column=label.column, since=since)


def write_arrays(training_set: TrainingSet, path: Path) -> None:
    """Replace `path` atomically. Not synced: after a power loss the arrays are made again.

    Raises: Unavailable if the disk does not take them.
    """
    temporary = path.with_suffix(".tmp")
    try:
        safetensors.numpy.save_file(training_set.arrays, temporary)
        temporary.replace(path)
    except safetensors.SafetensorError as error:
        temporary.unlink(missing_ok=True)
        raise Unavailable(
            f"training rows {path} could not be written: {error}; check the disk, run it again"
        ) from error


def _labels(table: pa.Table) -> npt.NDArray[np.float32]:
    label: npt.NDArray[np.float32] = table[LABEL].to_numpy().astype(np.float32)
    found = sorted({float(value) for value in np.unique(label)})
    if found != [0.0, 1.0]:
        raise DataError(f"labels of {len(label)} training rows are {found[:5]}; both 0 and 1 are needed, nothing else")
    return label
