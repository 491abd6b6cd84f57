"""A batch counted by Spark from Parquet files, 1 to 30 million rows x 30 columns, beside the same counts in pieces.

    python tests/benchmarks/bench_spark_tally.py [MILLIONS …]

Each size and way in a process of its own, on the same files (65,536 rows each, the columns of bench_pieces.py). Sail
runs inside the process, so that its memory counts as well. One line of JSON each: seconds, CPU seconds, the peak of the
process's memory above what it held before, and a digest of all counts, which must be the same for both ways.
"""
# ruff: noqa: T201

import json
import multiprocessing
import sys
import tempfile
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from bench_pieces import CATEGORICAL, NUM_TRAINING, NUMERIC, peak_mb, rows

from clearway.contracts.manifest import sha256_of
from clearway.infra.datasets import DAY
from clearway.infra.environment import Environment
from clearway.infra.spark import spark_session
from clearway.measures.distance import build_reference
from clearway.measures.tally import Tally, tally
from clearway.monitor.batch_rows import ROWS_PER_PIECE, BatchRows
from clearway.monitor.spark_tally import spark_tally

MILLIONS = (1.0, 3.0, 10.0, 30.0)
NUM_DRAWN = 8


def write_batch(folder: Path, millions: float) -> tuple[str, ...]:
    drawn, uris = [rows(seed, ROWS_PER_PIECE) for seed in range(1, NUM_DRAWN + 1)], list[str]()
    for number in range(round(millions * 1e6 / ROWS_PER_PIECE)):
        path = folder / f"{number:04}.parquet"
        pq.write_table(drawn[number % NUM_DRAWN], path, compression="lz4")
        uris.append(path.as_uri())
    return tuple(uris)


def measure(way: str, millions: float, uris: tuple[str, ...]) -> dict[str, object]:
    """One size, one way, in this process."""
    training = rows(0, NUM_TRAINING)
    batch_id = pa.array([f"{i * 10 // NUM_TRAINING}" for i in range(NUM_TRAINING)])
    reference = build_reference(
        training.append_column("batch_id", batch_id), numeric=NUMERIC, categorical=CATEGORICAL, batch_column="batch_id"
    )
    before, started, spent = peak_mb(), time.monotonic(), time.process_time()
    if way == "spark":
        with spark_session(Environment.load()) as session:
            found = spark_tally(reference["features"], session.read.parquet(*uris))
    else:
        found = in_pieces(reference["features"], BatchRows(uris=uris, num_rows=len(uris) * ROWS_PER_PIECE))
    return {
        "way": way,
        "million rows": millions,
        "s": round(time.monotonic() - started, 2),
        "CPU s": round(time.process_time() - spent, 2),
        "peak MB above start": round(peak_mb() - before, 1),
        "counts": sha256_of(repr(counts_of(found)).encode())[:12],
    }


def in_pieces(entries: dict[str, dict[str, object]], batch: BatchRows) -> Tally:
    total = None
    for piece in batch.pieces():
        found = tally(entries, piece, days=piece[DAY].cast(pa.int32()).to_numpy())
        total = found if total is None else total.plus(found)
    assert total is not None
    return total


def counts_of(found: Tally) -> object:
    columns = found.columns.items()
    return found.days, [(n, c.bins.counts.tolist(), c.bins.missing.tolist(), c.num_unseen) for n, c in columns]


def main(sizes: list[float]) -> None:
    context = multiprocessing.get_context("spawn")
    for millions in sizes:
        with tempfile.TemporaryDirectory() as folder:
            uris = write_batch(Path(folder), millions)
            for way in ("pieces", "spark"):
                with context.Pool(1) as pool:
                    print(json.dumps(pool.apply(measure, (way, millions, uris))), flush=True)


if __name__ == "__main__":
    main([float(size) for size in sys.argv[1:]] or list(MILLIONS))
