"""The rows of a training on disk: all of them under their name, or none."""

import resource
from pathlib import Path

import pyarrow as pa
import pytest

from clearway.contracts.errors import Unavailable
from clearway.infra.datasets import LABEL
from clearway.product import LoadedProduct
from clearway.tabular.training_set import ARRAYS, make_training_set, write_arrays
from training_kit import make_rows


def test_rows_that_the_disk_refuses_are_told_and_leave_nothing(flights: LoadedProduct, tmp_path: Path) -> None:
    """A limit on the size of files stands for the full disk."""
    features = flights.spec.features.model_copy(
        update={"numeric": ("a", "b", "c"), "categorical": ("origin", "carrier"), "slices": ()}
    )
    model = flights.spec.tabular.model.model_copy(update={"teacher": None})
    rows = make_rows(200).append_column(LABEL, pa.array([0.0, 1.0] * 100))
    made = make_training_set(rows, features=features, model=model)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
    try:
        with pytest.raises(Unavailable, match=r"arrays\.safetensors could not be written: .*; check the disk"):
            write_arrays(made, tmp_path / ARRAYS)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(tmp_path.iterdir()) == []
