"""The package as it will run: one real server process answers the golden rows, and one row is timed.

The server is a child with a home of its own, so it shares nothing with the one that serves: no state, no token, no log.
"""

import contextlib
import logging
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from clearway.contracts.errors import ClearwayError, Unavailable
from clearway.contracts.refs import ModelRef
from clearway.contracts.verdict import Check, Verdict, at_most
from clearway.infra.clock import Clock
from clearway.infra.endpoint.local import LocalEndpoint
from clearway.infra.environment import Environment
from clearway.kinds.scorers import open_scorer
from clearway.packaging.package import Package

LOG = logging.getLogger("clearway.evaluate")
START_S = 60.0
POLL_S = 0.1
STOP_S = 15.0
# Scores travel as float32; the same graph in another batch shape may add in another order.
GOLDEN_TOLERANCE = 1e-6
NUM_TIMED = 500
NUM_WARM_UP = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """One row through encoder and model inside this process, milliseconds.

    Args:
        p50_ms, p99_ms: of the thread's own CPU time: what an idle core would take. Neighbours on a shared machine
            lengthen the wall clock tenfold and say nothing about the model.
        wall_p99_ms: of the wall clock, for comparison.
    """

    p50_ms: float
    p99_ms: float
    wall_p99_ms: float
    num_calls: int


def time_single_rows(package: Package) -> Latency:
    """Warm single-row latency over the golden rows, encoder included, one thread."""
    scorer = open_scorer(package)
    rows = package.golden["rows"]
    clocks_s = []
    for i in range(NUM_WARM_UP + NUM_TIMED + 1):
        clocks_s.append((time.thread_time(), time.perf_counter()))
        scorer.score_rows([rows[i % len(rows)]])
    taken_ms = np.diff(np.asarray(clocks_s), axis=0)[NUM_WARM_UP:] * 1000.0
    p50, p99 = np.quantile(taken_ms[:, 0], [0.5, 0.99])
    wall_p99 = float(np.quantile(taken_ms[:, 1], 0.99))
    return Latency(p50_ms=float(p50), p99_ms=float(p99), wall_p99_ms=wall_p99, num_calls=NUM_TIMED)


def latency_check(latency: Latency, *, limit_ms: float) -> Check:
    """The verdict only: the figures differ from run to run and stay out of the evaluation's digest."""
    within = at_most("latency", latency.p99_ms, limit_ms)
    holds = "within" if within.verdict is Verdict.PASS else "not within"
    reason = f"p99 of one row (CPU time) is {holds} {limit_ms:g} ms; the figures are in timings.json"
    return Check(name="latency", verdict=within.verdict, bound=limit_ms, reason=reason)


def golden_check(package: Package, answered: list[float], digest: str) -> Check:
    """The server's answers against the scores that training wrote into the package."""
    expected = np.asarray(package.golden["scores"], dtype=np.float64)
    found = np.asarray(answered, dtype=np.float64)
    if digest != package.digest or found.shape != expected.shape:
        reason = f"server answered {found.size} of {expected.size} rows with model {digest}, expected {package.digest}"
        return Check(name="golden_in_server", verdict=Verdict.FAIL, reason=reason)
    largest = float(np.abs(found - expected).max())
    reason = f"{expected.size} golden rows through a real server process"
    check = at_most("golden_in_server", largest, GOLDEN_TOLERANCE, reason=reason)
    return Check(
        name=check.name, verdict=check.verdict, bound=GOLDEN_TOLERANCE, reason=f"{reason}: {check.verdict.value}"
    )


@contextlib.contextmanager
def model_server(env: Environment, *, product: str, clock: Clock) -> Iterator[Callable[[], LocalEndpoint]]:
    """A model server on a free port, stopped on leaving. It starts by itself meanwhile; the call that is yielded waits.

    Raises: that call raises Unavailable if the server does not come up.
    """
    with tempfile.TemporaryDirectory(prefix="clearway-smoke-") as scratch:
        home, port = Path(scratch), _free_port()
        shutil.copytree(env.home / "keys", home / "keys", ignore=shutil.ignore_patterns("*.key"))
        variables = {
            **os.environ,
            "CLEARWAY_ENV": env.name,
            "CLEARWAY__HOME": str(home),
            "CLEARWAY__STORAGE__ROOT": env.store_root,
            "CLEARWAY__ENDPOINT__ADMIN_TOKEN_FILE": "",
        }
        command = [sys.executable, "-m", "clearway.serve", "--product", product, "--port", str(port), "--until-eof"]
        with (home / "server.log").open("wb") as log:
            child = subprocess.Popen(  # noqa: S603 - our own interpreter
                command, env=variables, stdin=subprocess.PIPE, stdout=log, stderr=log
            )
        try:
            token = home / "serving" / "admin.token"
            url = f"http://127.0.0.1:{port}"
            endpoint = LocalEndpoint(url, product=product, token_file=token, timeout_s=env.endpoint.timeout_s)

            def ready() -> LocalEndpoint:
                _wait_until_up(endpoint, child, log=home / "server.log", clock=clock)
                return endpoint

            yield ready
        finally:
            _stop(child)


def smoke(endpoint: LocalEndpoint, model: ModelRef, package: Package) -> Check:
    """Load, take all traffic, answer the golden rows; a refusal is the model's failure, silence is not."""
    try:
        endpoint.load(uri=model.uri, digest=model.digest, epoch=1)
        endpoint.set_weights({model.digest: 100.0}, epoch=1)
        answered, digest = endpoint.predict(package.golden["rows"])
    except Unavailable:
        raise
    except ClearwayError as error:
        return Check(name="golden_in_server", verdict=Verdict.FAIL, reason=f"the server refused the package: {error}")
    return golden_check(package, answered, digest)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_until_up(endpoint: LocalEndpoint, child: subprocess.Popen[bytes], *, log: Path, clock: Clock) -> None:
    deadline_s = clock.now_s() + START_S
    while child.poll() is None and clock.now_s() < deadline_s:
        try:
            endpoint.state()
        except Unavailable:
            clock.sleep(POLL_S)
            continue
        return
    tail = log.read_text(encoding="utf-8", errors="replace")[-2000:]
    raise Unavailable(
        f"model server did not come up within {START_S:.0f} s, exit code {child.poll()}; its log ends: {tail}"
    )


def _stop(child: subprocess.Popen[bytes]) -> None:
    child.terminate()
    try:
        child.wait(timeout=STOP_S)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
    if child.stdin:
        child.stdin.close()
