"""Hostile requests against a real model server process: statuses, and how far its memory grows.

    python tests/benchmarks/hostile_requests.py [--num 100000] [--seed 1]

First 1,230 fixed requests, then seeded mutants of valid ones, over every format and route, through a real socket with a
client that tidies nothing up. One model has all traffic, so no answer of class 5xx is right. Memory is the server's
resident set after the first 5,000 requests (libraries of every format loaded by then) and at the end. The result is
one line of JSON; exit code 1 if any answer is of class 5xx, a connection breaks or memory grows by over 50 MiB.
"""

import argparse
import json
import random
import socket
import sys
import tempfile
import time
from collections import Counter
from itertools import chain, islice
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import psutil

from clearway.infra.environment import Environment
from hostile_kit import Hostile, fixed, fuzzed
from serving_kit import client_of, environment_at, free_port, make_package, start_server

MAX_GROWTH_MIB = 50
WARM_UP = 5_000
_FRAMING = frozenset((b"content-length", b"transfer-encoding"))
DROPPED = 0  # the server ended the connection without an answer, as HTTP allows for what is no request at all


def wire(request: Hostile, token: str) -> bytes:
    """The request as bytes; whatever would end the line or the headers early is taken out of them."""
    path = request.path.encode("utf-8", "surrogatepass")
    path = b"".join(b"%%%02X" % byte if byte <= 0x20 or byte >= 0x7F else bytes([byte]) for byte in path)
    lines = [b"%s %s HTTP/1.1" % (request.method.encode(), path or b"/"), b"host: x", b"connection: close"]
    pairs = [(b"content-type", request.kind.encode()), *request.headers]
    if request.is_admin:
        pairs.append((b"authorization", b"Bearer " + token.encode()))
    if not any(name in _FRAMING for name, _ in pairs):
        pairs.append((b"content-length", str(len(request.body)).encode()))
    lines += [name + b": " + value.replace(b"\r", b"").replace(b"\n", b"") for name, value in pairs]
    return b"\r\n".join(lines) + b"\r\n\r\n" + request.body


def ask(port: int, data: bytes, *, is_whole: bool) -> int:
    """Status of the answer, or DROPPED. Where headers lie about the body, the sending side closes, as no more comes."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        try:
            connection.sendall(data)
            if not is_whole:
                connection.shutdown(socket.SHUT_WR)
            answer = b""
            while b"\r\n" not in answer and (part := connection.recv(65536)):
                answer += part
        except (BrokenPipeError, ConnectionResetError):
            return DROPPED
    return int(answer[9:12]) if answer.startswith(b"HTTP/1.1 ") else DROPPED


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--num", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        places = {"CLEARWAY__HOME": folder, "CLEARWAY__STORAGE__ROOT": (Path(folder) / "store").as_uri()}
        env = environment_at(Environment.load(places), free_port())
        ref, server = make_package(env, 0.3), start_server(env)
        try:
            client = client_of(env)
            client.load(uri=ref.uri, digest=ref.digest, epoch=1)
            client.set_weights({ref.digest: 100.0}, epoch=1)
            token, port = env.admin_token_file.read_text(), int(env.endpoint.url.rpartition(":")[2])
            memory, began = psutil.Process(server.process.pid).memory_info, time.monotonic()
            statuses: Counter[int] = Counter()
            start_mib, bad, last = 0.0, list[str](), Hostile(path="")
            requests = chain(fixed(), islice(fuzzed(random.Random(chosen.seed)), chosen.num))  # noqa: S311
            for i, request in enumerate(requests):
                if i == WARM_UP:
                    start_mib = memory().rss / 2**20
                is_whole = not any(name in _FRAMING for name, _ in request.headers)
                try:
                    status = ask(port, wire(request, token), is_whole=is_whole)
                except ConnectionRefusedError:
                    sys.stdout.write(f"server ended with {server.process.wait(20)} after request {i - 1}: {last!r}\n")
                    return 1
                last = request
                statuses[status] += 1
                if status >= 500 and len(bad) < 5:
                    bad.append(f"{status} {request!r}"[:500])
            growth_mib = memory().rss / 2**20 - start_mib
        finally:
            server.stop()
    result = {"num": i + 1, "seed": chosen.seed, "seconds": round(time.monotonic() - began, 1)}
    result |= {"statuses": {str(k): n for k, n in sorted(statuses.items())}, "growth_mib": round(growth_mib, 1)}
    sys.stdout.write(json.dumps(result | {"warm_mib": round(start_mib, 1), "bad": bad}) + "\n")
    return int(any(status >= 500 for status in statuses) or growth_mib > MAX_GROWTH_MIB)


if __name__ == "__main__":
    sys.exit(main())
