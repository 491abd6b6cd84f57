"""What training a language model costs, and what it is worth: tokens a second, utilization, bits per byte held out.

    python tests/benchmarks/bench_language.py text [STEPS]      the product api_docs, its own settings, on this CPU
    python tests/benchmarks/bench_language.py speed [SECONDS]   2 billion parameters (or a tiny model, without a GPU)

`text`: services before 2023 are learned from, those of 2023 are held out; documents that stand in both word for word
are counted and left out. The schedule ends at STEPS (900: about seven minutes of CPU on the machine it was chosen on).
Beside it, on the same held-out documents, each by itself: DEFLATE primed with the newest 32 KiB of training text (the
yardstick of the evaluate stage), and LZMA primed with the newest MiB. `*_joined` begin without knowing English, and
get all documents as one. `speed`: random tokens in documents of 1024, bfloat16, torch.compile, fused AdamW.
The result is one line of JSON.
"""

import dataclasses
import json
import lzma
import os
import sys
import time
import zlib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import torch

from clearway.engine.loop import Trained, train
from clearway.engine.plan import Plan, Precision, Recipe
from clearway.engine.world import World
from clearway.evaluate.compressor import Compressor
from clearway.ingest.sources import open_source
from clearway.language.fit import plan_of, recipe_of, shape_of
from clearway.language.score import surprises
from clearway.language.shape import LanguageShape
from clearway.language.stream import TokenStream
from clearway.language.task import LanguageTask
from clearway.language.tokens import MARK, tokens_of
from clearway.product_language import Language
from clearway.product_yaml import load_product

FIRST, HELD, END = (datetime(year, 1, 1, tzinfo=UTC) for year in (2014, 2023, 2024))
NUM_JUDGED = 200
PRIME_BYTES = 1 << 20
# The sizes of Llama 3.2 1B's layers with twice as many of them.
LARGE = LanguageShape(
    vocab_size=32_768, context_length=4096, num_layers=32, dim=2048, num_heads=32, num_kv_heads=8, hidden_dim=8192
)
TINY = LanguageShape(
    vocab_size=512, context_length=256, num_layers=2, dim=128, num_heads=4, num_kv_heads=2, hidden_dim=384
)


def text(num_steps: int) -> dict[str, Any]:
    product = load_product(Path(__file__).parents[1] / "products" / "api_docs")
    settings = product.spec.model
    assert isinstance(settings, Language) and product.spec.shape is not None
    tables = product.function(product.spec.shape)(open_source(product).read("all"))
    rows = tables["documents"].sort_by([("version_at", "ascending"), ("key", "ascending")]).to_pylist()
    learned = [row["text"] for row in rows if FIRST <= row["version_at"] < HELD]
    held = [row["text"] for row in rows if HELD <= row["version_at"] < END]
    new = sorted(set(held) - set(learned))
    judged = [new[i] for i in np.random.default_rng(0).choice(len(new), NUM_JUDGED, replace=False)]
    stream = TokenStream.of([np.concatenate([tokens_of(document) for document in learned])])
    started_s, cpu_s, world = time.monotonic(), time.process_time(), World()
    trained = train(
        LanguageTask(shape=shape_of(settings), stream=stream, seed=settings.seed),
        dataclasses.replace(recipe_of(settings), max_steps=num_steps),
        plan_of(world, is_bfloat16=False),
        world=world,
        keeping=None,
        should_stop=lambda: False,
    )
    spent_s, spent_cpu_s = time.monotonic() - started_s, time.process_time() - cpu_s
    raw, lengths = "\n".join(judged).encode(), [len(document.encode()) for document in judged]
    found = surprises(trained.model, judged, batch_size=16)  # type: ignore[arg-type]
    return _speed(trained, settings.context_length, spent_s, spent_cpu_s) | {
        "num_parameters": shape_of(settings).num_parameters,
        "num_bytes_learned": sum(len(document.encode()) for document in learned),
        "share_held_word_for_word": sum(document in set(learned) for document in set(held)) / len(set(held)),
        "bits_per_byte": sum(s.bits for s in found) / sum(s.num_bytes for s in found),
        "deflate_primed": float(np.average(Compressor.after(learned).bits_per_byte(judged), weights=lengths)),
        "lzma_primed": _lzma_primed(learned, judged),
        "deflate_joined": 8 * len(zlib.compress(raw, 9)) / len(raw),
        "lzma_joined": 8 * len(lzma.compress(raw, preset=9)) / len(raw),
    }


def _lzma_primed(learned: list[str], judged: list[str]) -> float:
    """What each document adds to the newest training text, LZMA's optimal parsing, bits per byte of all of them."""
    prime = "\n".join(reversed(dict.fromkeys(reversed(learned)))).encode()[-PRIME_BYTES:]
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 6, "dict_size": 2 * PRIME_BYTES}]

    def size(data: bytes) -> int:
        return len(lzma.compress(data, format=lzma.FORMAT_RAW, filters=filters))

    known = size(prime)
    added = sum(size(prime + b"\n" + document.encode()) - known for document in judged)
    return 8 * added / sum(len(document.encode()) for document in judged)


def speed(limit_s: float) -> dict[str, Any]:
    has_gpu = torch.cuda.is_available()
    shape, device = (LARGE, torch.device("cuda", 0)) if has_gpu else (TINY, torch.device("cpu"))
    tokens = np.random.default_rng(0).integers(0, 256, 2_000_000).astype(np.uint16)
    tokens[::1024] = MARK
    started_s, cpu_s = time.monotonic(), time.process_time()
    trained = train(
        LanguageTask(shape=shape, stream=TokenStream.of([tokens]), seed=0),
        Recipe(seed=0, batch_size=4, lr=1e-4, num_epochs=100),
        Plan(precision=Precision.BFLOAT16, is_compiled=True, is_fused=True) if has_gpu else Plan(),
        world=World(device=device),
        keeping=None,
        should_stop=lambda: time.monotonic() - started_s > limit_s,
    )
    return _speed(trained, shape.context_length, time.monotonic() - started_s, time.process_time() - cpu_s) | {
        "num_parameters": shape.num_parameters,
        "flops_per_token": shape.flops_per_token,
        "device": torch.cuda.get_device_name(device) if has_gpu else "cpu",
        "epochs": [str(pace) for pace in trained.paces],
    }


def _speed(trained: Trained, length: int, wall_s: float, cpu_s: float) -> dict[str, Any]:
    num_tokens = trained.num_samples * length
    rates = {"tokens_per_s": num_tokens / wall_s, "tokens_per_cpu_s": num_tokens / cpu_s}
    end = {"is_complete": trained.is_complete, "last_loss_nats": trained.history[-1][2] if trained.history else None}
    return {"num_tokens": num_tokens, "wall_s": wall_s} | rates | end


if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1] not in {"text", "speed"}:
        sys.exit(__doc__)
    asked = sys.argv[2:]
    if sys.argv[1] == "text":
        found = text(int(asked[0]) if asked else 900)
    else:
        found = speed(float(asked[0]) if asked else 600.0)
    sys.stdout.write(json.dumps(found) + "\n")
