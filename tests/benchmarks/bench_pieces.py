"""Drift of batches from 0.3 to 30 million rows x 30 columns: CPU time and the most memory, counted piece by piece.

    python tests/benchmarks/bench_pieces.py [MILLIONS …]

Each size in a process of its own: `measure_pieces` on pieces of the size that the monitor reads, drawn from eight that
are made before the clock starts, so that neither disk nor drawing is timed. Ten columns are measured, ten are read in
steps, five hold truths, five categories. One line of JSON per size: CPU seconds, of them per million rows, and the peak
of the process's memory above what it held before the first piece.
"""
# ruff: noqa: T201

import json
import multiprocessing
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from clearway.infra.datasets import DAY
from clearway.measures.distance import build_reference
from clearway.monitor.batch_rows import ROWS_PER_PIECE
from clearway.monitor.drift import measure_pieces

MILLIONS = (0.3, 1.0, 3.0, 10.0, 30.0)
NUM_PIECES, NUM_DAYS, NUM_TRAINING = 8, 7, 20_000
NUMERIC = [f"{kind}{i}" for kind, count in (("measured", 10), ("read", 10), ("truth", 5)) for i in range(count)]
CATEGORICAL = [f"code{i}" for i in range(5)]


def rows(seed: int, num_rows: int) -> pa.Table:
    rng = np.random.default_rng(seed)
    columns = {name: rng.normal(size=num_rows) for name in NUMERIC if name.startswith("measured")}
    columns |= {name: rng.poisson(9, num_rows) * 1.15078 for name in NUMERIC if name.startswith("read")}
    columns |= {name: rng.random(num_rows) < 0.3 for name in NUMERIC if name.startswith("truth")}
    columns |= {name: rng.choice([f"c{i}" for i in range(12)], num_rows) for name in CATEGORICAL}
    days = pa.array(np.arange(num_rows) % NUM_DAYS, pa.int32()).cast(pa.date32())
    return pa.table(columns).append_column(DAY, days)


def pieces(made: list[pa.Table], num_rows: int) -> Iterator[pa.Table]:
    for start in range(0, num_rows, ROWS_PER_PIECE):
        piece = made[start // ROWS_PER_PIECE % len(made)]
        yield piece.slice(0, min(ROWS_PER_PIECE, num_rows - start))


def measure(millions: float) -> dict[str, float]:
    """One size, in this process."""
    training = rows(0, NUM_TRAINING)
    batch_id = pa.array([f"{i * 10 // NUM_TRAINING}" for i in range(NUM_TRAINING)])
    reference = build_reference(
        training.append_column("batch_id", batch_id),
        numeric=NUMERIC,
        categorical=CATEGORICAL,
        batch_column="batch_id",
    )
    made, num_rows = [rows(seed, ROWS_PER_PIECE) for seed in range(1, NUM_PIECES + 1)], int(millions * 1e6)
    before, started = peak_mb(), time.process_time()
    found = measure_pieces(
        reference, pieces(made, num_rows), num_rows=num_rows, ignore=(), scores=None, false_discovery_rate=0.1
    )
    spent = time.process_time() - started
    return {
        "million rows": millions,
        "counted": found.num_rows,
        "CPU s": round(spent, 2),
        "CPU s per million": round(spent / millions, 3),
        "peak MB above start": round(peak_mb() - before, 1),
        "over limit": found.num_over,
    }


def peak_mb() -> float:
    """Of this program alone: `ru_maxrss` would begin with what the process that started it had held (Linux)."""
    (line,) = (one for one in Path("/proc/self/status").read_text().splitlines() if one.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def main(sizes: list[float]) -> None:
    context = multiprocessing.get_context("spawn")
    for millions in sizes:
        with context.Pool(1) as pool:
            print(json.dumps(pool.apply(measure, (millions,))), flush=True)


if __name__ == "__main__":
    main([float(size) for size in sys.argv[1:]] or list(MILLIONS))
