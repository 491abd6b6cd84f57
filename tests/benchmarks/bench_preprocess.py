"""What features cost: one week against the whole year, and the slope from a third of a million rows upwards.

    python tests/benchmarks/bench_preprocess.py week [ENGINE]      one week with its look-back against all 52 weeks
    python tests/benchmarks/bench_preprocess.py slope [COPIES …]   1, 3 and 9 copies of the year unless given otherwise

Every figure comes from a process of its own, from its start to its exit: CPU seconds of it and its children, and the
largest memory it held (of the JVM engine its Python side only). For `week` the features must have equal digests before
a time counts. For `slope` the year is copied with new keys, airports, carriers and aircraft, so groups stay as dense as
they are; features are counted and summed, not stored. The result is one line of JSON per figure.
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from clearway.contracts.refs import RawRef
from clearway.infra.environment import Environment, project_root
from clearway.product import LoadedProduct
from clearway.product_yaml import find_product

YEAR = ("2012-12-31", "2013-12-30")
WEEK = "2013-12-23"
# Columns that tell one copy of the year from another.
NAMES = {
    "flights": ("key", "carrier", "tailnum", "origin", "dest"),
    "weather": ("origin",),
    "planes": ("tailnum",),
    "airports": ("faa",),
}


def environment(home: Path, engine: str) -> Environment:
    return Environment.load({"CLEARWAY__HOME": str(home), "CLEARWAY__SPARK__ENGINE": engine})


def product() -> LoadedProduct:
    return find_product(project_root() / "include" / "products", "flights")


def ingest(home: Path) -> RawRef:
    """The whole year, landed in `home`."""
    from clearway.ingest.run import run
    from clearway.ingest.spec import Inputs

    inputs = Inputs(product="flights", release_id="bench", start=YEAR[0], end=YEAR[1])
    raw = run(inputs, product=product(), env=environment(home, "sail")).raw
    assert raw is not None
    return raw


def compute(home: Path, engine: str, start: str) -> dict[str, Any]:
    """Features of every week from `start` on; digest of the last week's."""
    from clearway.infra.datasets import open_dataset
    from clearway.infra.storage import open_storage
    from clearway.preprocess.run import run
    from clearway.preprocess.spec import Inputs

    env = environment(home, engine)
    inputs = Inputs(product="flights", release_id="bench", raw=ingest(home), start=start)
    outputs = run(inputs, product=product(), env=env)
    pieces = open_dataset(open_storage(env.store_root), outputs.dataset).features
    digest = next(p.digest for p in pieces if p.batch_id == WEEK)
    return {"num_rows": outputs.num_rows, "num_batches": outputs.num_batches_computed, "digest": digest}


def replicate(home: Path, num_copies: int) -> dict[str, Any]:
    """Features of `num_copies` copies of the year, counted and summed."""
    from pyspark.sql import functions as F  # noqa: N812

    from clearway.infra.layout import Layout
    from clearway.infra.raw_windows import open_batch, open_window
    from clearway.infra.spark import spark_session
    from clearway.infra.storage import open_storage
    from clearway.preprocess.job import features_of, read_tables
    from clearway.preprocess.plan import needs_of, stretches_of

    env, found = environment(home, "sail"), product()
    storage = open_storage(env.store_root)
    window = open_window(storage, ingest(home))
    batches = {b.batch_id: open_batch(storage, Layout(env.store_root, "flights"), b) for b in window.batches}
    needs = needs_of(found.spec, window.batches, start=found.spec.batch.first, landed=[])
    (stretch,) = stretches_of(found.spec, needs, references=dict.fromkeys(batches, ""))
    with spark_session(env) as session:
        copies = session.range(num_copies).withColumnRenamed("id", "copy")
        tables = read_tables(session, found.spec, stretch, batches=batches)
        for name, columns in NAMES.items():
            renamed = {c: F.concat(F.col(c), F.lit("#"), F.col("copy").cast("string")) for c in columns}
            tables[name] = tables[name].crossJoin(copies).withColumns(renamed).drop("copy")
        tables["rows"] = tables["flights"]
        sums = [F.sum(name).alias(name) for name in found.spec.features.numeric]
        (row,) = features_of(found, tables).agg(F.count("*").alias("num_rows"), *sums).toArrow().to_pylist()
    return {"num_rows": row["num_rows"], "checksum": row["origin_count_24h"]}


def measured(*arguments: str) -> dict[str, Any]:
    """Run one job in its own process; its result with wall and CPU seconds and peak memory in MB."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    done = subprocess.run(
        [sys.executable, __file__, "job", *arguments], capture_output=True, text=True, check=False, timeout=3600
    )
    if done.returncode:
        raise RuntimeError(done.stderr[-3000:])
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    result: dict[str, Any] = json.loads(done.stdout)
    return {**result, "cpu_s": round(cpu_s, 2), "wall_s": round(time.monotonic() - started, 2)}


def job(kind: str, home: str, argument: str, start: str = "") -> dict[str, Any]:
    """What a measured process does."""
    result = replicate(Path(home), int(argument)) if kind == "replicate" else compute(Path(home), argument, start)
    return {**result, "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024}


def week(engine: str = "sail") -> None:
    """One week against the year: equal digests first, then the ratio of CPU seconds."""
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as all_:
        for home in (one, all_):
            ingest(Path(home))
        year = measured("compute", all_, engine, YEAR[0])
        alone = measured("compute", one, engine, WEEK)
    if year["digest"] != alone["digest"]:
        raise AssertionError(f"features of {WEEK} differ: {year['digest']} in the year, {alone['digest']} alone")
    show({"year": year, "week": alone, "ratio_cpu": round(year["cpu_s"] / alone["cpu_s"], 1)})


def slope(*copies: str) -> None:
    """Cost per million rows; flat means linear."""
    with tempfile.TemporaryDirectory() as home:
        ingest(Path(home))
        for num_copies in copies or ("1", "3", "9"):
            found = measured("replicate", home, num_copies)
            show({**found, "cpu_s_per_million_rows": round(found["cpu_s"] / found["num_rows"] * 1e6, 1)})


def show(result: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(result) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    verb, *words = sys.argv[1:] or ["week"]
    if verb == "job":
        show(job(*words))
    else:
        {"week": week, "slope": slope}[verb](*words)
