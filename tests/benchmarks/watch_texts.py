"""How often later quarters would be called loud: one language model of the product api_docs, every quarter after it.

    python tests/benchmarks/watch_texts.py [FIRST_END]      minutes on two cores

Trains a small model on the texts before FIRST_END (default 2018-01-01) as a release does, the newest 365 days held out,
and holds every later quarter against what those cost, how long those are, and against the tokens of training; then the
same quarters with the letters of every text in another order, with half of every text, with texts cut at 100, 200 and
400 bytes, and with two texts in one. Prints a line per quarter and the shares over their limit, or seen to be cut.
"""

# ruff: noqa: T201

import json
import sys
from collections import defaultdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from clearway.engine.world import World
from clearway.ingest.sources import open_source
from clearway.language.documents import are_new
from clearway.language.fit import fit, plan_of
from clearway.language.scorer import scores_of
from clearway.language.stream import TokenStream
from clearway.language.tokens import tokens_of
from clearway.measures.distance import build_reference, compare
from clearway.measures.length import HeldLengths, doublings, held_lengths, share_longest, usual_doublings
from clearway.measures.surprise import cost, held_out, usual_excess
from clearway.monitor.length_part import LengthPart
from clearway.packaging.text import beginning
from clearway.product_language import Language
from clearway.product_yaml import load_product

FOLDER = Path(__file__).parents[1] / "products" / "api_docs"
SMALL = Language(
    kind="language", context_length=128, num_layers=2, dim=64, num_heads=2, num_kv_heads=1, hidden_dim=128, lr=0.006
)
MAX_TEXTS, HOLDOUT = 200, timedelta(days=365)
Rows = list[dict[str, Any]]


def half(rows: Rows) -> Rows:
    """The first half of every text."""
    return [row | {"text": row["text"][: (len(row["text"]) + 1) // 2]} for row in rows]


def cut(rows: Rows, num_bytes: int) -> Rows:
    return [row | {"text": beginning(row["text"], num_bytes)} for row in rows]


def joined(rows: Rows) -> Rows:
    """Every text with the one after it."""
    return [
        row | {"text": f"{row['text']} {other['text']}"} for row, other in zip(rows, rows[1:] + rows[:1], strict=True)
    ]


# Faults that leave the letters as they were, or nearly.
LENGTHS = {
    "as it was": lambda rows: rows,
    "halves": half,
    "cut at 100 bytes": lambda rows: cut(rows, 100),
    "cut at 200 bytes": lambda rows: cut(rows, 200),
    "cut at 400 bytes": lambda rows: cut(rows, 400),
    "two in one": joined,
}


def length_of(rows: Rows, held: HeldLengths) -> LengthPart:
    """As the monitor would see them: every text of the quarter, none left out."""
    num_bytes = [len(row["text"].encode()) for row in rows]
    num_blocks = len({row["service"] for row in rows})
    return LengthPart(
        num_texts=len(rows),
        doublings=doublings(num_bytes, held),
        limit=usual_doublings(held, num_blocks=num_blocks),
        num_blocks=num_blocks,
        num_held_blocks=len(held.counts),
        longest=max(num_bytes),
        num_longest=round(share_longest(num_bytes) * len(rows)),
        held_share_longest=held.share_longest,
    )


def watch_lengths(quarters: dict[str, Rows], held: Rows) -> dict[str, Any]:
    """Of every fault: quarters, those over the limit, those seen to be cut, and the median of the first."""
    lengths = held_lengths([len(row["text"].encode()) for row in held], [row["service"] for row in held])
    found = {}
    for name, change in LENGTHS.items():
        parts = [length_of(change(own), lengths) for _, own in sorted(quarters.items())]
        over = [part.over for part in parts if part.over is not None]
        counts = {"over": sum(o > 1 for o in over), "cut": sum(part.is_cut for part in parts)}
        found[name] = {"n": len(parts), **counts, "median": round(float(np.median(over)), 2)}
    return found


def some(rows: Rows, num: int) -> Rows:
    """At most so many, evenly spaced."""
    return [rows[i] for i in np.unique(np.linspace(0, len(rows) - 1, min(num, len(rows))).astype(int))]


def priced(model: Any, rows: Rows) -> tuple[Any, list[int], list[str]]:
    """Bits per byte, bytes and service of each row."""
    texts = [beginning(row["text"], SMALL.max_text_bytes) for row in rows]
    return scores_of(model, texts), [len(text.encode()) for text in texts], [row["service"] for row in rows]


def table(rows: Rows) -> pa.Table:
    return pa.table({"text": [row["text"] for row in rows], "batch": [quarter(row["version_at"]) for row in rows]})


def quarter(at: datetime) -> str:
    return f"{at.year}Q{(at.month + 2) // 3}"


def main(first_end: datetime) -> dict[str, Any]:
    torch.set_num_threads(1)
    product = load_product(FOLDER)
    assert product.spec.shape is not None
    landed = product.function(product.spec.shape)(open_source(product).read("all"))["documents"]
    rows: Rows = landed.sort_by([("version_at", "ascending"), ("key", "ascending")]).to_pylist()
    rows = [row for row in rows if row["version_at"] >= datetime(2014, 1, 1, tzinfo=UTC)]
    train = [row for row in rows if row["version_at"] < first_end - HOLDOUT]
    held = [row for row in rows if first_end - HOLDOUT <= row["version_at"] < first_end]
    is_new = are_new([row["text"] for row in held], known=[row["text"] for row in train])
    held = [row for row, new in zip(held, is_new, strict=True) if new]
    stream = TokenStream.of([np.concatenate([tokens_of(row["text"]) for row in train])])
    world = World()
    model = fit(
        stream,
        SMALL,
        plan=plan_of(world, is_bfloat16=False),
        world=world,
        keeping=None,
        should_stop=lambda: False,
    ).model.eval()
    before = held_out(*priced(model, some(held, 512)))
    reference = build_reference(table(train), numeric=(), categorical=(), texts=("text",), batch_column="batch")
    print(
        f"{len(train)} texts learned, {len(held)} held out of {len(before.bits)} services: {before.bits_per_byte:.3f}"
    )
    quarters = defaultdict[str, Rows](list)
    for row in rows:
        if row["version_at"] >= first_end:
            quarters[quarter(row["version_at"])].append(row)
    print(json.dumps({"lengths": watch_lengths(quarters, held)}, indent=1), flush=True)
    found, rng = defaultdict[str, list[float]](list), np.random.default_rng(0)
    for name, own in sorted(quarters.items()):
        now = some(own, MAX_TEXTS)
        mixed = [row | {"text": "".join(rng.permutation(list(row["text"])))} for row in now]
        line = [name, f"{len(own):5d}"]
        for what, asked in (("as it was", now), ("mixed up", mixed)):
            seen = cost(*priced(model, asked))
            limit = usual_excess(before, num_blocks=seen.num_blocks)
            (tokens,) = compare(reference, table(asked))
            assert limit is not None and tokens.distance is not None and tokens.limit is not None
            ratios = ((seen.bits_per_byte - before.bits_per_byte) / limit, tokens.distance / tokens.limit)
            for kind, ratio in zip(("cost", "tokens"), ratios, strict=True):
                found[f"{kind}, {what}"].append(ratio)
            line.append(
                f"{what}: {seen.bits_per_byte:.3f} of {seen.num_blocks} services, {ratios[0]:+.2f}, {ratios[1]:.2f}"
            )
        print("  ".join(line), flush=True)
    return {
        what: {"n": len(ratios), "over": sum(r > 1 for r in ratios), "median": round(float(np.median(ratios)), 2)}
        for what, ratios in found.items()
    }


if __name__ == "__main__":
    asked = sys.argv[1] if len(sys.argv) > 1 else "2018-01-01"
    print(json.dumps(main(datetime.fromisoformat(asked).replace(tzinfo=UTC)), indent=1))
