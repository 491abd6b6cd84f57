"""From a verdict to 0 % traffic, end to end, with everything but the release store and the model server taken away.

    python tests/benchmarks/bench_rollback.py [--times 200] [--rate 300]

A real server process under open-loop load, and a canary at half of the callers, looked at four times a second, so that
the next one comes sooner. The candidate has no score for half of the rows: evidence convicts it within some looks.
Time: from the moment the driver has the FAIL verdict (before it stores anything) to the last answer that any caller got
from the candidate; and to the return of the call that sets the traffic. Before the verdict storage is taken away: the
store's folder is replaced by a file, which no reader and no writer gets past. There is no MLflow and no Airflow, and
nobody reads metrics. A request that fails, or that the candidate answers after the call has returned, counts as failed.
One line of JSON.
"""

import argparse
import contextlib
import json
import logging
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from clearway.contracts.refs import ModelRef
from clearway.contracts.release_document import Outcome, ReleaseDocument
from clearway.deploy import drive, gathering, machine
from clearway.deploy.run import deploy
from clearway.deploy.strategies import begin
from clearway.infra.clock import SystemClock
from clearway.infra.endpoint.local import LocalEndpoint
from clearway.infra.environment import Environment
from clearway.infra.storage import to_path
from crowd_kit import Crowd
from live_rollout_kit import PLANS, POLL_S, failing_onnx
from serving_kit import (
    PRODUCT,
    approved,
    client_of,
    controls_of,
    environment_at,
    free_port,
    make_package,
    running_server,
)


class Stopwatch:
    """Listens to the driver in this process: when it had the verdict, and when the traffic was set back."""

    def __init__(self, store: Path) -> None:
        self.verdict_s = self.set_s = 0.0
        self._store = store

    @contextlib.contextmanager
    def running(self, endpoint: LocalEndpoint) -> Iterator[None]:
        decide, set_weights = machine.step, endpoint.set_weights

        def step(document: ReleaseDocument, *values: Any, **words: Any) -> Any:
            found = decide(document, *values, **words)
            if (document.phase.value, found.document.phase.value) == ("deploying", "aborting"):
                self.take_away()
                self.verdict_s = time.monotonic()
            return found

        def set_back(weights_pct: dict[str, float], **words: Any) -> None:
            set_weights(weights_pct, **words)
            self.set_s = time.monotonic()

        drive.machine.step, endpoint.set_weights = step, set_back  # type: ignore[assignment, method-assign]
        try:
            yield
        finally:
            drive.machine.step, endpoint.set_weights = decide, set_weights  # type: ignore[assignment, method-assign]

    def take_away(self) -> None:
        """Nothing of the store can be read or written from here on, by root neither."""
        self._store.rename(self._store.with_name("away"))
        self._store.touch()

    def bring_back(self) -> None:
        self._store.unlink()
        self._store.with_name("away").rename(self._store)


def measure(env: Environment, crowd: Crowd, times: int) -> dict[str, Any]:
    """That many canaries, each convicted and taken back."""
    machine.POLL_S = gathering.POLL_S = POLL_S
    endpoint, store = client_of(env), to_path(env.store_root)
    controls = controls_of(env, endpoint, clock=SystemClock(), lease_ttl_s=30.0)
    plan, to_last_ms, to_set_ms, failed = begin(PLANS["canary"]), list[float](), list[float](), list[str]()

    def release(ref: ModelRef, name: str) -> None:
        deploy(approved(env, ref, name), controls=controls, project=lambda _: None, rollout=plan)

    def made(number: int, *, is_bad: bool) -> ModelRef:
        bias = 0.1 + number * 1e-4
        ref = make_package(env, bias, model=failing_onnx(bias) if is_bad else b"")
        crowd.biases[ref.digest] = bias
        return ref

    release(made(0, is_bad=False), "base")
    with crowd.asking():
        for number in range(1, times + 1):
            ref, watch, first = made(number, is_bad=True), Stopwatch(store), len(crowd.answers)
            inputs = approved(env, ref, f"bad-{number}")
            with watch.running(endpoint):
                deploy(inputs, controls=controls, project=lambda _: None, rollout=plan)
            crowd.wait_for(30)
            watch.bring_back()
            answers = crowd.answers[first:]
            last_s = max(a.answered_s for a in answers if a.digest == ref.digest)
            to_last_ms.append((last_s - watch.verdict_s) * 1e3)
            to_set_ms.append((watch.set_s - watch.verdict_s) * 1e3)
            failed += [a.why for a in answers if a.why]
            failed += ["late" for a in answers if a.digest == ref.digest and a.asked_s > watch.set_s]
            ending = controls.store.read(PRODUCT)[0].history[-1]
            failed += [] if (ending.release_id, ending.outcome) == (f"bad-{number}", Outcome.ABORTED) else [str(ending)]
    quantiles = {
        name: [round(float(x), 1) for x in np.quantile(values, (0.5, 0.99, 1.0))]
        for name, values in (("last_answer_ms", to_last_ms), ("traffic_set_ms", to_set_ms))
    }
    worst = {"worst_last_answer_ms": [round(x, 1) for x in sorted(to_last_ms)[-5:]]}
    return {
        "times": times,
        **quantiles,
        **worst,
        "requests": len(crowd.answers),
        "failed": len(failed),
        "first": failed[:1],
    }


def main() -> int:
    """Measure and say; 0 if no request failed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--times", type=int, default=200)
    parser.add_argument("--rate", type=float, default=300.0)
    chosen = parser.parse_args()
    logging.getLogger("clearway.deploy").setLevel(logging.ERROR)  # that storage is away, it says every time
    with tempfile.TemporaryDirectory(prefix="bench-rollback-") as folder:
        values = {"CLEARWAY__HOME": f"{folder}/home", "CLEARWAY__STORAGE__ROOT": Path(folder, "store").as_uri()}
        env = environment_at(Environment.load(values), free_port())
        with running_server(env):
            found = measure(env, Crowd(env, rate_per_s=chosen.rate), chosen.times)
    print(json.dumps({"what": "verdict to 0 %", "requests_s": chosen.rate} | found))  # noqa: T201
    return int(found["failed"] > 0)


if __name__ == "__main__":
    sys.exit(main())
