"""What /metrics says of the rows that were asked: exact, in every format, and enough for PSI without any log."""

import asyncio
import re
import tracemalloc
import types

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.ipc
import pytest

from clearway.measures.distance import build_reference, compare
from clearway.measures.psi import psi
from clearway.measures.total_variation import total_variation
from clearway.packaging.encoder import Encoder
from clearway.serve import feature_counts
from clearway.serve.counters import parse_metric
from clearway.serve.feature_counts import BATCH_ROWS, FeatureCounts
from clearway.serve.process import make_server
from connection_kit import message, run, status_of
from serving_kit import CARRIERS, CATEGORICAL, JSON_HEADERS, NUMERIC, PRODUCT, call, make_package

SAMPLE = re.compile(r'model_digest="(\w+)",feature="(\w+)"(?:,bin="(\d+)")?')
EMPTY = {"rows": {}, "missing_rows": {}, "unknown_rows": {}}


def training_table(num_rows=2_000):
    """Ties at an edge of `hour`, a long tail in `distance`, and a carrier that the model does not know."""
    source = np.random.default_rng(5)
    return pa.table(
        {
            "hour": np.maximum(source.integers(0, 24, num_rows), 6).astype(np.float64),
            "distance": pa.array(source.gamma(2, 300, num_rows), mask=source.random(num_rows) < 0.1),
            "carrier": source.choice([*CARRIERS, "B6"], num_rows, p=[0.4, 0.3, 0.2, 0.1]),
            "batch": source.integers(0, 10, num_rows).astype(str),
        }
    )


REFERENCE = build_reference(training_table(), numeric=NUMERIC, categorical=CATEGORICAL, batch_column="batch")
EDGES = {name: np.array(REFERENCE["features"][name]["edges"]) for name in NUMERIC}


def asked_rows(num_rows, seed):
    """Values at edges, right above and below them, whole numbers, missing ones; carriers known, binned, new."""
    source = np.random.default_rng(seed)

    def number(name):
        edge = float(source.choice(EDGES[name]))
        near = (edge, float(np.nextafter(edge, np.inf)), float(np.nextafter(edge, -np.inf)), edge * 2 + 1, -edge, 7)
        return None if source.random() < 0.2 else near[source.integers(len(near))]

    carriers = [*CARRIERS, "B6", "ZZ", "new", None]
    return [
        {name: number(name) for name in NUMERIC} | {"carrier": carriers[source.integers(len(carriers))]}
        for _ in range(num_rows)
    ]


def counted(rows, *, carriers=CARRIERS):
    """The same by numpy, one feature at a time. `carriers`: those that the model knows."""
    found = {"rows": {}, "missing_rows": {}, "unknown_rows": {}}
    for name in NUMERIC:
        values = np.array([row[name] for row in rows], np.float64)
        held = values[~np.isnan(values)]
        bins = np.bincount(np.searchsorted(EDGES[name], held, side="left"), minlength=len(EDGES[name]) + 1)
        found["rows"][name], found["missing_rows"][name] = bins.tolist(), int(np.isnan(values).sum())
    texts, binned = [row["carrier"] for row in rows], REFERENCE["features"]["carrier"]["values"]
    found["rows"]["carrier"] = [texts.count(value) for value in binned]
    found["rows"]["carrier"].append(sum(text is not None and text not in binned for text in texts))
    found["missing_rows"]["carrier"] = texts.count(None)
    found["unknown_rows"]["carrier"] = sum(text is not None and text not in carriers for text in texts)
    return found


def read(text, digest):
    """What Prometheus would hold of one version, by feature."""
    found = {"rows": {}, "missing_rows": {}, "unknown_rows": {}, "reference_rows": {}}
    for kind, features in found.items():
        suffix = "" if kind == "reference_rows" else "_total"
        for labels, value in parse_metric(text, f"clearway_serve_feature_{kind}{suffix}"):
            of, feature, place = SAMPLE.fullmatch(labels).groups()
            if of == digest and place is None:
                features[feature] = value
            elif of == digest:
                assert int(place) == len(features.setdefault(feature, []))
                features[feature].append(value)
    return found


def metrics_of(server, digest):
    return read(call(server, "GET", "/metrics").body.decode(), digest)


def without_reference(found):
    return {kind: features for kind, features in found.items() if kind != "reference_rows"}


@pytest.fixture
def server(env):
    made = make_server(env, product=PRODUCT, isolates=False)
    yield made
    made.prediction_log.close()


@pytest.fixture
def put(env, server):
    """Load a version that carries the reference."""

    def load(bias=0.1):
        ref = make_package(env, bias, reference=REFERENCE)
        server.versions.load(ref.uri, ref.digest, epoch=1)
        server.versions.set_weights({ref.digest: 100.0}, epoch=1)
        return ref

    return load


def body_of(rows, kind):
    """(path, content type, body) of the same rows in one of the formats."""
    columns = [*NUMERIC, *CATEGORICAL]
    if kind == "lines":
        return "/invocations", b"application/jsonlines", b"\n".join(map(msgspec.json.encode, rows))
    if kind == "csv":
        lines = [columns, *(["" if row[name] is None else str(row[name]) for name in columns] for row in rows)]
        return "/invocations", b"text/csv", "\n".join(map(",".join, lines)).encode()
    if kind == "arrow":
        sink, table = pa.BufferOutputStream(), pa.Table.from_pylist(rows)
        with pa.ipc.new_stream(sink, table.schema) as stream:
            stream.write_table(table)
        return "/invocations", b"application/vnd.apache.arrow.stream", sink.getvalue().to_pybytes()
    if kind == "v2":
        types_of = dict.fromkeys(NUMERIC, "FP64") | {"carrier": "BYTES"}
        tensors = [
            {"name": name, "shape": [len(rows)], "datatype": types_of[name], "data": [row[name] for row in rows]}
            for name in columns
        ]
        return f"/v2/models/{PRODUCT}/infer", b"application/json", msgspec.json.encode({"inputs": tensors})
    if kind == "split":
        split = {"dataframe_split": {"columns": columns, "data": [[row[name] for name in columns] for row in rows]}}
        return "/invocations", b"application/json", msgspec.json.encode(split)
    return "/invocations", b"application/json", msgspec.json.encode({"instances": rows})


@pytest.mark.parametrize("kind", ["instances", "split", "lines", "csv", "arrow", "v2"])
def test_every_answered_row_is_counted_once_in_every_format(server, put, kind):
    ref, asked = put(), []
    for number, num_rows in enumerate((1, 3, 16, 17, 300, 2)):
        rows = asked_rows(num_rows, seed=number)
        path, content_type, body = body_of(rows, kind)
        assert call(server, "POST", path, body, headers=[(b"content-type", content_type)]).status == 200
        asked += rows
    found = metrics_of(server, ref.digest)
    assert without_reference(found) == counted(asked)
    table = pa.Table.from_pylist(asked)
    for drift in compare(REFERENCE, table):
        shares = found["reference_rows"][drift.name], found["rows"][drift.name]
        assert psi(*shares) == pytest.approx(drift.psi)
        assert found["missing_rows"][drift.name] / len(asked) == pytest.approx(drift.missing)
        if drift.kind == "categorical":
            assert total_variation(*shares) == pytest.approx(drift.distance)


def test_what_is_answered_at_once_is_counted_as_well(server, put):
    ref, rows = put(), asked_rows(40, seed=9)
    answers = run(server, *([message(body_of([row], "instances")[2])] for row in rows))
    assert {status_of(answer) for (answer,) in answers} == {200}
    assert without_reference(metrics_of(server, ref.digest)) == counted(rows)


def test_probes_and_refused_rows_are_not_counted_and_versions_are_counted_apart(server, put):
    one, rows = put(0.1), asked_rows(5, seed=1)
    _, _, body = body_of(rows, "instances")
    probe = [*JSON_HEADERS, (b"x-clearway-probe", b"1")]
    assert call(server, "POST", "/invocations", body, headers=probe).status == 200
    assert call(server, "POST", "/invocations", body_of([{"hour": 1}], "instances")[2]).status == 422
    assert without_reference(metrics_of(server, one.digest)) == EMPTY
    assert call(server, "POST", "/invocations", body).status == 200
    two = put(0.2)
    assert call(server, "POST", "/invocations", body_of(rows[:2], "instances")[2]).status == 200
    assert without_reference(metrics_of(server, one.digest)) == counted(rows)
    assert without_reference(metrics_of(server, two.digest)) == counted(rows[:2])
    server.versions.unload(one.digest, epoch=1)
    assert metrics_of(server, one.digest) == EMPTY | {"reference_rows": {}}


def fake_package(digest, *, features=REFERENCE["features"], carriers=CARRIERS):
    """What is read of a package."""
    encoder = Encoder(numeric=NUMERIC, categorical=CATEGORICAL, vocabulary={"carrier": carriers})
    return types.SimpleNamespace(digest=digest, encoder=encoder, reference={"features": features})


@pytest.mark.parametrize("carriers", [CARRIERS, ("AA", "ZZ"), ()], ids=str)
def test_rows_wait_in_bounded_number_and_none_is_lost_by_it(carriers):
    counts, package, most = FeatureCounts(), fake_package("a", carriers=carriers), 0
    rows = asked_rows(3 * BATCH_ROWS, seed=2)
    for row in rows:
        counts.offer(package, [row])
        most = max(most, counts._tallies["a"].num_waiting)
    assert most == BATCH_ROWS - 1
    assert without_reference(read(counts.render({"a"}).decode(), "a")) == counted(rows, carriers=carriers)


def test_long_texts_do_not_wait():
    counts, package = FeatureCounts(), fake_package("a")
    row = dict.fromkeys(NUMERIC, 1.0)
    counts.offer(package, [row | {"carrier": "AA"}])
    tracemalloc.start()
    for number in range(BATCH_ROWS // 2):
        counts.offer(package, [row | {"carrier": f"{number}" * 100_000}])
    num_bytes, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert num_bytes < 100_000
    assert read(counts.render("a").decode(), "a")["unknown_rows"] == {"carrier": BATCH_ROWS // 2}


def test_versions_asked_longest_ago_are_forgotten(monkeypatch):
    monkeypatch.setattr(feature_counts, "MAX_VERSIONS", 2)
    counts, rows = FeatureCounts(), asked_rows(BATCH_ROWS, seed=3)
    for digest in ("a", "b", "a", "c"):
        counts.offer(fake_package(digest), rows)
    text = counts.render("abc").decode()
    assert {digest for digest in "abc" if read(text, digest)["rows"]} == {"a", "c"}


@pytest.mark.parametrize("described", [(), ("hour",), ("distance", "carrier"), ("carrier",)], ids=str)
def test_only_features_with_a_reference_are_counted(described):
    features, rows = {name: REFERENCE["features"][name] for name in described}, asked_rows(50, seed=4)
    counts, package = FeatureCounts(), fake_package("a", features=features)
    counts.offer(package, rows)
    found = read(counts.render("a").decode(), "a")
    wanted = {kind: {k: v for k, v in of.items() if k in described} for kind, of in counted(rows).items()}
    assert without_reference(found) == wanted
    assert found["reference_rows"] == {name: features[name]["counts"] for name in described}


def test_a_feature_with_an_awkward_name_stays_one_label():
    name = 'a "b"\\\nc'
    features = {name: REFERENCE["features"]["hour"]}
    encoder = Encoder(numeric=(name,), categorical=(), vocabulary={})
    package = types.SimpleNamespace(digest="a", encoder=encoder, reference={"features": features})
    counts = FeatureCounts()
    counts.offer(package, [{name: 1.0}])
    lines = counts.render("a").decode().splitlines()
    assert r'clearway_serve_feature_missing_rows_total{model_digest="a",feature="a \"b\"\\\nc"} 0' in lines


def test_a_request_that_loses_its_version_meanwhile_is_still_answered(env, server, put):
    """A version is unloaded between the choice and the answer."""
    ref = put()
    version = server.versions.serving.loaded[ref.digest]
    other = put(0.2)
    server.versions.unload(ref.digest, epoch=1)
    sent = []

    async def ask():
        async def receive():
            return {"type": "http.request", "body": body_of(asked_rows(1, seed=6), "instances")[2], "more_body": False}

        async def send(part):
            sent.append(part)

        scope = {"type": "http", "path": "/invocations", "method": "POST", "headers": list(JSON_HEADERS)}
        await server.answer_in_full(version, scope, receive, send)

    asyncio.run(ask())
    assert sent[0]["status"] == 200
    assert metrics_of(server, other.digest) == EMPTY | {"reference_rows": {}}
