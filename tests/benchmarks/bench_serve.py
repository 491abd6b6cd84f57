"""CPU per request, time to readiness and memory of Clearway's model server and of others: one model, one run.

    python tests/benchmarks/bench_serve.py [--seconds 3] [--rounds 5] [--connections 16] [--model flights|small]
        [--peers FOLDER] [--before FOLDER] [--arms NAME …] [--starts 1] [--memory]

All serve the same ONNX file and get the same row: `flights` has the size of the demonstration product's network (84
numbers, 5 categories, 4 members of 192-192), `small` is one 24-64-64 MLP. Each is one process on core 0, the client is
on core 1 (where the machine has two), rounds are interleaved, the median round counts. Clearway does all of its duties
meanwhile: strict decoding, a 90/10 split with a sticky key per connection, prediction log, metrics, counts of features.
The others log nothing. CPU seconds are those of the server's process tree; neighbours inflate even them through shared
caches, so ratios count. Scores are compared before any time counts. MLflow, LitServe, BentoML and FastAPI do more than
score: the comparison is CPU for the same answer. `floor` is uvicorn and a constant, `bare` the least code with this
answer.

`--peers` adds LitServe and BentoML from environments in that folder, made there if absent; `--before` the server and
the exported graph of another checkout. `--starts` is how often each server is started; the median of the seconds and
CPU seconds from there to its first answer is shown. `--memory` measures only memory, with 1, 2 and 5 versions loaded
and after others were loaded and unloaded. The result is one line of JSON.
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
import pyarrow as pa
from onnx import TensorProto, helper, numpy_helper
from raw_load import closed_loop, pin
from serve_arms import Launch, launch_bare, launch_bentoml, launch_fastapi, launch_litserve, launch_mlflow, peer_python

from clearway.contracts.refs import ModelRef
from clearway.infra.environment import Environment
from clearway.infra.layout import Layout
from clearway.infra.storage import open_storage
from clearway.measures.distance import build_reference
from clearway.packaging.encoder import Encoder
from clearway.packaging.package import MAX_GOLDEN_ROWS, Package, PackageContents, open_package, write_package
from clearway.packaging.runtime import OnnxScorer
from serving_kit import client_of, environment_at, free_port, start_server, variables_of

ROOT = Path(__file__).resolve().parents[2]
# Numeric columns, and known values of each categorical one.
SIZES = {"flights": (84, (3, 16, 105, 34, 149)), "small": (20, (4, 4, 4, 4))}
START_TIMEOUT_S = 120.0
SHARES = (90.0, 10.0)
NUM_RETIRED = 10
NUM_TRAINING_ROWS = 200  # what the histograms are made of whose bins the server counts

FLIGHTS_MODEL = """
import sys
import numpy as np
from clearway.product import Model
from clearway.tabular.bins import Bins
from clearway.tabular.model import build, parameter_arrays, shape_of
from clearway.tabular.export import to_onnx
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
    """One contestant: its process, port, and from start to first answer its seconds and CPU seconds, of every start."""

    name: str
    process: Any
    port: int
    ready_s: list[float]
    ready_cpu_s: list[float]

    def cpu_s(self) -> float:
        """User and system seconds of the whole process tree so far."""
        return sum(sum(p.cpu_times()[:2]) for p in self._tree())

    def rss_mb(self) -> float:
        """Resident memory of the tree."""
        return sum(p.memory_info().rss for p in self._tree()) / 1e6

    def _tree(self) -> list[psutil.Process]:
        root = psutil.Process(self.process.pid)
        return [root, *root.children(recursive=True)]


async def exchange(reader: Any, writer: Any, request: bytes) -> tuple[int, bytes]:
    """One request on an open connection."""
    writer.write(request)
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length"))
    return int(head.split(b" ", 2)[1]), await reader.readexactly(int(length.split(b":")[1]))


def request_of(row: dict[str, Any], *, caller: int = 0) -> bytes:
    """The same bytes for every server."""
    body = json.dumps({"dataframe_split": {"columns": list(row), "data": [list(row.values())]}}).encode()
    named = f"host: x\r\nx-clearway-sticky-key: caller-{caller}\r\n"
    headers = f"{named}content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
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


def start(name: str, launch: Launch, request: bytes, *, starts: int = 1) -> Server:
    """Start one contestant, wait for its first good answer, and do that again; the last one stays."""
    ready_s, ready_cpu_s = list[float](), list[float]()
    while True:
        port, began = free_port(), time.perf_counter()
        process = launch(port)
        server = Server(name=name, process=process, port=port, ready_s=ready_s, ready_cpu_s=ready_cpu_s)
        asyncio.run(wait_until_ready(name, process, port, request))
        ready_s.append(time.perf_counter() - began)
        ready_cpu_s.append(server.cpu_s())
        if len(ready_s) == starts:
            pin(process.pid, 0)
            return server
        stop(server)


def launch_clearway(env: Environment, refs: list[ModelRef], tree: Path) -> Launch:
    """Load the packages once and split the traffic, then start from the local copy, as a restart does."""
    first = environment_at(env, free_port())
    server, client = start_server(first), client_of(first)
    for ref in reversed(refs):  # each has held all traffic, so each lives in the gateway
        client.load(uri=ref.uri, digest=ref.digest, epoch=1)
        client.set_weights({ref.digest: 100.0}, epoch=1)
    client.set_weights({ref.digest: share for ref, share in zip(refs, SHARES, strict=True)}, epoch=1)
    server.stop()

    def launch(port: int) -> Any:
        command = [sys.executable, "-m", "clearway.serve", "--product", "flights", "--port", str(port)]
        return subprocess.Popen(command, env=variables_of(env) | python_of(tree), stderr=subprocess.DEVNULL)

    return launch


def measure(servers: list[Server], requests: list[bytes], *, seconds: float, rounds: int) -> dict[str, Any]:
    """Interleaved rounds, forwards and backwards; medians of the rounds, ratios within each round."""
    found: dict[str, list[dict[str, float]]] = {server.name: [] for server in servers}
    for server in servers:
        closed_loop(server.port, requests, seconds=min(seconds, 1.0))
    for number in range(rounds):
        for server in servers if number % 2 == 0 else reversed(servers):
            before, own_before = server.cpu_s(), time.process_time()
            durations = closed_loop(server.port, requests, seconds=seconds)
            client_us = (time.process_time() - own_before) / len(durations) * 1e6
            cpu_us = (server.cpu_s() - before) / len(durations) * 1e6
            p50_ms, p99_ms = (float(value) * 1e3 for value in np.quantile(durations, (0.5, 0.99)))
            measured = {"cpu_us": cpu_us, "requests_s": len(durations) / seconds, "p50_ms": p50_ms, "p99_ms": p99_ms}
            found[server.name].append(measured | {"client_us": client_us})
    table: dict[str, Any] = {}
    for server in servers:
        middle = {key: statistics.median(r[key] for r in found[server.name]) for key in found[server.name][0]}
        ratios = [r["cpu_us"] / ours["cpu_us"] for r, ours in zip(found[server.name], found["clearway"], strict=True)]
        table[server.name] = {k: round(v, 2) for k, v in middle.items()} | {
            "cpu_ratio_to_clearway": round(statistics.median(ratios), 2),
            "ready_s": round(statistics.median(server.ready_s), 2),
            "ready_cpu_s": round(statistics.median(server.ready_cpu_s), 2),
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


def publish(env: Environment, encoder: Encoder, graph: bytes, *, number: int = 0) -> tuple[ModelRef, Package]:
    """A signed package of a graph in the store of `env`; another number is another digest."""
    rows = [make_row(encoder, number) for number in range(NUM_TRAINING_ROWS)]
    golden = {"rows": rows[:MAX_GOLDEN_ROWS], "scores": [0.5] * MAX_GOLDEN_ROWS}
    contents = PackageContents(
        model=graph,
        weights=b"",
        encoder=encoder,
        schema={},
        reference=reference_of(encoder, rows),
        golden=golden,
        facts={"number": number},
    )
    storage, layout = open_storage(env.store_root), Layout(env.store_root, "flights")
    ref = write_package(storage, layout, contents, key_folder=env.home / "keys")
    return ref, open_package(storage, ref.uri, ref.digest, key_folder=env.home / "keys")


def reference_of(encoder: Encoder, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Histograms of these rows, as training makes them."""
    kinds = dict.fromkeys(encoder.numeric, pa.float64()) | dict.fromkeys(encoder.categorical, pa.string())
    table = pa.table({name: pa.array([row[name] for row in rows], kind) for name, kind in kinds.items()})
    batches = pa.array([str(i % 4) for i in range(len(rows))])
    return build_reference(
        table.append_column("batch", batches),
        numeric=encoder.numeric,
        categorical=encoder.categorical,
        batch_column="batch",
    )


def environment_in(folder: Path) -> Environment:
    """Home and store of one contestant."""
    return Environment.load(
        {"CLEARWAY__HOME": str(folder / "home"), "CLEARWAY__STORAGE__ROOT": (folder / "store").as_uri()}
    )


def graph_of(model: str, encoder: Encoder, tree: Path) -> bytes:
    """The model's file."""
    return flights_onnx(tree, encoder) if model == "flights" else mlp_onnx()


def contestants(
    folder: Path, model: str, *, before: Path | None, peers: Path | None, arms: list[str]
) -> tuple[dict[str, Launch], OnnxScorer]:
    """How to launch each server, and what scores offline. `arms`: names of others; none means all."""
    encoder, launches = make_encoder(model), dict[str, Launch]()
    for name, tree in {"clearway": ROOT, "before": before}.items():
        if tree is not None:
            env, graph = environment_in(folder / name), graph_of(model, encoder, tree)
            found = [publish(env, encoder, graph, number=number) for number in range(len(SHARES))]
            launches[name] = launch_clearway(env, [ref for ref, _ in found], tree)
            if name == "clearway":
                package = found[0][1]
                for file in ("model.onnx", "encoder.json"):
                    (folder / file).write_bytes(package.read(file))
    makers: dict[str, Callable[[], Launch]] = {
        "floor": lambda: launch_bare(folder, is_floor=True),
        "bare": lambda: launch_bare(folder),
        "fastapi": lambda: launch_fastapi(folder),
        "mlflow": lambda: launch_mlflow(folder),
    }
    if peers is not None:
        makers |= {
            "litserve_single": lambda: launch_litserve(folder, peer_python("litserve", peers), kind="single"),
            "litserve_batch": lambda: launch_litserve(folder, peer_python("litserve", peers), kind="batch"),
            "bentoml": lambda: launch_bentoml(folder, peer_python("bentoml", peers)),
        }
    return launches | {name: make() for name, make in makers.items() if name in (arms or makers)}, OnnxScorer(package)


def memory(folder: Path, model: str) -> dict[str, float]:
    """MB of the server's tree with versions that live in it, and after others came and went."""
    encoder, found = make_encoder(model), dict[str, float]()
    env, graph = environment_in(folder), graph_of(model, encoder, ROOT)
    env = environment_at(env, free_port())
    server, client = start_server(env), client_of(env)
    root = psutil.Process(server.process.pid)
    refs = [publish(env, encoder, graph, number=number)[0] for number in range(5 + NUM_RETIRED)]

    def live(ref: ModelRef) -> None:
        client.load(uri=ref.uri, digest=ref.digest, epoch=1)
        client.set_weights({ref.digest: 100.0}, epoch=1)

    def note(name: str) -> None:
        client.predict([make_row(encoder, 0)])
        client.flush_log()
        found[name] = round(root.memory_info().rss / 1e6, 1)

    try:
        for number, ref in enumerate(refs[:5]):
            live(ref)
            if number + 1 in {1, 2, 5}:
                note(f"{number + 1}_live")
        for ref in refs[5:]:
            live(ref)
            client.set_weights({refs[0].digest: 100.0}, epoch=1)
            client.unload(ref.digest, epoch=1)
        note(f"5_live_{NUM_RETIRED}_retired")
        client.set_weights({refs[0].digest: 100.0}, epoch=1)
        for ref in refs[1:5]:
            client.unload(ref.digest, epoch=1)
        note(f"1_live_{NUM_RETIRED + 4}_retired")
    finally:
        server.stop()
    return found


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
    parser.add_argument("--peers", type=Path, help="folder of LitServe's and BentoML's environments")
    parser.add_argument("--arms", nargs="*", default=[], help="only these beside Clearway")
    parser.add_argument("--starts", type=int, default=1)
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--before", type=Path, help="another checkout, measured in the same rounds")
    chosen = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="bench-serve-"))
    servers: list[Server] = []
    try:
        if chosen.memory:
            print(json.dumps({"model": chosen.model, "rss_mb": memory(folder, chosen.model)}))  # noqa: T201
            return
        row = make_row(make_encoder(chosen.model), 0)
        requests = [request_of(row, caller=number) for number in range(chosen.connections)]
        launches, scorer = contestants(folder, chosen.model, before=chosen.before, peers=chosen.peers, arms=chosen.arms)
        for name, launch in launches.items():
            servers.append(start(name, launch, requests[0], starts=chosen.starts))
        check_equal([s for s in servers if s.name != "floor"], requests[0], float(scorer.score_rows([row])[0]))
        if (os.cpu_count() or 1) >= 2:
            os.sched_setaffinity(0, {1})
        table = measure(servers, requests, seconds=chosen.seconds, rounds=chosen.rounds)
        print(json.dumps({"model": chosen.model, "connections": chosen.connections, "servers": table}))  # noqa: T201
    finally:
        for server in servers:
            stop(server)
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
