"""Failed and wrongly answered requests while versions are killed, switched and rolled back under open-loop load.

    python tests/benchmarks/bench_switch.py kill [--times 500] [--rate 300]
    python tests/benchmarks/bench_switch.py switch [--times 1000] [--requests 1000000] [--rate 0] [--tally FILE]
    python tests/benchmarks/bench_switch.py rollback [--times 200] [--rate 300]

A real server process; requests are due at fixed times whatever the server does, and their time counts from then. Each
answer is checked: status 200, the score that its digest's model gives, and a digest that could serve at that time.

kill      A candidate takes half of the traffic in a process of its own, which is killed with SIGKILL at a random
          moment; then it is loaded again. Time: from the kill to a traffic table without it, as an admin call sees it.
switch    All traffic goes back and forth between two versions. `--rate 0`: half of what a closed loop of 16 connections
          reaches first, with the server on one core and the load on the other. `--tally` adds up the counts of several
          runs, so that a million requests can be sent in pieces.
rollback  All traffic goes back from a version to the one before. Time: from the call to its return; no request sent
          later is answered by the version that lost the traffic.

The result is one line of JSON.
"""

import argparse
import contextlib
import json
import os
import random
import signal
import sys
import tempfile
import threading
import time
from array import array
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import psutil
from raw_load import closed_loop, open_loop, pin

from clearway.contracts.refs import ModelRef
from clearway.infra.endpoint.local import LocalEndpoint
from clearway.infra.environment import Environment
from serving_kit import ROW, ServerProcess, client_of, environment_at, expected_score, free_port, make_package
from serving_kit import running_server as running

BIASES = (0.1, 0.9)
NUM_CONNECTIONS = 16  # of the closed loop
MAX_CONNECTIONS = 64  # of the open one; more due requests than that wait, and their time runs
CAPACITY_S = 3.0
DEADLINE_S = 20.0


class Load:
    """Requests due at fixed times, and what became of them."""

    def __init__(self, env: Environment, refs: list[ModelRef], *, rate: float) -> None:
        self.port, self.rate = port_of(env), rate
        self.scores = {ref.digest: expected_score(bias, ROW) for ref, bias in zip(refs, BIASES, strict=True)}
        self.digests = [ref.digest for ref in refs]
        self.failures: list[str] = []
        self.late_s, self.asked_s, self.answered_s = array("d"), array("d"), array("d")
        self.served = array("b")  # index of the digest that answered, -1 for none
        self.stop = threading.Event()
        self.cpu_s = 0.0
        self._known: dict[bytes, int] = {}

    def run(self) -> None:
        """Until `stop` is set."""
        began = time.thread_time()
        try:
            open_loop(
                self.port,
                request_bytes(),
                rate=self.rate,
                number=MAX_CONNECTIONS,
                is_over=self.stop.is_set,
                answered=self._check,
            )
        except (OSError, RuntimeError) as error:
            self.failures.append(repr(error))
        self.cpu_s = time.thread_time() - began

    def _check(self, due_s: float, asked_s: float, answered_s: float, status: int, body: bytes) -> None:
        index = self._known.get(body, -1) if status == 200 else -1
        if index < 0:
            index = self._read(status, body)
        self.late_s.append(answered_s - due_s)
        self.asked_s.append(asked_s)
        self.answered_s.append(answered_s)
        self.served.append(index)

    def _read(self, status: int, body: bytes) -> int:
        """Of an answer in bytes that were not seen before: who gave it, and whether it is right."""
        answer = json.loads(body)
        digest = answer.get("model_digest", "")
        if status != 200 or abs(answer["predictions"][0] - self.scores[digest]) > 1e-6:
            self.failures.append(f"{status}: {json.dumps(answer)[:200]}")
            return -1
        index = self._known[body] = self.digests.index(digest)
        return index

    def figures(self) -> dict[str, Any]:
        """Counts and latencies so far."""
        late_s = self.late_s[:]  # one that numpy looks at cannot grow, and the load still adds to its own
        p50, p99 = np.quantile(late_s, (0.5, 0.99)) * 1e3
        return {
            "requests": len(late_s),
            "failed": len(self.failures),
            "first_failure": self.failures[0] if self.failures else "",
            "requests_s": round(self.rate),
            "p50_ms": round(float(p50), 2),
            "p99_ms": round(float(p99), 2),
            "generator_us": round(self.cpu_s / len(late_s) * 1e6, 1),
        }


def port_of(env: Environment) -> int:
    """The server's."""
    return int(env.endpoint.url.rpartition(":")[2])


def request_bytes() -> bytes:
    """The one request that is sent."""
    body = json.dumps({"instances": [ROW]}).encode()
    head = f"host: x\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    return b"POST /invocations HTTP/1.1\r\n" + head.encode() + body


def kill(client: LocalEndpoint, server: ServerProcess, refs: list[ModelRef], load: Load, times: int) -> list[float]:
    """Seconds from each kill to a table without the candidate."""
    stable, candidate = refs
    source, took_s = random.Random(0), list[float]()  # noqa: S311
    for number in range(times):
        client.load(uri=candidate.uri, digest=candidate.digest, epoch=1)
        client.set_weights({candidate.digest: 50.0, stable.digest: 50.0}, epoch=1)
        num_before = len(load.served)
        wait_until(lambda n=num_before: 1 in load.served[n:])
        time.sleep(source.random() * 0.02)
        began = time.monotonic()
        os.kill(candidate_pid(server), signal.SIGKILL)
        wait_until(lambda: client.state().weights_pct == {stable.digest: 100.0})
        took_s.append(time.monotonic() - began)
        if (number + 1) % 50 == 0:
            print(json.dumps({"kills": number + 1, **load.figures()}), file=sys.stderr)  # noqa: T201
    return took_s


def switch(client: LocalEndpoint, refs: list[ModelRef], load: Load, times: int, requests: int) -> list[float]:
    """Seconds per switch; the switches are spread over the requests. Wrong answers become failures."""
    took_s, switches = list[float](), [(time.monotonic(), time.monotonic(), refs[0].digest)]
    for number in range(times):
        wait_until(lambda n=number: len(load.served) >= requests * (n + 1) // (times + 1), timeout_s=1200)
        digest, began = refs[(number + 1) % 2].digest, time.monotonic()
        client.set_weights({digest: 100.0}, epoch=1)
        switches.append((began, time.monotonic(), digest))
        took_s.append(switches[-1][1] - began)
    wait_until(lambda: len(load.served) >= requests, timeout_s=1200)
    load.stop.set()
    calls, returns = np.array([s[0] for s in switches]), np.array([s[1] for s in switches])
    for asked, answered, index in zip(load.asked_s, load.answered_s, load.served, strict=True):
        # A table counts from its own call until the return of the next switch.
        first = max(int(np.searchsorted(returns, asked, side="right")) - 1, 0)
        last = int(np.searchsorted(calls, answered, side="right"))
        if index >= 0 and refs[index].digest not in {switches[i][2] for i in range(first, last)}:
            load.failures.append(f"answered by {refs[index].digest}, which did not serve then")
    return took_s


def rollback(client: LocalEndpoint, refs: list[ModelRef], load: Load, times: int) -> list[float]:
    """Seconds from the order to its return; later requests by the version that lost the traffic are failures."""
    took_s, since = list[float](), list[tuple[float, float]]()
    for _ in range(times):
        client.set_weights({refs[1].digest: 100.0}, epoch=1)
        time.sleep(0.1)
        began = time.monotonic()
        client.set_weights({refs[0].digest: 100.0}, epoch=1)
        ended = time.monotonic()
        took_s.append(ended - began)
        time.sleep(0.1)
        since.append((ended, time.monotonic()))
    load.stop.set()
    asked, answered, served = (np.array(values) for values in (load.asked_s, load.answered_s, load.served))
    for begin, end in since:
        if ((begin < asked) & (answered < end) & (served == 1)).any():
            load.failures.append("a request sent after the rollback was answered by the version that lost the traffic")
    return took_s


def candidate_pid(server: ServerProcess) -> int:
    """The process of the one candidate there is."""
    for process in psutil.Process(server.process.pid).children():
        with contextlib.suppress(psutil.NoSuchProcess):
            if process.status() != psutil.STATUS_ZOMBIE and "clearway.serve.candidate" in process.cmdline():
                return process.pid
    raise RuntimeError("the server has no candidate process")


def wait_until(is_so: Callable[[], bool], *, timeout_s: float = DEADLINE_S) -> None:
    """Look every millisecond."""
    deadline = time.monotonic() + timeout_s
    while not is_so():
        if time.monotonic() > deadline:
            raise RuntimeError(f"nothing happened in {timeout_s} s")
        time.sleep(0.001)


def capacity(env: Environment, server: ServerProcess) -> tuple[float, float]:
    """Requests a second of a closed loop, and the share of its core that the server took: near 1, it is the limit."""
    process = psutil.Process(server.process.pid)
    before = sum(process.cpu_times()[:2])
    durations = closed_loop(port_of(env), [request_bytes()] * NUM_CONNECTIONS, seconds=CAPACITY_S)
    return len(durations) / CAPACITY_S, (sum(process.cpu_times()[:2]) - before) / CAPACITY_S


def add_up(file: Path, figures: dict[str, Any]) -> dict[str, Any]:
    """This run's counts and those of the runs before it."""
    names = ("times", "requests", "failed")
    before = json.loads(file.read_text()) if file.exists() else dict.fromkeys(("runs", *names), 0)
    total = {"runs": before["runs"] + 1} | {name: before[name] + figures[name] for name in names}
    file.write_text(json.dumps(total))
    return total


def main() -> None:
    """Run one of the three."""
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=("kill", "switch", "rollback"))
    parser.add_argument("--times", type=int)
    parser.add_argument("--requests", type=int, default=1_000_000)
    parser.add_argument("--rate", type=float, default=300.0)
    parser.add_argument("--tally", type=Path, help="file that adds up the counts of several runs")
    chosen = parser.parse_args()
    times = chosen.times or {"kill": 500, "switch": 1_000, "rollback": 200}[chosen.what]
    with tempfile.TemporaryDirectory(prefix="bench-switch-") as folder:
        values = {"CLEARWAY__HOME": f"{folder}/home", "CLEARWAY__STORAGE__ROOT": Path(folder, "store").as_uri()}
        env = environment_at(Environment.load(values), free_port())
        refs = [make_package(env, bias) for bias in BIASES]
        with running(env) as server:
            client = client_of(env)
            for ref in refs if chosen.what != "kill" else refs[:1]:
                client.load(uri=ref.uri, digest=ref.digest, epoch=1)
            for ref in reversed(refs if chosen.what != "kill" else refs[:1]):  # both have held all traffic
                client.set_weights({ref.digest: 100.0}, epoch=1)
            pin(server.process.pid, 0)
            if (os.cpu_count() or 1) >= 2:
                os.sched_setaffinity(0, {1})
            found = {}
            if not chosen.rate:
                reached, share = capacity(env, server)
                found = {"capacity_requests_s": round(reached), "server_share_at_capacity": round(share, 2)}
            load = Load(env, refs, rate=chosen.rate or reached / 2)
            thread = threading.Thread(target=load.run)
            thread.start()
            try:
                if chosen.what == "kill":
                    took_s = kill(client, server, refs, load, times)
                elif chosen.what == "switch":
                    took_s = switch(client, refs, load, times, chosen.requests)
                else:
                    took_s = rollback(client, refs, load, times)
            finally:
                load.stop.set()
                thread.join()
    p50, p99 = np.quantile(took_s, (0.5, 0.99)) * 1e3
    figures = {"times": len(took_s), "took_p50_ms": round(float(p50), 1), "took_p99_ms": round(float(p99), 1)}
    figures["took_max_ms"] = round(max(took_s) * 1e3, 1)
    figures |= found | load.figures()
    if chosen.tally:
        figures["in_all"] = add_up(chosen.tally, figures)
    print(json.dumps({"what": chosen.what} | figures))  # noqa: T201


if __name__ == "__main__":
    main()
