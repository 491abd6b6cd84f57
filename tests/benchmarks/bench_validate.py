"""What validation costs: own gate, suite and import, at growing numbers of rows. CPU seconds and peak memory per child.

    python tests/benchmarks/bench_validate.py [--batches 13 130]

Each size runs in a fresh process, as a job does. Prints one JSON line per size and part; the goals are at most 8 CPU
seconds at 80,000 rows x 86 columns, and memory of the own gate that does not grow with the rows.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

ROWS_PER_BATCH, NUM_NUMERIC, NUM_CATEGORICAL = 6_200, 80, 6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batches", type=int, nargs="+", default=[13, 130], help=f"batches of {ROWS_PER_BATCH} rows")
    parser.add_argument("--part", choices=["scan", "suite"], help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.part:
        measure(chosen.part, chosen.folder)
        return
    for num_batches in chosen.batches:
        with tempfile.TemporaryDirectory(prefix="bench-validate-") as folder:
            make(Path(folder), num_batches)
            for part in ("scan", "suite"):
                command = [sys.executable, __file__, "--part", part, "--folder", folder]
                subprocess.run(command, check=True, timeout=600)


def make(folder: Path, num_batches: int) -> None:
    """A dataset of weekly batches in the product's own layout; every batch but the first is a copy with other keys."""
    import numpy as np
    import pyarrow as pa

    from clearway.infra.datasets import DAY, FEATURES_FILE, KEY, TIME, DatasetDocument, Piece, write_dataset
    from clearway.infra.layout import Layout
    from clearway.infra.parquet import to_parquet
    from clearway.infra.snapshots import new_attempt, publish, seal
    from clearway.infra.storage import join, open_storage

    root = folder.as_uri()
    storage, layout, rng = open_storage(root), Layout(root, "flights"), np.random.default_rng(0)
    columns = {f"n{i}": pa.array(rng.normal(size=ROWS_PER_BATCH)) for i in range(NUM_NUMERIC)}
    columns |= {
        f"c{i}": pa.array(rng.choice(list("abcdefgh"), ROWS_PER_BATCH).tolist()) for i in range(NUM_CATEGORICAL)
    }
    time = pa.array(np.full(ROWS_PER_BATCH, np.datetime64("2013-01-02T00:00:00", "us"))).cast(
        pa.timestamp("us", tz="UTC")
    )
    pieces = []
    for batch in range(num_batches):
        keys = pa.array([f"{batch}-{i}" for i in range(ROWS_PER_BATCH)])
        table = pa.table({KEY: keys, TIME: time, DAY: time.cast(pa.date32()), **columns})
        base = layout.features(f"{batch:04d}")
        attempt = new_attempt(base)
        storage.write(join(attempt, FEATURES_FILE), to_parquet(table))
        snapshot = seal(storage, attempt, num_rows={FEATURES_FILE: len(table)}, facts={})
        publish(storage, base, snapshot)
        pieces.append(Piece(batch_id=f"{batch:04d}", digest=snapshot.digest, num_rows=len(table)))
    document = DatasetDocument(
        product="flights", as_of="2013-02-01T00:00:00Z", schema={}, features=tuple(pieces), labels=()
    )
    ref = write_dataset(storage, layout, document)
    (folder / "ref.json").write_text(json.dumps([ref.uri, ref.digest]), encoding="utf-8")


def measure(part: str, folder: Path) -> None:
    """One part in this process; CPU includes the imports that only it needs."""
    from clearway.contracts.refs import DatasetRef
    from clearway.infra.datasets import open_dataset
    from clearway.infra.layout import Layout
    from clearway.infra.storage import open_storage

    uri, digest = json.loads((folder / "ref.json").read_text(encoding="utf-8"))
    storage, layout = open_storage(uri), Layout(folder.as_uri(), "flights")
    document = open_dataset(storage, DatasetRef(uri=uri, digest=digest))
    before_mb, before_s = _peak_mb(), _cpu_s()
    num_rows, steps = (_scan if part == "scan" else _suite)(storage, layout, document)
    figures = {
        "part": part,
        "rows": num_rows,
        "cpu_s": round(_cpu_s() - before_s, 2),
        "of_which": steps,
        "peak_mb": round(_peak_mb()),
        "grown_mb": round(_peak_mb() - before_mb),
    }
    sys.stdout.write(json.dumps(figures) + "\n")


def _scan(storage, layout, document) -> tuple[int, dict]:
    from clearway.validate.scan import scan

    started_s = _cpu_s()
    seen = scan(storage, layout, document, label=("labels", "key", "late15"))
    return seen.num_rows, {"scan": round(_cpu_s() - started_s, 2)}


def _suite(storage, layout, document) -> tuple[int, dict]:
    from clearway.infra.datasets import feature_uris
    from clearway.infra.environment import Environment
    from clearway.infra.spark import spark_session
    from clearway.product import Expectation

    rules = [Expectation(expect="column_values_to_be_unique", args={"column": "key"})]
    rules += [Expectation(expect="column_values_to_not_be_null", args={"column": f"n{i}"}) for i in range(8)]
    rules += [
        Expectation(expect="column_values_to_be_between", args={"column": f"n{i}", "min_value": -9, "max_value": 9})
        for i in range(6)
    ]
    rules += [
        Expectation(expect="column_values_to_be_in_set", args={"column": f"c{i}", "value_set": list("abcdefgh")})
        for i in range(2)
    ]
    started_s = _cpu_s()
    with spark_session(Environment.load()) as spark:
        from clearway.validate.suite import run_suite

        imported_s = _cpu_s()
        frame = spark.read.parquet(*feature_uris(storage, layout, document))
        checks = run_suite(frame, rules, name="bench").checks
    assert all(c.verdict.value == "pass" for c in checks), [c.reason for c in checks]
    steps = {"start and import": round(imported_s - started_s, 2), "suite": round(_cpu_s() - imported_s, 2)}
    return sum(p.num_rows for p in document.features), steps


def _cpu_s() -> float:
    times = os.times()
    return times.user + times.system


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
