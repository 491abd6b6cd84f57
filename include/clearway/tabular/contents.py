"""From a trained network to the contents of a package: graph, schema, reference, golden rows, facts."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
import pyarrow as pa
import safetensors.numpy
import torch

from clearway.contracts.errors import DataError
from clearway.infra.datasets import BATCH, DAY, LABEL
from clearway.measures.distance import build_reference, count_reference, weigh_reference
from clearway.measures.effect import effects
from clearway.packaging.encoder import Encoder
from clearway.packaging.package import MAX_GOLDEN_ROWS, PackageContents
from clearway.product import Product
from clearway.tabular.bins import Bins
from clearway.tabular.export import to_onnx
from clearway.tabular.model import ModelShape, Scores, TabularModel, predict
from clearway.tabular.training_set import encode

# Largest difference between exported graph and network on the same rows; float32 sums in another order give 1e-7.
PARITY = 1e-5
# Rows, evenly spaced over the training period, that are scored for the parity check and the score histogram.
SCORED_ROWS = 8192
SCORE = "score"


def package_contents(
    table: pa.Table,
    *,
    product: Product,
    encoder: Encoder,
    bins: Bins,
    shape: ModelShape,
    weights: dict[str, Scores],
    facts: dict[str, Any],
    rows: dict[str, Any],
    num_threads: int = 1,
) -> PackageContents:
    """Everything a package holds; `table` are the training rows, `rows` is what `rows_reference` says of them.
    `num_threads`: changes nothing in it.

    Raises: DataError if the exported graph does not compute what the network computes.
    """
    graph = to_onnx(weights, shape, bins)
    sample = _evenly(table, SCORED_ROWS)
    numeric, category = encoder.encode_table(sample)
    session = _session(graph)
    exported = _run(session, numeric, category)
    _check_parity(exported, _network_scores(weights, shape, bins, numeric, category))
    names = [*encoder.numeric, *encoder.categorical]
    of_columns = effects(partial(_run, session), (numeric, category), names, num_threads=num_threads)
    return PackageContents(
        model=graph,
        weights=safetensors.numpy.save({name: weights[name] for name in sorted(weights)}),
        encoder=encoder,
        schema=_schema(table, product, encoder),
        reference=training_reference(rows, sample, exported, effects=of_columns),
        golden=_golden(sample, session, encoder),
        facts=facts,
    )


def _evenly(table: pa.Table, num_rows: int) -> pa.Table:
    count = min(num_rows, len(table))
    return table.take(pa.array(np.linspace(0, len(table) - 1, count).astype(np.int64)))


def _session(graph: bytes) -> ort.InferenceSession:
    """Of one thread: with two a thousand rows take as long and twice the CPU time, since they wait for each other."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    return ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def _run(session: ort.InferenceSession, numeric: Scores, category: npt.NDArray[np.int64]) -> Scores:
    parts = [
        session.run([SCORE], {"numeric": numeric[i : i + 1024], "categorical": category[i : i + 1024]})[0]
        for i in range(0, len(numeric), 1024)
    ]
    return np.concatenate(parts)


def _network_scores(
    weights: dict[str, Scores], shape: ModelShape, bins: Bins, numeric: Scores, category: npt.NDArray[np.int64]
) -> Scores:
    model = TabularModel(shape, torch.Generator()).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(torch.from_numpy(weights[name]))
    return predict(model, encode(bins, numeric, category))


def _check_parity(exported: Scores, network: Scores) -> None:
    difference = float(np.abs(exported - network).max())
    if not difference <= PARITY:
        raise DataError(
            f"exported graph differs from the network by {difference}, allowed {PARITY}; this is a bug in the export"
        )


def _schema(table: pa.Table, product: Product, encoder: Encoder) -> dict[str, Any]:
    columns = {name: {"kind": "numeric", "type": str(table.schema.field(name).type)} for name in encoder.numeric}
    categories = {
        name: {"kind": "categorical", "type": "string", "known": list(encoder.vocabulary[name])}
        for name in encoder.categorical
    }
    label = product.tabular.label.model_dump() | {"values": [0, 1]}
    return {
        "product": product.name,
        "columns": columns | categories,
        "order": [*encoder.numeric, *encoder.categorical],
        "label": label,
        "output": {"name": SCORE, "meaning": f"probability that {label['column']} is 1"},
    }


def rows_reference(table: pa.Table, encoder: Encoder) -> dict[str, Any]:
    """The part of `training_reference` that no trained model is needed for."""
    return count_reference(
        table, numeric=encoder.numeric, categorical=encoder.categorical, batch_column=BATCH, day_column=DAY
    )


def training_reference(
    rows: Mapping[str, Any], sample: pa.Table, scores: Scores, *, effects: Mapping[str, float] | None = None
) -> dict[str, Any]:
    """What later batches are held against.

    Args:
        rows: of `rows_reference`.
        sample: rows of its table that have `scores`.
        effects: of each column.
    """
    scored = sample.select([BATCH]).append_column(SCORE, pa.array(scores.astype(np.float64)))
    of_scores = build_reference(scored, numeric=(), categorical=(), batch_column=BATCH, score_column=SCORE)
    return weigh_reference(rows, effects) | {"score": of_scores["score"]}


def _golden(sample: pa.Table, session: ort.InferenceSession, encoder: Encoder) -> dict[str, Any]:
    """A few real rows with their scores; rows with missing values among them where there are any."""
    columns = [*encoder.numeric, *encoder.categorical]
    rows = _evenly(sample.select(columns), MAX_GOLDEN_ROWS).to_pylist()
    scores = _run(session, *encoder.encode_rows(rows))
    return {"rows": rows, "scores": [float(value) for value in scores]}


def base_rate(table: pa.Table) -> float:
    """Share of ones among the labels."""
    return float(np.mean(table[LABEL].to_numpy()))
