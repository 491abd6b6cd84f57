"""Hostile requests for the model server, every format and route: 1,230 fixed ones, and any number of seeded ones."""

import itertools
import json
import random
from collections.abc import Iterator
from dataclasses import dataclass

import msgspec
import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq

from serving_kit import PRODUCT, ROW

NUM_FIXED = 1_230
DIGEST = "0" * 64
LINES, CSV, JSON = "application/jsonlines", "text/csv", "application/json"
PARQUET, ARROW = "application/vnd.apache.parquet", "application/vnd.apache.arrow.stream"
INFER = f"/v2/models/{PRODUCT}/infer"
# Texts that break parsers and the people who print what they parsed.
NASTY = [
    "NaN", "Infinity", "-Infinity", "1e400", "-1e400", "1e-400", "-0.0", "9" * 400, "9" * 6000, "0x10", "01", "+1",
    ".5", "1.", "1e", "true", "false", "null", "[]", "{}", "[[]]", '""', '"NaN"', '"\\ud800"', '"\\u0000"', '"\x00"',
    '"\u2028"', '"\ufeff"', '"' + "x" * 5000 + '"', "'; DROP TABLE x; --", '"<script>"', "[" * 2000, "{" * 2000,
    '{"a":' * 500, "3.4028236e38", "1e39", "4.9e-324", "18446744073709551616", "-9223372036854775809", "nan", "//",
    '"${jndi:ldap://x}"', '"{{7*7}}"', '"\\', "\r\n", '"a\nb"', "\x1a", "\ud800", "٣", "1_0", "undefined",
]  # fmt: skip
ODD_NAMES = [
    "..",
    "%2e%2e",
    "\\",
    "\x00",
    "é",
    "\u202e",
    "x" * 3000,
    "a b",
    "#",
    "?",
    "'",
    "{digest}",
    DIGEST,
    "CON",
    "",
]
METHODS = ["GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "TRACE", "BREW"]
HEADER_VALUES = [
    b"",
    b"\xff" * 60,
    b"x" * 7000,
    b"gzip",
    b"-1",
    b"99999999999999999999",
    b"q=nan",
    b"*/*;q=",
    b"\x00",
    b";;;",
]
HEADERS = [
    b"content-type", b"content-length", b"content-encoding", b"accept", b"x-request-id", b"x-clearway-sticky-key",
    b"traceparent", b"origin", b"authorization", b"inference-header-content-length", b"transfer-encoding", b"host",
]  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Hostile:
    """One request. `is_admin`: with the right token, so that it gets past the first check."""

    path: str
    body: bytes = b""
    method: str = "POST"
    kind: str = JSON
    headers: tuple[tuple[bytes, bytes], ...] = ()
    is_admin: bool = False


def _table(**options: object) -> dict[str, bytes]:
    rows = pa.Table.from_pylist([ROW, {**ROW, "carrier": None}])
    file, stream = pa.BufferOutputStream(), pa.BufferOutputStream()
    pq.write_table(rows, file, **options)
    with pa.ipc.new_stream(stream, rows.schema) as writer:
        writer.write_table(rows)
    return {PARQUET: file.getvalue().to_pybytes(), ARROW: stream.getvalue().to_pybytes()}


def _infer() -> bytes:
    inputs = [
        {"name": name, "shape": [1], "datatype": "BYTES" if isinstance(value, str) else "FP64", "data": [value]}
        for name, value in ROW.items()
    ]
    return msgspec.json.encode({"inputs": inputs, "id": "a"})


_ADMIN_BODIES = {
    ("PUT", "/admin/traffic"): {"weights_pct": {DIGEST: 100}, "epoch": 0},
    ("POST", "/admin/versions"): {"uri": "file:///nowhere", "digest": DIGEST, "epoch": 0},
    ("POST", "/admin/observe"): {"epoch": 0},
    ("POST", "/admin/score"): {"instances": [ROW]},
}
# One valid request per format and route; mutants start from these.
SEEDS = [
    Hostile(path="/invocations", body=msgspec.json.encode({"instances": [ROW, ROW], "keys": ["a", "b"]})),
    Hostile(
        path="/invocations",
        body=msgspec.json.encode({"dataframe_split": {"columns": list(ROW), "data": [list(ROW.values())] * 2}}),
    ),
    Hostile(path="/invocations", kind=LINES, body=msgspec.json.encode(ROW) + b"\n"),
    Hostile(path="/invocations", kind=CSV, body=b'hour,distance,carrier\n7,500.0,AA\n8,,"DL"\n'),
    *(Hostile(path="/invocations", kind=kind, body=body) for kind, body in _table().items()),
    Hostile(path="/invocations", kind=PARQUET, body=_table(compression="none", use_dictionary=False)[PARQUET]),
    Hostile(path=INFER, body=_infer()),
    Hostile(
        path="/outcomes", body=msgspec.json.encode({"outcomes": [{"key": "a", "model_digest": DIGEST, "value": 1}]})
    ),
    *(
        Hostile(method=method, path=path, body=json.dumps(body).encode(), is_admin=True)
        for (method, path), body in _ADMIN_BODIES.items()
    ),
]
ROUTES = [
    "/ping", "/healthz", "/metrics", "/docs", "/openapi.json", "/v2", "/v2/health/live", "/v2/health/ready",
    f"/v2/models/{PRODUCT}", f"/v2/models/{PRODUCT}/ready", INFER, "/invocations", "/outcomes", "/admin/state",
    "/admin/versions", f"/admin/versions/{DIGEST}", "/admin/traffic", "/admin/score", "/admin/flush", "/admin/mirrored",
]  # fmt: skip


def fixed() -> list[Hostile]:
    """The same 1,230 requests every time: every nasty text in every place of every text format, every method on every
    route, odd names in paths, hostile headers; tables cut at every length fill up what is left."""
    found: list[Hostile] = []
    for value in NASTY:
        text = value.encode("utf-8", "surrogatepass")
        found += [
            Hostile(path="/invocations", body=b'{"instances":[{"hour":%s,"distance":1,"carrier":null}]}' % text),
            Hostile(path="/invocations", body=b'{"instances":[{"hour":1,"distance":1,"carrier":%s}]}' % text),
            Hostile(path="/invocations", body=b'{"dataframe_split":{"columns":[%s],"data":[[1]]}}' % text),
            Hostile(path="/invocations", body=text),
            Hostile(path="/invocations", kind=LINES, body=b'{"hour":%s}' % text),
            Hostile(path="/invocations", kind=CSV, body=b"hour,distance,carrier\n%s,1,AA\n" % text),
            Hostile(path=INFER, body=b'{"inputs":[{"name":"hour","shape":[1],"datatype":"FP64","data":[%s]}]}' % text),
            Hostile(path=INFER, body=b'{"inputs":[{"name":"hour","shape":%s,"datatype":"FP64","data":[1]}]}' % text),
            Hostile(path="/outcomes", body=b'{"outcomes":[{"key":"a","model_digest":"x","value":%s}]}' % text),
            Hostile(
                method="PUT", path="/admin/traffic", body=b'{"weights_pct":{"x":%s},"epoch":0}' % text, is_admin=True
            ),
        ]
    found += [Hostile(method=method, path=path) for method in METHODS for path in ROUTES]
    found += [
        Hostile(method="GET", path=f"{path}/{name}") for path in ("/v2/models", "/admin/versions") for name in ODD_NAMES
    ]
    pairs = itertools.product(HEADERS, HEADER_VALUES)
    found += [Hostile(path="/invocations", body=SEEDS[0].body, headers=(pair,)) for pair in pairs]
    tables = [seed for seed in SEEDS if seed.kind in {PARQUET, ARROW}]
    for cut in itertools.count(1):
        for seed in tables:
            if len(found) == NUM_FIXED:
                return found
            found.append(Hostile(path=seed.path, kind=seed.kind, body=seed.body[:-cut]))
    raise AssertionError


def fuzzed(source: random.Random) -> Iterator[Hostile]:
    """Endless mutants of the valid requests: bodies, headers, content types, methods and paths."""
    while True:
        seed = source.choice(SEEDS)
        body, headers = _mutated(seed.body, source), list(seed.headers)
        if source.random() < 0.2:
            value = source.choice(HEADER_VALUES) if source.random() < 0.5 else source.randbytes(source.randint(0, 60))
            headers.append((source.choice(HEADERS), value))
        kind, path, method = seed.kind, seed.path, seed.method
        if source.random() < 0.1:
            kind = source.choice((JSON, LINES, CSV, PARQUET, ARROW, "", "text/html"))
        if source.random() < 0.05:
            path = source.choice(ROUTES) + source.choice(("", "/", "/" + source.choice(ODD_NAMES)))
        if source.random() < 0.05:
            method = source.choice(METHODS)
        is_admin = seed.is_admin and source.random() < 0.9
        yield Hostile(path=path, method=method, kind=kind, body=body, headers=tuple(headers), is_admin=is_admin)


def _mutated(data: bytes, source: random.Random) -> bytes:
    body, kind = bytearray(data), source.randrange(7)
    if kind == 0:
        for _ in range(source.randint(1, 6)):
            body[source.randrange(len(body))] = source.randrange(256)
    elif kind == 1:
        del body[source.randrange(len(body)) :]
    elif kind == 2:
        at = source.randrange(len(body))
        body[at:at] = source.choice(NASTY).encode("utf-8", "surrogatepass")
    elif kind == 3:
        start = source.randrange(len(body))
        body[start:start] = body[start : start + source.randint(1, 40)] * 2
    elif kind == 4:
        values = [part for part in (b"7.0", b"500.0", b'"AA"', b"[1]", b'"hour"', b"100", b"0") if part in body]
        new = source.choice(NASTY).encode("utf-8", "surrogatepass")
        body = body.replace(source.choice(values), new) if values else body[::-1]
    elif kind == 5:
        at = source.randrange(max(1, len(body) - 4))
        body[at : at + 4] = source.choice((b"\xff\xff\xff\x7f", b"\x00\x00\x00\x80", b"\xff\xff\xff\xff", b"\0\0\0\0"))
    else:
        body = bytearray(source.randbytes(source.randint(0, 200)))
    return bytes(body)
