"""CPU per request of Clearway's model server, a plain FastAPI app and `mlflow models serve`: one model, one run.

    python tests/benchmarks/bench_serve.py [--seconds 3] [--rounds 5] [--connections 16] [--model flights|small]
        [--before FOLDER]

All serve the same ONNX file and get the same row: `flights` has the size of the demonstration product's network (84
numbers, 5 categories, 4 members of 192-192), `small` is one 24-64-64 MLP. Each is one process on core 0, the client is
on core 1 (where the machine has two), rounds are interleaved, the median round counts. Clearway does all of its duties
meanwhile: strict decoding, traffic table, prediction log, metrics. MLflow and FastAPI log nothing. CPU seconds are
those of the server's process tree; neighbours inflate even them through shared caches, so ratios count. Scores are
compared before any time counts. MLflow and FastAPI do more than score: the comparison is CPU for the same answer.
`--before` adds the server and the exported graph of another checkout. The result is one line of JSON.
"""

import argparse
import asyncio
import itertools
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import psutil
from onnx import TensorProto, helper, numpy_helper

from clearway.contracts.refs import ModelRef
from clearway.infra.environment import Environment
from clearway.infra.layout import Layout
from clearway.infra.storage import open_storage
from clearway.packaging.encoder import Encoder
from clearway.packaging.package import MAX_GOLDEN_ROWS, Package, PackageContents, open_package, write_package
from clearway.packaging.runtime import Scorer
from serving_kit import client_of, environment_at, free_port, start_server, variables_of

ROOT = Path(__file__).resolve().parents[2]
# Numeric columns, and known values of each categorical one.
SIZES = {"flights": (84, (3, 16, 105, 34, 149)), "small": (20, (4, 4, 4, 4))}
START_TIMEOUT_S = 120.0

FASTAPI_APP = """
import sys
import fastapi, numpy as np, onnxruntime as ort, pydantic, uvicorn
from clearway.packaging.encoder import Encoder
folder, port = sys.argv[1], int(sys.argv[2])
options = ort.SessionOptions()
options.intra_op_num_threads = 1
session = ort.InferenceSession(f"{folder}/model.onnx", options, providers=["CPUExecutionProvider"])
encoder = Encoder.from_json(open(f"{folder}/encoder.json", "rb").read())
class Split(pydantic.BaseModel):
    columns: list[str]
    data: list[list[float | str | None]]
class Body(pydantic.BaseModel):
    dataframe_split: Split
class Answer(pydantic.BaseModel):
    predictions: list[float]
app = fastapi.FastAPI()
@app.post("/invocations")
async def invocations(body: Body) -> Answer:
    split = body.dataframe_split
    numeric, categorical = encoder.encode_rows([dict(zip(split.columns, row)) for row in split.data])
    (score,) = session.run(["score"], {"numeric": numeric, "categorical": categorical})
    return Answer(predictions=score.tolist())
uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning", access_log=False)
"""

MLFLOW_MODEL = '''
"""The same encoder and graph behind MLflow's generic Python model."""
import mlflow, onnxruntime as ort
from clearway.packaging.encoder import Encoder

class Scores(mlflow.pyfunc.PythonModel):
    def load_context(self, context):
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = ort.InferenceSession(context.artifacts["model"], options, providers=["CPUExecutionProvider"])
        self.encoder = Encoder.from_json(open(context.artifacts["encoder"], "rb").read())

    def predict(self, context, model_input, params=None):
        numeric, categorical = self.encoder.encode_rows(model_input.to_dict("records"))
        (score,) = self.session.run(["score"], {"numeric": numeric, "categorical": categorical})
        return score

mlflow.models.set_model(Scores())
'''

MLFLOW_SAVE = """
import sys, mlflow
folder = sys.argv[1]
artifacts = {"model": f"{folder}/model.onnx", "encoder": f"{folder}/encoder.json"}
code = f"{folder}/mlflow_model.py"
mlflow.pyfunc.save_model(f"{folder}/mlflow", python_model=code, artifacts=artifacts, pip_requirements=[])
"""


FLIGHTS_MODEL = """
import sys
import numpy as np
from clearway.product import Model
from clearway.tabular.bins import Bins
from clearway.tabular.model import build, parameter_arrays, shape_of
from clearway.train.export import to_onnx
num_numeric, *known = map(int, sys.argv[1:])
model = Model()
shape = shape_of(model, num_numeric=num_numeric, cardinalities=tuple(n + 1 for n in known))
values = np.random.default_rng(0).normal(size=(3_000, num_numeric)).astype(np.float32)
weights = parameter_arrays(build(shape, seed=0))
sys.stdout.buffer.write(to_onnx(weights, shape, Bins.fit(values, num_bins=model.num_bins)))
"""


def flights_onnx(tree: Path, encoder: Encoder) -> bytes:
    """The network a flights release trains, with random weights, as the code of `tree` exports it."""
    known = [len(encoder.vocabulary[name]) for name in encoder.categorical]
    sizes = [str(size) for size in (len(encoder.numeric), *known)]
    command, variables = [sys.executable, "-c", FLIGHTS_MODEL, *sizes], python_of(tree)
    return subprocess.run(command, env=os.environ | variables, check=True, capture_output=True).stdout


def python_of(tree: Path) -> dict[str, str]:
    """Variables with which Python imports the project from `tree`."""
    return {"PYTHONPATH": os.pathsep.join((str(tree / "include"), str(tree / "plugins")))}


def mlp_onnx() -> bytes:
    """24-64-64-1 with ReLU and a sigmoid; category indices enter as numbers. Seeded: every run has the same bytes."""
    source, sizes = np.random.default_rng(0), (24, 64, 64, 1)
    constants, nodes = [numpy_helper.from_array(np.float32(0), "zero")], []
    nodes.append(helper.make_node("IsNaN", ["numeric"], ["missing"]))
    nodes.append(helper.make_node("Where", ["missing", "zero", "numeric"], ["known"]))
    nodes.append(helper.make_node("Cast", ["categorical"], ["indices"], to=TensorProto.FLOAT))
    nodes.append(helper.make_node("Concat", ["known", "indices"], ["h0"], axis=1))
    for layer, (num_in, num_out) in enumerate(itertools.pairwise(sizes)):
        weight = source.normal(0, num_in**-0.5, (num_in, num_out)).astype(np.float32)
        constants.append(numpy_helper.from_array(weight, f"w{layer}"))
        last = layer == len(sizes) - 2
        nodes.append(helper.make_node("MatMul", [f"h{layer}", f"w{layer}"], [f"z{layer}"]))
        nodes.append(helper.make_node("Sigmoid" if last else "Relu", [f"z{layer}"], [f"h{layer + 1}"]))
    constants.append(numpy_helper.from_array(np.array([-1]), "flat"))
    nodes.append(helper.make_node("Reshape", ["h3", "flat"], ["score"]))
    inputs = [
        helper.make_tensor_value_info("numeric", TensorProto.FLOAT, ["B", 20]),
        helper.make_tensor_value_info("categorical", TensorProto.INT64, ["B", 4]),
    ]
    outputs = [helper.make_tensor_value_info("score", TensorProto.FLOAT, ["B"])]
    graph = helper.make_graph(nodes, "mlp", inputs, outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    return bytes(model.SerializeToString())


def make_encoder(model: str) -> Encoder:
    """Columns and vocabularies of a model's size."""
    num_numeric, known = SIZES[model]
    vocabulary = {f"c{i}": tuple(f"v{j:03d}" for j in range(count)) for i, count in enumerate(known)}
    return Encoder(
        numeric=tuple(f"n{i}" for i in range(num_numeric)), categorical=tuple(vocabulary), vocabulary=vocabulary
    )


def make_row(encoder: Encoder, number: int) -> dict[str, Any]:
    """A row of short decimals and integers, every tenth number missing."""
    source = np.random.default_rng(number)
    values = [
        round(float(v), 3) if i % 2 else int(10 * v) for i, v in enumerate(source.normal(size=len(encoder.numeric)))
    ]
    numbers = {name: None if i % 10 == 9 else values[i] for i, name in enumerate(encoder.numeric)}
    return numbers | {name: known[number % len(known)] for name, known in encoder.vocabulary.items()}


@dataclass
class Server:
    """One contestant: its process, port, and seconds from start to first answer."""

    name: str
    process: Any
    port: int
    ready_s: float

    def cpu_s(self) -> float:
        """User and system seconds of the whole process tree so far."""
        return sum(sum(p.cpu_times()[:2]) for p in self._tree())

    def rss_mb(self) -> float:
        """Resident memory of the tree."""
        return sum(p.memory_info().rss for p in self._tree()) / 1e6

    def _tree(self) -> list[psutil.Process]:
        root = psutil.Process(self.process.pid)
        return [root, *root.children(recursive=True)]


def pin(pid: int, core: int) -> None:
    """Keep a process tree on one core, if there are two."""
    if (os.cpu_count() or 1) >= 2:
        for process in (psutil.Process(pid), *psutil.Process(pid).children(recursive=True)):
            process.cpu_affinity([core])


async def exchange(reader: Any, writer: Any, request: bytes) -> tuple[int, bytes]:
    """One request on an open connection."""
    writer.write(request)
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length"))
    return int(head.split(b" ", 2)[1]), await reader.readexactly(int(length.split(b":")[1]))


async def drive(port: int, request: bytes, *, seconds: float, connections: int) -> list[float]:
    """Closed loop on keep-alive connections; seconds per request. An answer other than 200 ends the benchmark."""
    durations: list[float] = []

    async def one() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        until = time.perf_counter() + seconds
        while (began := time.perf_counter()) < until:
            status, body = await exchange(reader, writer, request)
            if status != 200:
                raise RuntimeError(f"port {port} answered {status}: {body[:200]!r}")
            durations.append(time.perf_counter() - began)
        writer.close()

    await asyncio.gather(*(one() for _ in range(connections)))
    return durations


def request_of(row: dict[str, Any]) -> bytes:
    """The same bytes for every server."""
    body = json.dumps({"dataframe_split": {"columns": list(row), "data": [list(row.values())]}}).encode()
    headers = f"host: x\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    return b"POST /invocations HTTP/1.1\r\n" + headers.encode() + body


async def wait_until_ready(name: str, process: Any, port: int, request: bytes) -> None:
    """Poll until one request is answered with 200."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"{name} ended with {process.returncode}")
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            status, _ = await exchange(reader, writer, request)
            writer.close()
        except (OSError, asyncio.IncompleteReadError):
            status = 0
        if status == 200:
            return
        await asyncio.sleep(0.02)
    raise RuntimeError(f"{name} did not answer in {START_TIMEOUT_S} s")


def start(name: str, launch: Callable[[int], Any], request: bytes) -> Server:
    """Start one contestant and wait for its first good answer."""
    port, began = free_port(), time.perf_counter()
    process = launch(port)
    asyncio.run(wait_until_ready(name, process, port, request))
    ready_s = time.perf_counter() - began
    pin(process.pid, 0)
    return Server(name=name, process=process, port=port, ready_s=ready_s)


def launch_clearway(env: Environment, ref: ModelRef, tree: Path) -> Callable[[int], Any]:
    """Load the package once, then start from the local copy, as a restart does."""
    first = environment_at(env, free_port())
    server, client = start_server(first), client_of(first)
    client.load(uri=ref.uri, digest=ref.digest, epoch=1)
    client.set_weights({ref.digest: 100.0}, epoch=1)
    server.stop()

    def launch(port: int) -> Any:
        command = [sys.executable, "-m", "clearway.serve", "--product", "flights", "--port", str(port)]
        return subprocess.Popen(command, env=variables_of(env) | python_of(tree), stderr=subprocess.DEVNULL)

    return launch


def launch_fastapi(folder: Path) -> Callable[[int], Any]:
    """pydantic in, pydantic out, uvicorn."""
    return lambda port: subprocess.Popen([sys.executable, "-c", FASTAPI_APP, str(folder), str(port)])


def launch_mlflow(folder: Path) -> Callable[[int], Any]:
    """`mlflow models serve` with one worker, no environment of its own."""
    (folder / "mlflow_model.py").write_text(MLFLOW_MODEL, encoding="utf-8")
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    subprocess.run([sys.executable, "-c", MLFLOW_SAVE, str(folder)], check=True, **quiet)
    command = [
        sys.executable,
        "-m",
        "mlflow",
        "models",
        "serve",
        "-m",
        str(folder / "mlflow"),
        "--env-manager",
        "local",
    ]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "OMP_NUM_THREADS": "1"}
    return lambda port: subprocess.Popen([*command, "-p", str(port), "-w", "1"], env=environment, **quiet)


def measure(servers: list[Server], request: bytes, *, seconds: float, rounds: int, connections: int) -> dict[str, Any]:
    """Interleaved rounds, forwards and backwards; medians of the rounds, ratios within each round."""
    found: dict[str, list[dict[str, float]]] = {server.name: [] for server in servers}
    for number in range(rounds):
        for server in servers if number % 2 == 0 else reversed(servers):
            before = server.cpu_s()
            durations = asyncio.run(drive(server.port, request, seconds=seconds, connections=connections))
            cpu_us = (server.cpu_s() - before) / len(durations) * 1e6
            p50_ms, p99_ms = (float(value) * 1e3 for value in np.quantile(durations, (0.5, 0.99)))
            measured = {"cpu_us": cpu_us, "requests_s": len(durations) / seconds, "p50_ms": p50_ms, "p99_ms": p99_ms}
            found[server.name].append(measured)
    table: dict[str, Any] = {}
    for server in servers:
        middle = {key: statistics.median(r[key] for r in found[server.name]) for key in found[server.name][0]}
        ratios = [r["cpu_us"] / ours["cpu_us"] for r, ours in zip(found[server.name], found["clearway"], strict=True)]
        table[server.name] = {k: round(v, 2) for k, v in middle.items()} | {
            "cpu_ratio_to_clearway": round(statistics.median(ratios), 2),
            "ready_s": round(server.ready_s, 2),
            "rss_mb": round(server.rss_mb()),
        }
    return table


def check_equal(servers: list[Server], request: bytes, expected: float) -> None:
    """Everybody's first answer is the offline score."""

    async def ask(port: int) -> float:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        _, body = await exchange(reader, writer, request)
        writer.close()
        return float(json.loads(body)["predictions"][0])

    for server in servers:
        score = asyncio.run(ask(server.port))
        if abs(score - expected) > 1e-6:
            raise RuntimeError(f"{server.name} answers {score}, offline it is {expected}")


def publish(env: Environment, encoder: Encoder, graph: bytes) -> tuple[ModelRef, Package]:
    """A signed package of a graph in the store of `env`."""
    rows = [make_row(encoder, number) for number in range(MAX_GOLDEN_ROWS)]
    golden = {"rows": rows, "scores": [0.5] * len(rows)}
    contents = PackageContents(
        model=graph, weights=b"", encoder=encoder, schema={}, reference={}, golden=golden, facts={}
    )
    storage, layout = open_storage(env.store_root), Layout(env.store_root, "flights")
    ref = write_package(storage, layout, contents, key_folder=env.home / "keys")
    return ref, open_package(storage, ref.uri, ref.digest, key_folder=env.home / "keys")


def environment_in(folder: Path) -> Environment:
    """Home and store of one contestant."""
    return Environment.load(
        {"CLEARWAY__HOME": str(folder / "home"), "CLEARWAY__STORAGE__ROOT": (folder / "store").as_uri()}
    )


def contestants(folder: Path, model: str, before: Path | None) -> tuple[dict[str, Callable[[int], Any]], Scorer]:
    """How to launch each server, and what scores offline."""
    encoder, launches = make_encoder(model), dict[str, Callable[[int], Any]]()
    for name, tree in {"clearway": ROOT, "before": before}.items():
        if tree is not None:
            env = environment_in(folder / name)
            graph = flights_onnx(tree, encoder) if model == "flights" else mlp_onnx()
            ref, package = publish(env, encoder, graph)
            launches[name] = launch_clearway(env, ref, tree)
            if name == "clearway":
                scorer = Scorer(package)
                for file in ("model.onnx", "encoder.json"):
                    (folder / file).write_bytes(package.read(file))
    return launches | {"fastapi": launch_fastapi(folder), "mlflow": launch_mlflow(folder)}, scorer


def stop(server: Server) -> None:
    """End a server and the workers it started."""
    tree = psutil.Process(server.process.pid).children(recursive=True)
    server.process.terminate()
    for child in tree:
        if child.is_running():
            child.terminate()
    server.process.wait(30)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--model", choices=tuple(SIZES), default="flights")
    parser.add_argument("--before", type=Path, help="another checkout, measured in the same rounds")
    chosen = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="bench-serve-"))
    servers: list[Server] = []
    try:
        row = make_row(make_encoder(chosen.model), 0)
        request = request_of(row)
        launches, scorer = contestants(folder, chosen.model, chosen.before)
        for name, launch in launches.items():
            servers.append(start(name, launch, request))
        check_equal(servers, request, float(scorer.score_rows([row])[0]))
        if (os.cpu_count() or 1) >= 2:
            os.sched_setaffinity(0, {1})
        table = measure(servers, request, seconds=chosen.seconds, rounds=chosen.rounds, connections=chosen.connections)
        print(json.dumps({"model": chosen.model, "connections": chosen.connections, "servers": table}))  # noqa: T201
    finally:
        for server in servers:
            stop(server)
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
