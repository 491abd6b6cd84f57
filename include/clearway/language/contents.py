"""From a trained language model to the contents of a package: weights, shape, schema, reference, golden rows, facts."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import safetensors.torch
import torch
from torch import Tensor

from clearway.contracts.errors import DataError
from clearway.contracts.manifest import canonical_json
from clearway.infra.datasets import BATCH, DAY
from clearway.language.documents import Documents
from clearway.language.model import LanguageModel
from clearway.language.scorer import scores_of, with_weights
from clearway.language.shape import LanguageShape
from clearway.measures.distance import build_reference
from clearway.measures.length import LENGTHS, held_lengths
from clearway.measures.surprise import HELD_OUT, held_out
from clearway.packaging.package import MAX_GOLDEN_ROWS, PackageContents
from clearway.packaging.text import MAX_TEXTS, TextEncoder, beginning
from clearway.product import Product

SCORE = "score"
# Documents, evenly spaced over the training period, that are scored for the score histogram.
SCORED_TEXTS = 256
# Held-out documents, evenly spaced, that say what a text costs which the model was not trained on: seconds of scoring.
HELD_TEXTS = 512


def package_contents(
    documents: Documents,
    *,
    product: Product,
    shape: LanguageShape,
    weights: Mapping[str, Tensor],
    facts: dict[str, Any],
) -> PackageContents:
    """Everything a package holds.

    Args:
        documents: what was trained on, and what was held out: what those texts cost is what later batches are held
            against. No weight follows from them.
    Raises: DataError if no training document could be served.
    """
    table = documents.train
    parts = product.language
    encoder = TextEncoder(column=parts.text, max_bytes=parts.model.max_text_bytes)
    torch.set_num_threads(1)  # as where it is served: sums in the same order
    model = with_weights(shape, weights, origin="this training")
    short = table.filter(pc.less_equal(pc.binary_length(table[parts.text]), encoder.max_bytes))
    if not len(short):
        raise DataError(f"no training document is {encoder.allowed}, so none could be served; raise max_text_bytes")
    sample = _evenly(short, SCORED_TEXTS)
    scored = sample.select([BATCH]).append_column(SCORE, pa.array(scores_of(model, sample[parts.text].to_pylist())))
    return PackageContents(
        model=canonical_json(asdict(shape)),
        weights=safetensors.torch.save({name: weights[name].contiguous() for name in sorted(weights)}),
        encoder=encoder,
        schema=_schema(product, encoder),
        reference=_reference(table, scored, product) | {HELD_OUT: _held_out(model, documents, product, encoder)},
        golden=_golden(sample[parts.text].to_pylist(), scored[SCORE].to_pylist(), encoder),
        facts=facts,
    )


def _evenly(table: pa.Table, num_rows: int) -> pa.Table:
    count = min(num_rows, len(table))
    return table.take(pa.array(np.linspace(0, len(table) - 1, count).astype(np.int64)))


def _schema(product: Product, encoder: TextEncoder) -> dict[str, Any]:
    return {
        "product": product.name,
        "columns": {encoder.column: {"kind": "text", "type": "string", "max_bytes": encoder.max_bytes}},
        "order": [encoder.column],
        "output": {"name": SCORE, "meaning": "bits per byte of the text, its end included; smaller is better"},
    }


def _reference(table: pa.Table, scored: pa.Table, product: Product) -> dict[str, Any]:
    """The texts by their tokens, and what is known of them without reading them; the model does not see that, drift
    does."""
    reference = build_reference(
        table,
        numeric=product.features.numeric,
        categorical=product.features.categorical,
        texts=(product.language.text,),
        batch_column=BATCH,
    )
    of_scores = build_reference(scored, numeric=(), categorical=(), batch_column=BATCH, score_column=SCORE)
    return reference | {"score": of_scores["score"]}


def _held_out(model: LanguageModel, documents: Documents, product: Product, encoder: TextEncoder) -> dict[str, Any]:
    """Bits of held-out texts as callers would send them, per block; how long all are, and how usual empty ones."""
    sample = _evenly(documents.holdout, HELD_TEXTS)
    texts = [beginning(text, encoder.max_bytes) for text in sample[encoder.column].to_pylist()]
    blocks = sample[product.language.gates.block or DAY].to_pylist()
    sent = [(text, block) for text, block in zip(texts, blocks, strict=True) if text]
    scores = scores_of(model, [text for text, _ in sent])
    held = held_out(scores, [len(text.encode()) for text, _ in sent], [block for _, block in sent])
    whole = documents.holdout
    num_bytes = pc.binary_length(whole[encoder.column]).to_numpy()
    lengths = held_lengths(num_bytes, whole[product.language.gates.block or DAY].to_pylist())
    return held.to_json() | {"share_empty": documents.share_empty, LENGTHS: lengths.to_json()}


def _golden(texts: list[str], scores: list[float], encoder: TextEncoder) -> dict[str, Any]:
    """A few real texts with their scores, as many as one request may carry."""
    rows, golden, num_bytes = list[dict[str, str]](), list[float](), 0
    for i in np.linspace(0, len(texts) - 1, min(MAX_GOLDEN_ROWS, len(texts))).astype(int).tolist():
        num_bytes += len(texts[i].encode())
        if num_bytes > MAX_TEXTS * encoder.max_bytes:
            break
        rows.append({encoder.column: texts[i]})
        golden.append(scores[i])
    return {"rows": rows, "scores": golden}
