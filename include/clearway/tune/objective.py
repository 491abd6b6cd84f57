"""One trial: a training by the code of the train stage on the older rows of a window, judged on its newer ones."""

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import pyarrow as pa
import torch

from clearway.engine.order import num_steps_per_epoch
from clearway.infra.datasets import LABEL
from clearway.measures.binary import log_loss
from clearway.product import Features, Model
from clearway.product_tune import Tune
from clearway.tabular.fit import CPU, Rows, World, fit, has_fast_bfloat16
from clearway.tabular.model import ModelShape, predict, shape_of
from clearway.tabular.training_set import TrainingSet, encode, make_training_set

# Shares of the rows a trial with fidelity `rows` is trained on, one after another; thirds, as pruners reduce.
ROW_SHARES = (1 / 9, 1 / 3, 1.0)
REPORTS = 10  # of a trial with fidelity `epochs`
PCT = 100

# Called with percent of the trial done and the loss there; raises TrialPruned to end it.
Report = Callable[[int, float], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """`log_loss` on the newer rows, nats; `multiply_adds` of one row's score."""

    log_loss: float
    multiply_adds: int


def judged(
    older: pa.Table, newer: pa.Table, *, features: Features, settings: Model, tune: Tune, report: Report
) -> Judged:
    """Train and judge. Raises: DataError if the loss is no number; TrialPruned by way of `report`."""
    if tune.fidelity == "rows" and tune.pruner != "none":
        for share in ROW_SHARES[:-1]:
            newest = older.slice(len(older) - round(share * len(older)))
            found = _once(newest, newer, features, settings, report=lambda *_: None)
            report(int(share * PCT), found.log_loss)
        found = _once(older, newer, features, settings, report=lambda *_: None)
        report(PCT, found.log_loss)
        return found
    return _once(older, newer, features, settings, report=report)


def _once(older: pa.Table, newer: pa.Table, features: Features, settings: Model, *, report: Report) -> Judged:
    training_set = make_training_set(older, features=features, model=settings)
    shape = shape_of(
        settings, num_numeric=training_set.bins.num_columns, cardinalities=training_set.encoder.cardinalities
    )
    fitted = fit(
        Rows(**{name: torch.from_numpy(value) for name, value in training_set.arrays.items()}),
        shape,
        settings,
        world=World(is_bfloat16=has_fast_bfloat16(CPU)),
        keeping=None,
        should_stop=lambda: False,
        on_report=_in_percent(report, training_set, settings),
    )
    encoded = encode(training_set.bins, *training_set.encoder.encode_table(newer))
    loss = log_loss(newer[LABEL].to_numpy(), predict(fitted.model, encoded))
    return Judged(log_loss=loss, multiply_adds=multiply_adds(shape))


def _in_percent(report: Report, training_set: TrainingSet, settings: Model) -> Callable[[list[float]], None]:
    """The loop's reports as ten of equal distance, so that trials with other batch sizes or epochs compare."""
    num_steps = num_steps_per_epoch(training_set.num_rows, settings.batch_size) * settings.num_epochs
    last = 0

    def on_report(point: list[float]) -> None:
        nonlocal last
        step, _, loss, _ = point
        reached = REPORTS * int(step) // num_steps
        if reached > last:
            last = reached
            report(reached * PCT // REPORTS, loss)

    return on_report


def multiply_adds(shape: ModelShape) -> int:
    """Of the layers and the numeric encoding, for one row, all members."""
    widths = [shape.num_inputs, *shape.hidden, 1]
    layers = sum(a * b for a, b in itertools.pairwise(widths))
    return shape.num_members * (layers + shape.num_numeric * shape.numeric_dim)
