"""One model per week and its drift of every later week: made when first asked for, kept, read afterwards.

Boosted trees stand for the product's own model: they train in seconds, and on flights they are about as good.
"""

import functools
import json
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from clearway.contracts.codec import from_jsonable, to_jsonable
from clearway.infra.datasets import BATCH, DAY, LABEL
from clearway.launch.backtest.kept import drift_name, models_name
from clearway.launch.backtest.year import Year
from clearway.measures.distance import build_reference
from clearway.monitor.drift import measure_drift
from clearway.monitor.drift_part import DriftPart
from clearway.packaging.encoder import Encoder
from clearway.product import LoadedProduct
from clearway.tabular.teacher import lightgbm

Scores = npt.NDArray[np.float32]

# Found by the flights study on months that no policy is scored on alone; one seed, one thread, so the same everywhere.
TREES: dict[str, Any] = {
    "objective": "binary",
    "learning_rate": 0.05,
    "num_leaves": 63,
    "min_data_in_leaf": 100,
    "feature_fraction": 0.5,
    "bagging_fraction": 0.8,
    "bagging_freq": 1,
    "lambda_l2": 5.0,
    "seed": 1,
    "deterministic": True,
    "verbose": -1,
    "num_threads": 1,
}
NUM_TREES = 150
MIN_CATEGORY_ROWS = 20
UNSCORED = -1.0


class Models(Protocol):
    """What a replay looks up. `model`: the week with whose batch a model was decided."""

    def scores(self, model: int) -> Scores:
        """Of every row after the model's week; anything before it is not read. [N]"""

    def drift(self, model: int, week: int) -> DriftPart:
        """Of a later week's rows against the model's training rows."""

    def num_rows(self, model: int) -> int:
        """Rows the model was trained on."""


class KeptModels:
    """All models of a year, in files below `home` that are named for what they were made of."""

    def __init__(self, year: Year, product: LoadedProduct, home: Path) -> None:
        self._year, self._product = year, product
        settings = TREES | {"num_trees": NUM_TREES, "min_category_rows": MIN_CATEGORY_ROWS}
        self._models = home / "models" / models_name(product, rows=year.name, settings=settings)
        self._drift = home / "drift" / drift_name(product, rows=year.name)

    def has(self, model: int) -> bool:
        """Whether it was trained before."""
        return self._path(model).is_file()

    def _path(self, model: int) -> Path:
        return self._models / f"{self._year.batch_ids[model]}.npy"

    @functools.cache  # noqa: B019 - one year per process
    def scores(self, model: int) -> Scores:
        path = self._path(model)
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            np.save(path, self._trained(model))
        return np.asarray(np.load(path))

    def drift(self, model: int, week: int) -> DriftPart:
        return self._drifts(model)[self._year.batch_ids[week]]

    @functools.cache  # noqa: B019
    def num_rows(self, model: int) -> int:
        return int(self._is_training(model).sum())

    def _is_training(self, model: int) -> npt.NDArray[np.bool_]:
        return self._year.training_rows(model, holdout_days=self._product.spec.release.holdout_days)

    def _trained(self, model: int) -> Scores:
        features, year = self._product.spec.features, self._year
        is_later = year.week > model
        train, later = (year.rows.filter(pa.array(chosen)) for chosen in (self._is_training(model), is_later))
        encoder = Encoder.fit(
            train, numeric=features.numeric, categorical=features.categorical, min_count=MIN_CATEGORY_ROWS
        )
        inputs, tests = (np.concatenate(encoder.encode_table(table), axis=1) for table in (train, later))
        categorical = list(range(len(features.numeric), inputs.shape[1]))
        data = lightgbm().Dataset(inputs, train[LABEL].to_numpy(), categorical_feature=categorical)
        found = np.full(len(year.rows), UNSCORED, dtype=np.float32)
        found[is_later] = lightgbm().train(TREES, data, NUM_TREES).predict(tests, num_threads=1)
        return found

    @functools.cache  # noqa: B019
    def _drifts(self, model: int) -> dict[str, DriftPart]:
        path = self._drift / f"{self._year.batch_ids[model]}.json"
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(self._measured(model)), encoding="utf-8")
        return {batch: from_jsonable(DriftPart, part) for batch, part in json.loads(path.read_text()).items()}

    def _measured(self, model: int) -> dict[str, Any]:
        features, policy, year = self._product.spec.features, self._product.spec.monitor, self._year
        reference = build_reference(
            year.rows.filter(pa.array(self._is_training(model))),
            numeric=features.numeric,
            categorical=features.categorical,
            batch_column=BATCH,
            day_column=DAY,
        )
        parts = {}
        for week in range(model + 1, year.num_weeks):
            batch = year.rows.filter(pa.array(year.week == week))
            part = measure_drift(
                reference,
                batch,
                ignore=policy.ignore,
                scores=None,
                false_discovery_rate=policy.false_discovery_rate,
            )
            parts[year.batch_ids[week]] = to_jsonable(part)
        return parts
