"""Drift of 300,000 rows x 30 columns: one pass over fixed bins against Evidently's own PSI, in one run.

    python tests/benchmarks/bench_drift.py [NUM_ROWS] [NUM_COLUMNS]

Both see the same two tables. Equal values are required before any time counts: Evidently bins the union of both sides,
so PSI is computed by our formula on those very bins and compared column by column. CPU seconds count, imports do not.
Each way runs in a child of its own; its memory is what the child holds at its peak beyond imports and the two tables.
Values lie between 0 and 1 and fill every bin: for empty ones Evidently uses another floor on each side.
The result is one line of JSON.
"""

import json
import multiprocessing
import os
import sys
import time
import warnings
from collections.abc import Callable
from typing import Any

os.environ.update(DO_NOT_TRACK="1")
os.environ.setdefault("OMP_NUM_THREADS", "2")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import psutil
import pyarrow as pa
from bench_pieces import peak_mb

from clearway.measures.distance import build_reference, compare
from clearway.measures.psi import psi

# What an alarm by convention would use; only to compare verdicts, our own decision has limits per feature.
PSI_LIMIT = 0.1


def two_tables(num_rows: int, num_columns: int) -> tuple[pa.Table, pa.Table]:
    """Training rows in ten batches, and a current batch in which every third column moved."""
    rng = np.random.default_rng(0)
    names = [f"x{i}" for i in range(num_columns)]
    before = {name: rng.random(num_rows) for name in names}
    after = {name: rng.random(num_rows) ** (0.6 if i % 3 == 0 else 1.0) for i, name in enumerate(names)}
    batch = np.repeat(np.arange(10), -(-num_rows // 10))[:num_rows]
    return pa.table(before | {"batch_id": batch.astype(str)}), pa.table(after)


def in_a_child(way: Callable[..., Any], *tables: pa.Table) -> Any:
    """What `way` returns; the tables are inherited, not sent."""
    context = multiprocessing.get_context("fork")
    mine, theirs = context.Pipe(duplex=False)
    child = context.Process(target=lambda: theirs.send(way(*tables)))
    child.start()
    theirs.close()
    found = mine.recv()
    child.join()
    return found


def held_mb() -> float:
    """What this process holds now."""
    return psutil.Process().memory_info().rss / 2**20


def ours(before: pa.Table, after: pa.Table) -> tuple[dict[str, float], float, float, float]:
    """PSI per column; CPU seconds of the comparison, of building the reference (once per model); MB of both."""
    held = held_mb()
    started = time.process_time()
    reference = build_reference(before, numeric=after.column_names, categorical=[], batch_column="batch_id")
    built = time.process_time()
    found = {d.name: d.psi or 0.0 for d in compare(reference, after)}
    return found, time.process_time() - built, built - started, peak_mb() - held


def evidentlys(before: pa.Table, after: pa.Table) -> tuple[dict[str, float], float, float]:
    """PSI per column as Evidently's drift preset reports it, CPU seconds, and MB beyond its two frames."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from evidently import DataDefinition, Dataset, Report
        from evidently.presets import DataDriftPreset

        frames = [t.select(after.column_names).to_pandas() for t in (before, after)]
        held, started = held_mb(), time.process_time()
        definition = DataDefinition(numerical_columns=after.column_names, categorical_columns=[])
        reference, current = (Dataset.from_pandas(f, data_definition=definition) for f in frames)
        result = Report([DataDriftPreset(num_method="psi", num_threshold=PSI_LIMIT)]).run(current, reference).dict()
        spent = time.process_time() - started
    values = {m["config"]["column"]: float(m["value"]) for m in result["metrics"] if "column" in m.get("config", {})}
    return values, spent, peak_mb() - held


def on_evidentlys_bins(before: pa.Table, after: pa.Table, name: str) -> float:
    """Our formula on the bins Evidently chooses (Sturges, over both sides together)."""
    sides = before[name].to_numpy(), after[name].to_numpy()
    edges = np.histogram_bin_edges(np.concatenate(sides), bins="sturges")
    p, q = (np.histogram(side, edges)[0] for side in sides)
    return psi(p, q)


def main(num_rows: int = 300_000, num_columns: int = 30) -> dict[str, float]:
    """Run both, insist on equal values and verdicts, return the figures."""
    before, after = two_tables(num_rows, num_columns)
    own, own_s, build_s, own_mb = in_a_child(ours, before, after)
    theirs, their_s, their_mb = in_a_child(evidentlys, before, after)
    if set(own) != set(theirs):
        raise AssertionError(f"columns differ: {sorted(set(own) ^ set(theirs))}")
    worst = max(abs(theirs[name] - on_evidentlys_bins(before, after, name)) for name in own)
    if worst > 1e-6:
        raise AssertionError(f"PSI differs by {worst} on the same bins; the formulas are not the same")
    if any((own[n] > PSI_LIMIT) != (theirs[n] > PSI_LIMIT) for n in own):
        raise AssertionError(f"verdicts at PSI {PSI_LIMIT} differ: {own} against {theirs}")
    return {
        "num_rows": num_rows,
        "num_columns": num_columns,
        "ours_cpu_s": round(own_s, 3),
        "build_reference_cpu_s": round(build_s, 3),
        "evidently_cpu_s": round(their_s, 3),
        "ratio": round(their_s / own_s, 1),
        "ours_peak_mb": round(own_mb, 1),
        "evidently_peak_mb": round(their_mb, 1),
        "largest_psi_difference_on_same_bins": worst,
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(*(int(a) for a in sys.argv[1:]))) + "\n")
