"""NaN, null and infinity mean the same on Sail and on JVM Spark, in everything that features are made of.

Two functions do not (see DIFFERENT), so no feature uses them. One process per engine for the whole module (a process
uses one engine only), fed by Hypothesis with small frames.
"""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

pytestmark = pytest.mark.slow
# One frame costs both engines about a second; the explicit examples below hold every kind of value in any case.
NUM_EXAMPLES = 8
START_TIMEOUT_S = 120
# Reads a folder with rows.parquet and events.parquet per line of stdin; answers with one line of JSON.
ENGINE = """
import json, sys
from pathlib import Path
from clearway.infra.environment import Environment, Spark
from clearway.infra.spark import spark_session

def columns():
    from pyspark.sql import functions as F
    from clearway.preprocess.history import ratio, seconds
    from clearway.preprocess.text import tokens_of
    x, y = F.col("x"), F.col("y")
    return {
        "at_s": seconds("time"),
        "ratio": ratio(x, y),
        "ratio_of_counts": ratio(F.col("n"), F.col("n") - 1),
        "difference": x - y,
        "is_more": (x > y).cast("int"),
        "is_wet": (x > 0).cast("int"),
        "branch": F.when(x <= 3, y).otherwise(-x),
        "least": F.least(x, y),
        "greatest": F.greatest(x, y),
        "filled": F.coalesce(x, y),
        "size": F.abs(x),
        "rounded": F.round(x * 10),
        "floored": F.floor(F.when(F.abs(x) < 1e6, x)).cast("long"),
        "turned": F.pmod(F.col("n"), F.lit(7)),
        "isnan": F.isnan(x).cast("int"),
        "is_same": x.eqNullSafe(y).cast("int"),
        "tokens": F.hex(tokens_of("group")),
        "is_group": F.col("group").isNotNull().cast("int"),
    }

def made(rows, events):
    from pyspark.sql import functions as F
    from clearway.preprocess.history import latest_time, trailing
    windows = {"tally": [1, 24], "tenths": [24]}
    past = trailing(rows, events, by=["group"], windows=windows, levels=["tally"], newest=["top"])
    by_number = trailing(rows, events, by=["x"], windows={"tally": [24]})
    fresh = latest_time(rows.select("id", "at", "group"), events.select("group", "when"), by=["group"], tolerance_h=5)
    totals = events.groupBy("group").agg(
        F.max("x").alias("max"), F.count("x").alias("num_x"), F.count(F.lit(1)).alias("num_events")
    )
    one = rows.withColumns(columns()).join(past, "id", "left")
    two = one.join(by_number.withColumnRenamed("tally_24h", "by_number"), "id", "left")
    three = two.join(fresh.withColumnRenamed("when", "fresh"), "id", "left")
    return three.join(totals, "group", "left").drop("time")

def text(value):
    # Adding zero takes the sign off a zero: the engines keep it in other places (round, least, greatest).
    return repr(value + 0.0 if isinstance(value, float) else value)

def main(engine, home):
    env = Environment(home=Path(home), spark=Spark(engine=engine))
    with spark_session(env) as session:
        print("ready", flush=True)
        for line in sys.stdin:
            frames = [session.read.parquet(f"{line.strip()}/{name}.parquet") for name in ("rows", "events")]
            try:
                found = sorted((r.asDict() for r in made(*frames).collect()), key=lambda r: r["id"])
                answer = [{k: text(v) for k, v in sorted(r.items())} for r in found]
            except Exception as error:
                answer = f"{type(error).__name__}: {str(error)[:300]}"
            print(json.dumps(answer), flush=True)

main(*sys.argv[1:])
"""
START = datetime(2013, 1, 7, tzinfo=UTC)
NUMBERS = st.one_of(
    st.none(),
    st.sampled_from([float("nan"), float("inf"), float("-inf"), 0.0, -0.0, 0.25, -2.5]),
    st.floats(-1e4, 1e4, width=16),
)
COUNTS = st.one_of(st.none(), st.integers(-3, 400))
GROUPS = st.sampled_from([None, "", "a", "NaN", "$1 -- naïve 🙂"])
HOURS = st.one_of(st.none(), st.integers(0, 48))
ROW = st.fixed_dictionaries({"hour": st.integers(0, 48), "group": GROUPS, "x": NUMBERS, "y": NUMBERS, "n": COUNTS})
EVENT = st.fixed_dictionaries(
    {"hour": HOURS, "group": GROUPS, "x": NUMBERS, "tally": COUNTS, "tenths": COUNTS, "top": COUNTS}
)
NAN, INF = float("nan"), float("inf")
ODD = [None, NAN, INF, -INF, 0.0, -0.0, 1.5]
EVERY_PAIR = [
    {"hour": i, "group": "a", "x": x, "y": y, "n": i} for i, (x, y) in enumerate((x, y) for x in ODD for y in ODD)
]
EVERY_EVENT = [
    {"hour": hour, "group": group, "x": x, "tally": tally, "tenths": None, "top": tally}
    for hour, group, x, tally in zip(
        [None, *range(6)] * 2, [None, "", "a"] * 5, ODD * 2, [None, 3, -1, 7] * 4, strict=False
    )
]


# isnan(null) is null on Sail and false on Spark; the largest of some floats leaves NaN out on Sail and is NaN on Spark.
DIFFERENT = {"isnan", "max"}


class Engine:
    """A process with a session of one engine."""

    def __init__(self, name: str, home: Path) -> None:
        self._log = (home.parent / f"{name}.log").open("w")
        self.process = subprocess.Popen(
            [sys.executable, "-c", ENGINE, name, str(home)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env=os.environ | {"PYTHONWARNINGS": "ignore"},
        )

    def answer(self) -> str:
        """The next line it prints; a dead engine prints none."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline().strip()
        assert line, f"the engine ended with {self.process.wait(10)}"
        return line

    def ask(self, folder: Path) -> None:
        """Start on a folder."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{folder}\n")
        self.process.stdin.flush()

    def end(self) -> None:
        """Let it close its session."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(START_TIMEOUT_S)
        assert self.process.stdout is not None
        self.process.stdout.close()
        self._log.close()


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Engine]]:
    """Both, started at once."""
    found = {name: Engine(name, tmp_path_factory.mktemp(name) / "home") for name in ("sail", "jvm")}
    try:
        for engine in found.values():
            assert engine.answer() == "ready"
        yield found
    finally:
        for engine in found.values():
            engine.end()


def _write(folder: Path, rows: list[dict[str, Any]], events: list[dict[str, Any]]) -> None:
    def instant(hour: int | None) -> datetime | None:
        return None if hour is None else START + timedelta(hours=hour)

    def second(hour: int | None) -> int | None:
        return None if hour is None else int(START.timestamp()) + 3600 * hour

    kinds = {"group": pa.string(), "x": pa.float64(), "y": pa.float64()} | dict.fromkeys(
        ("n", "tally", "tenths", "top"), pa.int64()
    )
    for name, lines, extra in (("rows", rows, ("y", "n")), ("events", events, ("tally", "tenths", "top"))):
        table = pa.table({c: pa.array([r[c] for r in lines], kinds[c]) for c in ("group", "x", *extra)})
        hours = [r["hour"] for r in lines]
        known = pa.array([second(h) for h in hours], pa.int64())
        if name == "rows":
            table = table.append_column("id", pa.array([f"{i:04}" for i in range(len(lines))])).append_column(
                "at", known
            )
            table = table.append_column("time", pa.array([instant(h) for h in hours], pa.timestamp("us", tz="UTC")))
        else:
            table = table.append_column("when", known)
        pq.write_table(table, folder / f"{name}.parquet")


@settings(
    max_examples=NUM_EXAMPLES,
    deadline=None,
    derandomize=True,
    phases=(Phase.explicit, Phase.generate),
    suppress_health_check=list(HealthCheck),
)
@example(rows=EVERY_PAIR, events=EVERY_EVENT)
@example(rows=EVERY_PAIR[:3], events=EVERY_EVENT[:1])
@given(rows=st.lists(ROW, min_size=1, max_size=12), events=st.lists(EVENT, min_size=1, max_size=12))
def test_both_engines_read_nothing_the_same_way(
    engines: dict[str, Engine],
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[dict[str, Any]],
    events: list[dict[str, Any]],
) -> None:
    sail, jvm = _both(engines, tmp_path_factory.mktemp("frames"), rows, events)
    different = [
        (column, row["id"], row[column], other[column], rows[int(row["id"].strip("'"))])
        for row, other in zip(sail, jvm, strict=True)
        for column in sorted(other.keys() - DIFFERENT)
        if row[column] != other[column]
    ]
    assert different == [], "column, row, Sail, JVM Spark, input"


def test_where_the_engines_differ_no_feature_goes(engines: dict[str, Engine], tmp_path: Path) -> None:
    """Pinned, so that the day an engine changes is noticed; and unused by every product and building block here."""
    sail, jvm = _both(engines, tmp_path, EVERY_PAIR, EVERY_EVENT)
    is_null = [r["x"] is None for r in EVERY_PAIR]
    assert {(s["isnan"], j["isnan"]) for s, j, null in zip(sail, jvm, is_null, strict=True) if null} == {("None", "0")}
    assert {s["isnan"] == j["isnan"] for s, j, null in zip(sail, jvm, is_null, strict=True) if not null} == {True}
    # The largest of 0.0 and NaN: Spark holds NaN for the largest number of all, Sail leaves it out.
    assert {(s["max"], j["max"]) for s, j in zip(sail, jvm, strict=True)} == {("0.0", "nan")}
    root = Path(__file__).parents[2]
    files = [*root.glob("include/products/*/*.py"), *root.glob("tests/products/*/*.py")]
    files += [*(root / "include" / "clearway" / "preprocess").glob("*.py")]
    assert len(files) > 4
    used = {f.name for f in files if re.search(r"\bF\.(isnan|nanvl)\b", f.read_text(encoding="utf-8"))}
    assert used == set(), "tell NaN from null before the engine does: ingest and tidy() know no NaN"


def _both(
    engines: dict[str, Engine], folder: Path, rows: list[dict[str, Any]], events: list[dict[str, Any]]
) -> tuple[list[dict[str, str]], list[dict[str, str]]]:
    """What Sail and JVM Spark make of the frames, a line per row in the order of `rows`."""
    _write(folder, rows, events)
    for engine in engines.values():
        engine.ask(folder)
    sail, jvm = (json.loads(engines[name].answer()) for name in ("sail", "jvm"))
    assert isinstance(jvm, list), jvm
    assert isinstance(sail, list), sail
    assert len(sail) == len(jvm) == len(rows)
    return sail, jvm
