"""Hostile requests against a real model server process: statuses, and how far its memory grows.

    python tests/benchmarks/hostile_requests.py [--num 100000] [--seed 1] [--gate]

First 1,230 fixed requests, then seeded mutants of valid ones, over every format and route, through a real socket with a
client that tidies nothing up. One model has all traffic, so no answer of class 5xx is right. Memory is the server's
resident set after the first 5,000 requests (libraries of every format loaded by then) and at the end. With `--gate`
callers and admins need tokens, callers have a budget, and one request in ten carries one of the bad tokens of
`tests/tokens_kit.py`, which may open nothing. The result is one line of JSON; exit code 1 if any answer is of class
5xx, a bad token opened something, or memory grows by over 50 MiB.
"""

import argparse
import contextlib
import json
import random
import socket
import sys
import tempfile
import time
from collections import Counter
from itertools import chain, islice
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import psutil

from clearway.infra.environment import Environment
from hostile_kit import Hostile, fixed, fuzzed
from serving_kit import client_of, environment_at, free_port, make_package, running_server, start_server
from tokens_kit import ADMINS, CALLERS, EDDSA, SIGNER, bad_headers, claims, pem, signed

MAX_GROWTH_MIB = 50
WARM_UP = 5_000
NUM_CALLERS, RATE_PER_S, BURST = 40, 20.0, 50
MAX_ADMIN_CALLS = 9_000  # the server remembers 10,000 admin tokens of an hour, and then asks admins to wait
BAD_SHARE = 0.1
# Answered whatever the token is.
OPEN = {"/ping", "/healthz", "/metrics", "/docs", "/openapi.json", "/v2", "/v2/health/live", "/v2/health/ready"}
_FRAMING = frozenset((b"content-length", b"transfer-encoding"))
DROPPED = 0  # the server ended the connection without an answer, as HTTP allows for what is no request at all


class Bearers:
    """Who asks: admins with the file's token, or behind the gate everybody with signed tokens, some of them bad."""

    def __init__(self, token: str, source: random.Random, *, is_gated: bool) -> None:
        self._token, self._source, self._is_gated, self._num_admin = token, source, is_gated, 0
        self._callers = [signed(EDDSA, claims(CALLERS, sub=f"caller-{i}")) for i in range(NUM_CALLERS)]
        self._bad = {audience: list(bad_headers(audience).values()) for audience in (CALLERS, ADMINS)}

    def header(self, request: Hostile) -> tuple[bytes | None, bool]:
        """The Authorization header, None for none, and whether it must open nothing."""
        if not self._is_gated:
            return (b"Bearer " + self._token.encode() if request.is_admin else None), False
        if self._source.random() < BAD_SHARE:
            audience = ADMINS if request.path.startswith("/admin/") else CALLERS
            return self._source.choice(self._bad[audience]), request.path not in OPEN
        if request.is_admin and self._num_admin < MAX_ADMIN_CALLS:
            self._num_admin += 1
            return b"Bearer " + signed(EDDSA, claims(ADMINS)).encode(), False
        return b"Bearer " + self._source.choice(self._callers).encode(), False


def wire(request: Hostile, bearer: bytes | None) -> bytes:
    """The request as bytes; whatever would end the line or the headers early is taken out of them."""
    path = request.path.encode("utf-8", "surrogatepass")
    path = b"".join(b"%%%02X" % byte if byte <= 0x20 or byte >= 0x7F else bytes([byte]) for byte in path)
    lines = [b"%s %s HTTP/1.1" % (request.method.encode(), path or b"/"), b"host: x", b"connection: close"]
    pairs = [(b"content-type", request.kind.encode()), *request.headers]
    if bearer is not None:
        pairs = [*(pair for pair in pairs if pair[0] != b"authorization"), (b"authorization", bearer)]
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
                with contextlib.suppress(OSError):  # the server has closed already; what it said can still be read
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
    parser.add_argument("--gate", action="store_true")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        places = {"CLEARWAY__HOME": folder, "CLEARWAY__STORAGE__ROOT": (Path(folder) / "store").as_uri()}
        env = environment_at(Environment.load(places), free_port())
        put_into_service(env)
        result = attack(gated(env) if chosen.gate else env, num=chosen.num, seed=chosen.seed, is_gated=chosen.gate)
    sys.stdout.write(json.dumps({"gate": chosen.gate, "seed": chosen.seed} | result) + "\n")
    is_bad = any(int(status) >= 500 for status in result["statuses"]) or result["bad"]
    return int(bool(is_bad) or result["growth_mib"] > MAX_GROWTH_MIB)


def put_into_service(env: Environment) -> None:
    """One model with all traffic, from before there is a gate: a server finds it in its own copy."""
    ref = make_package(env, 0.3)
    with running_server(env):
        client = client_of(env)
        client.load(uri=ref.uri, digest=ref.digest, epoch=1)
        client.set_weights({ref.digest: 100.0}, epoch=1)


def gated(env: Environment) -> Environment:
    """Tokens for all, and a budget that callers exceed now and then."""
    keys = env.home / "serving" / "jwt"
    keys.mkdir(parents=True)
    (keys / "key.pem").write_bytes(pem(SIGNER))
    settings = {"callers": "jwt", "admins": "jwt", "rate_per_s": RATE_PER_S, "burst": BURST}
    return env.model_copy(update={"serving": env.serving.model_copy(update=settings)})


def attack(env: Environment, *, num: int, seed: int, is_gated: bool) -> dict[str, Any]:
    """All requests against one server process."""
    statuses, bad, start_mib, last = Counter[int](), list[str](), 0.0, Hostile(path="")
    server, port = start_server(env), int(env.endpoint.url.rpartition(":")[2])
    try:
        source = random.Random(seed)  # noqa: S311
        bearers = Bearers(env.admin_token_file.read_text(), random.Random(seed + 1), is_gated=is_gated)  # noqa: S311
        memory, began = psutil.Process(server.process.pid).memory_info, time.monotonic()
        for i, request in enumerate(chain(fixed(), islice(fuzzed(source), num))):
            if i == WARM_UP:
                start_mib = memory().rss / 2**20
            is_whole = not any(name in _FRAMING for name, _ in request.headers)
            bearer, opens_nothing = bearers.header(request)
            try:
                status = ask(port, wire(request, bearer), is_whole=is_whole)
            except ConnectionRefusedError:
                return {"statuses": {}, "growth_mib": 0, "bad": [f"ended with {server.process.wait(20)} by {last!r}"]}
            last = request
            statuses[status] += 1
            is_open = opens_nothing and 200 <= status < 300
            if (status >= 500 or is_open) and len(bad) < 5:
                bad.append(f"{status} {bearer!r} {request!r}"[:500])
        growth_mib = memory().rss / 2**20 - start_mib
    finally:
        server.stop()
    return {
        "num": i + 1,
        "seconds": round(time.monotonic() - began, 1),
        "statuses": {str(status): count for status, count in sorted(statuses.items())},
        "growth_mib": round(growth_mib, 1),
        "warm_mib": round(start_mib, 1),
        "bad": bad,
    }


if __name__ == "__main__":
    sys.exit(main())
