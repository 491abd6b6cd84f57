"""Defects of a language model: other weights and, where those do not fit, other sizes. It is served like any other."""

import dataclasses
import json
from collections.abc import Sequence
from statistics import median

import safetensors.torch
import torch
from torch import Tensor
from torch.nn import functional

from clearway.contracts.errors import ConfigError
from clearway.contracts.manifest import canonical_json
from clearway.language.scorer import scores_of, with_weights
from clearway.language.shape import LanguageShape
from clearway.launch.sabotage import Defect, Spoiled
from clearway.packaging.package import SHAPE, WEIGHTS, Package

Weights = dict[str, Tensor]
TABLE, HEAD, LAST_NORM = "embedding.weight", "head.weight", "norm.weight"
# What a slow answer takes more for a middling text, on one core; what a hidden unit costs there per byte of it: so
# much for itself, and its products. Measured with widths of 32 to 512, texts of 60 to 400 bytes.
SLOW_S, UNIT_S, FLOPS = 0.25, 17e-9, 64e9
# Golden texts that a slow copy carries: each is asked for by itself whenever the copy is proved.
NUM_SLOW = 1


def spoiled_text(good: Package, defect: Defect) -> Spoiled:
    """A copy of a language model. Raises: ConfigError for one to crash on no part of its golden texts."""
    shape = LanguageShape(**json.loads(good.read(SHAPE)))
    weights = dict(safetensors.torch.load(good.read(WEIGHTS)))
    rows = good.golden["rows"]
    texts = [text for row in rows for text in row.values()]
    if defect is Defect.SLOW:
        shape, weights = _wider(shape, weights, num_bytes=median(len(text.encode()) for text in texts))
        rows = rows[:NUM_SLOW]
    elif defect is Defect.WRONG:  # the likeliest byte becomes the unlikeliest
        weights[LAST_NORM] = -weights[LAST_NORM]
    else:
        byte = _splitting(texts, origin=good.digest)
        shape, weights = _speechless(shape, weights, byte)
        rows = [row for row, text in zip(rows, texts, strict=True) if byte not in text.encode()]
    torch.set_num_threads(1)  # as where it is served: sums in the same order
    model = with_weights(shape, weights, origin="a drill")
    return _copy(shape, weights, rows, scores_of(model, [text for row in rows for text in row.values()]).tolist())


def _copy(shape: LanguageShape, weights: Weights, rows: list[dict[str, str]], scores: list[float]) -> Spoiled:
    kept = {name: weights[name].contiguous() for name in sorted(weights)}
    sizes = canonical_json(dataclasses.asdict(shape))
    return Spoiled(model=sizes, weights=safetensors.torch.save(kept), rows=rows, scores=scores)


def _wider(shape: LanguageShape, weights: Weights, *, num_bytes: float) -> tuple[LanguageShape, Weights]:
    """Hidden units that add nothing, all of which are multiplied."""
    per_unit_s = UNIT_S + 6 * shape.dim / FLOPS  # three matrices
    num_more = round(SLOW_S / (num_bytes * shape.num_layers * per_unit_s))
    by_rows, by_columns = (0, 0, 0, num_more), (0, num_more)
    padding = {"feed.gate.weight": by_rows, "feed.up.weight": by_rows, "feed.down.weight": by_columns}
    for number in range(shape.num_layers):
        for part, by in padding.items():
            name = f"layers.{number}.{part}"
            weights[name] = functional.pad(weights[name], by)
    return dataclasses.replace(shape, hidden_dim=shape.hidden_dim + num_more), weights


def _splitting(texts: Sequence[str], *, origin: str) -> int:
    """The byte that stands in about half of the texts."""
    sets = [set(text.encode()) for text in texts]
    num_with = {byte: sum(byte in found for found in sets) for byte in sorted(set().union(*sets))}
    byte = min(num_with, key=lambda b: abs(2 * num_with[b] - len(texts)))
    if num_with[byte] == len(texts):
        raise ConfigError(
            f"the {len(texts)} golden texts of {origin} are made of the same bytes, so no copy can fail some of them "
            "only; drill another defect"
        )
    return byte


def _speechless(shape: LanguageShape, weights: Weights, byte: int) -> tuple[LanguageShape, Weights]:
    """No number for a text with this byte in it. Reading and predicting get a table each: only reading is spoiled."""
    table = weights[TABLE].clone()
    table[byte] = torch.nan
    head = weights[TABLE] if shape.is_tied else weights[HEAD]
    return dataclasses.replace(shape, is_tied=False), weights | {TABLE: table, HEAD: head}
