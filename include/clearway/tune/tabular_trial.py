"""A tabular model in a study: trained by the code of the train stage, judged by log-loss."""

import itertools

import pyarrow as pa
import torch

from clearway.contracts.refs import DatasetRef
from clearway.engine.order import num_steps_per_epoch
from clearway.infra.datasets import DAY, LABEL
from clearway.infra.environment import Environment
from clearway.infra.storage import Storage
from clearway.measures.binary import log_loss
from clearway.product import LoadedProduct, Model
from clearway.tabular.fit import CPU, Rows, World, fit, has_fast_bfloat16
from clearway.tabular.model import ModelShape, predict, shape_of
from clearway.tabular.training_set import encode, make_training_set, training_rows
from clearway.tune.kinds import Judged, Report, Settings, Words
from clearway.tune.objective import in_percent


class TabularTrial:
    """A `tune.kinds.Searchable`."""

    words = Words(loss="log-loss", unit="nats", metric="log_loss", priced="a row")

    def rows(self, storage: Storage, dataset: DatasetRef, *, product: LoadedProduct, env: Environment) -> pa.Table:
        train = training_rows(storage, dataset, product=product, env=env).train
        return train.select([DAY, LABEL, *product.spec.features.columns])

    def judged(
        self, older: pa.Table, newer: pa.Table, *, product: LoadedProduct, settings: Settings, report: Report
    ) -> Judged:
        assert isinstance(settings, Model), "settings are of the product's kind"
        training_set = make_training_set(older, features=product.spec.features, model=settings)
        shape = shape_of(
            settings, num_numeric=training_set.bins.num_columns, cardinalities=training_set.encoder.cardinalities
        )
        num_steps = num_steps_per_epoch(training_set.num_rows, settings.batch_size) * settings.num_epochs
        fitted = fit(
            Rows(**{name: torch.from_numpy(value) for name, value in training_set.arrays.items()}),
            shape,
            settings,
            world=World(is_bfloat16=has_fast_bfloat16(CPU)),
            keeping=None,
            should_stop=lambda: False,
            on_report=in_percent(report, num_steps=num_steps),
        )
        encoded = encode(training_set.bins, *training_set.encoder.encode_table(newer))
        loss = log_loss(newer[LABEL].to_numpy(), predict(fitted.model, encoded))
        return Judged(loss=loss, multiply_adds=multiply_adds(shape))


def multiply_adds(shape: ModelShape) -> int:
    """Of the layers and the numeric encoding, for one row, all members."""
    widths = [shape.num_inputs, *shape.hidden, 1]
    layers = sum(a * b for a, b in itertools.pairwise(widths))
    return shape.num_members * (layers + shape.num_numeric * shape.numeric_dim)
