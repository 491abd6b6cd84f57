"""Real, tiny model packages and real server processes for the tests of serving and deploying."""

import asyncio
import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
from onnx import TensorProto, helper

from clearway.contracts.codec import from_jsonable, to_jsonable
from clearway.contracts.errors import ConfigError, DataError, Unavailable
from clearway.contracts.observed import Mirrored, Observed
from clearway.contracts.refs import ModelRef
from clearway.deploy.controls import Controls
from clearway.deploy.spec import Inputs, Outputs
from clearway.infra.approvals import Approval, Decision, record_approval
from clearway.infra.clock import Clock, SystemClock
from clearway.infra.endpoint import DeadMan, LoggedRows, Mirror, TrafficState
from clearway.infra.endpoint.local import LocalEndpoint
from clearway.infra.environment import Environment
from clearway.infra.layout import Layout
from clearway.infra.release_store import open_release_store
from clearway.infra.storage import open_storage
from clearway.packaging.encoder import Encoder, RowError
from clearway.packaging.package import PackageContents, write_package
from clearway.serve.process import make_server
from clearway.serve.refusal import Refusal
from clearway.serve.versions import Version

PRODUCT = "flights"
NUMERIC = ("hour", "distance")
CATEGORICAL = ("carrier",)
CARRIERS = ("AA", "DL", "UA")
ROW = {"hour": 7.0, "distance": 500.0, "carrier": "AA"}
START_TIMEOUT_S = 120.0


def linear_onnx(bias: float, *, num_numeric: int, num_categorical: int) -> bytes:
    """score = sigmoid(bias + sum of numbers / 1000 + sum of category indices / 10); a missing number counts as 0."""
    nodes = [
        helper.make_node("IsNaN", ["numeric"], ["missing"]),
        helper.make_node("Where", ["missing", "zero", "numeric"], ["known"]),
        helper.make_node("ReduceSum", ["known", "axis"], ["numbers"], keepdims=0),
        helper.make_node("Cast", ["categorical"], ["indices"], to=TensorProto.FLOAT),
        helper.make_node("ReduceSum", ["indices", "axis"], ["categories"], keepdims=0),
        helper.make_node("Mul", ["numbers", "number_weight"], ["a"]),
        helper.make_node("Mul", ["categories", "category_weight"], ["b"]),
        helper.make_node("Sum", ["a", "b", "bias"], ["logit"]),
        helper.make_node("Sigmoid", ["logit"], ["score"]),
    ]
    scalars = {"zero": 0.0, "number_weight": 1e-3, "category_weight": 0.1, "bias": bias}
    constants = [helper.make_tensor(name, TensorProto.FLOAT, [], [value]) for name, value in scalars.items()]
    constants.append(helper.make_tensor("axis", TensorProto.INT64, [1], [1]))
    inputs = [
        helper.make_tensor_value_info("numeric", TensorProto.FLOAT, ["B", num_numeric]),
        helper.make_tensor_value_info("categorical", TensorProto.INT64, ["B", num_categorical]),
    ]
    outputs = [helper.make_tensor_value_info("score", TensorProto.FLOAT, ["B"])]
    graph = helper.make_graph(nodes, "linear", inputs, outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def expected_score(bias: float, row: dict[str, Any]) -> float:
    """What `linear_onnx(bias)` answers for a row, computed here."""
    numbers = sum(row[name] or 0.0 for name in NUMERIC)
    index = CARRIERS.index(row["carrier"]) + 1 if row["carrier"] in CARRIERS else 0
    return float(1 / (1 + np.exp(-(bias + numbers / 1000 + index / 10))))


def golden_rows() -> list[dict[str, Any]]:
    """Rows that touch a known, an unknown and a missing value."""
    missing = {"hour": None, "distance": 100.0, "carrier": None}
    return [ROW, {"hour": 23.0, "distance": 2000.0, "carrier": "ZZ"}, missing]


def make_package(
    env: Environment,
    bias: float,
    *,
    product: str = PRODUCT,
    golden_shift: float = 0.0,
    model: bytes = b"",
    reference: dict[str, Any] | None = None,
) -> ModelRef:
    """A signed package; another bias is another digest. `golden_shift` makes its golden scores wrong by that much;
    `model` is a graph to use in place of the linear one, `reference` what it carries about its training period."""
    rows = golden_rows()
    contents = PackageContents(
        model=model or linear_onnx(bias, num_numeric=len(NUMERIC), num_categorical=len(CATEGORICAL)),
        weights=b"",
        encoder=Encoder(numeric=NUMERIC, categorical=CATEGORICAL, vocabulary={"carrier": CARRIERS}),
        schema={},
        reference=reference or {},
        golden={"rows": rows, "scores": [expected_score(bias, row) + golden_shift for row in rows]},
        facts={"bias": bias},
    )
    layout = Layout(env.store_root, product)
    return write_package(open_storage(env.store_root), layout, contents, key_folder=env.home / "keys")


def free_port() -> int:
    """A TCP port nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class ServerProcess:
    """One running model server."""

    process: "subprocess.Popen[bytes]"
    url: str
    log_file: Path

    def stop(self, timeout_s: float = 15.0) -> int:
        """SIGTERM, then the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout_s)

    def kill(self) -> None:
        """SIGKILL, as when the machine loses power."""
        self.process.kill()
        self.process.wait(START_TIMEOUT_S)


def environment_at(env: Environment, port: int) -> Environment:
    """The same environment with its endpoint on `port`."""
    endpoint = env.endpoint.model_copy(update={"url": f"http://127.0.0.1:{port}"})
    return env.model_copy(update={"endpoint": endpoint})


def variables_of(env: Environment) -> dict[str, str]:
    """Process variables that give a child the same environment."""
    return {
        **{k: v for k, v in os.environ.items() if not k.startswith("CLEARWAY")},
        "CLEARWAY__HOME": str(env.home),
        "CLEARWAY__STORAGE__ROOT": env.store_root,
        "CLEARWAY__ENDPOINT__URL": env.endpoint.url,
        **({"CLEARWAY__AWS__SIGNING_SECRET": env.aws.signing_secret} if env.aws.signing_secret else {}),
        "OMP_NUM_THREADS": "1",
        **{f"CLEARWAY__SERVING__{k.upper()}": str(v) for k, v in env.serving.model_dump(exclude_defaults=True).items()},
    }


def start_server(env: Environment, *, product: str = PRODUCT) -> ServerProcess:
    """Start the server that `env.endpoint.url` names and wait until it answers."""
    port = int(env.endpoint.url.rpartition(":")[2])
    env.home.mkdir(parents=True, exist_ok=True)
    log_file = env.home / f"server-{port}-{time.monotonic_ns()}.log"
    with log_file.open("wb") as log:
        command = [sys.executable, "-m", "clearway.serve", "--product", product, "--port", str(port)]
        process = subprocess.Popen(command, stdout=log, stderr=log, env=variables_of(env))
    server = ServerProcess(process=process, url=env.endpoint.url, log_file=log_file)
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise AssertionError(f"server ended with {process.returncode}: {log_file.read_text()}")
        with contextlib.suppress(OSError), urllib.request.urlopen(f"{server.url}/healthz", timeout=5):
            return server
        time.sleep(0.02)
    server.kill()
    raise AssertionError(f"server did not answer in {START_TIMEOUT_S} s: {log_file.read_text()}")


@contextlib.contextmanager
def running_server(env: Environment, *, product: str = PRODUCT) -> Iterator[ServerProcess]:
    """A server for the length of a block."""
    server = start_server(env, product=product)
    try:
        yield server
    finally:
        if server.process.poll() is None:
            server.kill()


def client_of(env: Environment, *, product: str = PRODUCT) -> LocalEndpoint:
    """The endpoint client of `env`."""
    return LocalEndpoint(env.endpoint.url, product=product, token_file=env.admin_token_file, timeout_s=60)


@dataclass(frozen=True)
class Answer:
    """What an ASGI app answered."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return msgspec.json.decode(self.body)

    @property
    def code(self) -> str:
        """The error code of a refusal."""
        return str(self.json["error"]["code"])


JSON_HEADERS = ((b"content-type", b"application/json"),)


async def call_async(
    app: Any,
    method: str,
    path: str,
    body: bytes = b"",
    *,
    headers: Sequence[tuple[bytes, bytes]] = JSON_HEADERS,
    parts: Sequence[bytes] | None = None,
    query: bytes = b"",
) -> Answer:
    """One request straight into the app, without a client library that would tidy it up. `parts`: a streamed body."""
    pieces = list(parts) if parts is not None else [body]
    messages = [
        {"type": "http.request", "body": piece, "more_body": i + 1 < len(pieces)} for i, piece in enumerate(pieces)
    ]
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        if messages:
            return messages.pop(0)
        await asyncio.Event().wait()
        raise AssertionError

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "path": path,
        "raw_path": path.encode("utf-8", "replace"),
        "root_path": "",
        "scheme": "http",
        "query_string": query,
        "headers": list(headers),
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 2),
    }
    await app(scope, receive, send)
    data = b"".join(m.get("body", b"") for m in sent if m["type"] == "http.response.body")
    found = {k.decode().lower(): v.decode() for k, v in sent[0]["headers"]}
    return Answer(status=sent[0]["status"], headers=found, body=data)


def call(app: Any, method: str, path: str, body: bytes = b"", **options: Any) -> Answer:
    """`call_async` from a plain test."""
    return asyncio.run(call_async(app, method, path, body, **options))


class InProcessEndpoint:
    """The real server core without sockets, as an Endpoint: fast, and the second implementation under conformance.

    `isolates`: candidates get processes of their own, half a second each, as in the real server.
    """

    def __init__(self, env: Environment, *, product: str = PRODUCT, isolates: bool = False) -> None:
        self.server = make_server(env, product=product, isolates=isolates)
        self.server.versions.restore()
        self._loop = asyncio.new_event_loop()

    def live_by(self, steady_s: Callable[[], float]) -> None:
        """Time answers, and a controller's silence, by this clock, and split callers the same way in each run."""
        self.server.steady_s = self.server.versions.steady_s = steady_s
        self.server.random_source = random.Random(3)  # noqa: S311 - splits traffic

    def load(self, *, uri: str, digest: str, epoch: int) -> None:
        self.server.versions.load(uri, digest, epoch=epoch)

    def set_weights(
        self,
        weights_pct: dict[str, float],
        *,
        epoch: int,
        dead_man: DeadMan | None = None,
        mirror: Mirror | None = None,
    ) -> None:
        self.server.versions.set_weights(weights_pct, epoch=epoch, dead_man=dead_man, mirror=mirror)

    def observe(self, *, epoch: int) -> Observed:
        self.server.versions.hear(epoch=epoch)
        return self.server.observed()

    def mirrored(self, *, first: int, epoch: int) -> Mirrored:
        self.server.versions.hear(epoch=epoch)
        return self.server.mirrored(first=first)

    def state(self) -> TrafficState:
        self.server.versions.obey_dead_man()  # no event loop runs between calls, so the timer is looked at here
        serving = self.server.versions.serving
        return TrafficState(
            weights_pct=dict(serving.traffic.weights_pct),
            loaded=tuple(sorted(serving.loaded)),
            epoch=serving.epoch,
            mirror=serving.mirror.digest if serving.mirror else None,
            dead_man=serving.dead_man.stable if serving.dead_man else None,
            broken=dict(serving.broken),
        )

    def predict(self, rows: list[dict[str, Any]], *, digest: str | None = None) -> tuple[list[float], str]:
        if digest is not None:
            return self._scores(rows, digest), digest
        return self._invoke({"instances": rows}, [(b"x-clearway-probe", b"1")])

    def examples(self, digest: str) -> list[dict[str, Any]]:
        return list(self._loaded(digest).package.golden["rows"])

    def unload(self, digest: str, *, epoch: int) -> None:
        self.server.versions.unload(digest, epoch=epoch)

    def score_logged(self, batch: LoggedRows) -> tuple[list[float], str]:
        return self._invoke(batch.body(), [])

    def flush_log(self) -> None:
        self.server.prediction_log.flush()

    def close(self) -> None:
        """Stop the writer thread, candidates' processes, and the loop."""
        self.server.prediction_log.close()
        self.server.versions.close()
        self._loop.close()

    async def _answer(self, data: bytes, headers: list[tuple[bytes, bytes]]) -> Answer:
        answer = await call_async(self.server, "POST", "/invocations", data, headers=headers)
        await self.server.mirroring.settle()  # this loop stands still between calls
        return answer

    def _loaded(self, digest: str) -> Version:
        if digest not in self.server.versions.serving.loaded:
            raise ConfigError(f"version {digest} is not loaded")
        return self.server.versions.serving.loaded[digest]

    def _scores(self, rows: list[dict[str, Any]], digest: str) -> list[float]:
        try:
            return self._loaded(digest).score(rows)
        except (RowError, DataError, Refusal) as error:
            raise ConfigError(str(error)) from error

    def _invoke(self, body: dict[str, Any], headers: list[tuple[bytes, bytes]]) -> tuple[list[float], str]:
        asked = self._answer(msgspec.json.encode(body), [*JSON_HEADERS, *headers])
        answer = self._loop.run_until_complete(asked)
        if answer.status == 200:
            return answer.json["predictions"], answer.json["model_digest"]
        raise Unavailable(str(answer.json)) if answer.status >= 500 else ConfigError(str(answer.json))


def approved(
    env: Environment,
    ref: ModelRef,
    release_id: str,
    *,
    product: str = PRODUCT,
    answer: Decision = Decision.AUTO,
) -> Inputs:
    """Deploy inputs of a model that got this answer in this release."""
    approval = Approval(
        product=product,
        release_id=release_id,
        model_digest=ref.digest,
        evaluation_digest="e" * 64,
        answer=answer,
        answered_by="a test",
        note="",
        is_required=False,
        risk_tier="low",
    )
    uri, _ = record_approval(open_storage(env.store_root), Layout(env.store_root, product), approval)
    return Inputs(product=product, release_id=release_id, model=ref, approval_uri=uri)


def controls_of(env: Environment, endpoint: Any, *, clock: Clock | None = None, lease_ttl_s: float = 5.0) -> Controls:
    """Controls over the real SQL store and a given endpoint."""
    return Controls(
        store=open_release_store(env),
        endpoint=endpoint,
        storage=open_storage(env.store_root),
        layout=Layout(env.store_root, PRODUCT),
        key_folder=env.home / "keys",
        clock=clock or SystemClock(),
        lease_ttl_s=lease_ttl_s,
    )


# A deployment or rollback in its own process, without the registry: argv is verb, inputs as JSON, lease in seconds.
VERB_SCRIPT = """
import json, sys
from clearway.contracts.codec import from_jsonable, to_jsonable
from clearway.deploy.controls import open_controls
from clearway.deploy.rollback import roll_back
from clearway.deploy.run import deploy
from clearway.deploy.spec import Inputs, RollbackInputs
from clearway.infra.environment import Environment
import dataclasses
verb, text, lease_ttl_s = sys.argv[1:]
inputs = from_jsonable(Inputs if verb == "deploy" else RollbackInputs, json.loads(text))
controls = open_controls(Environment.load(), product=inputs.product)
controls = dataclasses.replace(controls, lease_ttl_s=float(lease_ttl_s))
run = (lambda: deploy(inputs, controls=controls, project=lambda _: None)) if verb == "deploy" else (
    lambda: roll_back(inputs, controls=controls))
print(json.dumps(to_jsonable(run())))
"""


def start_verb(
    env: Environment, verb: str, inputs: Any, *, fault: str = "", lease_ttl_s: float = 5.0
) -> "subprocess.Popen[str]":
    """Start a deployment or rollback as a process; `fault` as in CLEARWAY_FAULT. Its stdout is the Outputs as JSON."""
    variables = variables_of(env) | ({"CLEARWAY_FAULT": fault} if fault else {})
    text = json.dumps(to_jsonable(inputs))
    command = [sys.executable, "-c", VERB_SCRIPT, verb, text, str(lease_ttl_s)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=variables)


def finish_verb(process: "subprocess.Popen[str]", timeout_s: float = 120.0) -> Outputs:
    """Its outputs; a crash is an AssertionError with its log."""
    out, err = process.communicate(timeout=timeout_s)
    assert process.returncode == 0, err
    return from_jsonable(Outputs, json.loads(out.splitlines()[-1]))
