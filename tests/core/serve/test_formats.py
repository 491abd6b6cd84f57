"""Every format of a body and of an answer, through the app: the same rows get the same scores, bad ones a clear 4xx."""

import json
import tracemalloc

import msgspec
import pyarrow as pa
import pyarrow.ipc
import pytest

from clearway.infra.environment import Environment
from clearway.serve.columnar import MAX_BATCHES
from clearway.serve.formats import MAX_COLUMNS
from serving_kit import PRODUCT, ROW, InProcessEndpoint, call, make_package

LINES, CSV = b"application/jsonlines", b"text/csv"
ARROW = b"application/vnd.apache.arrow.stream"
ROWS = [ROW, {"hour": 3.0, "distance": None, "carrier": "ZZ"}, {"hour": 9.0, "distance": 80.0, "carrier": None}]
TABLE = pa.Table.from_pylist(ROWS)
INFER = f"/v2/models/{PRODUCT}/infer"


def arrow(table, **options):
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema, options=pa.ipc.IpcWriteOptions(**options)) as stream:
        stream.write_table(table)
    return sink.getvalue().to_pybytes()


def tensor(name, datatype, data, **fields):
    return {"name": name, "shape": [len(data)], "datatype": datatype, "data": data, **fields}


def tensors(rows=ROWS):
    kinds = {"hour": "FP64", "distance": "FP64", "carrier": "BYTES"}
    return {"inputs": [tensor(name, kind, [row[name] for row in rows]) for name, kind in kinds.items()]}


BODIES = {
    "json": (b"application/json", msgspec.json.encode({"instances": ROWS})),
    "lines": (LINES, b"\n".join(map(msgspec.json.encode, ROWS)) + b"\n"),
    "csv": (CSV, b"hour,distance,carrier\r\n7,500.0,AA\r\n3e0,,ZZ\r\n9,80,\r\n"),
    "csv with mark and quotes": (CSV, b'\xef\xbb\xbfhour,"distance",carrier\n7,"500",AA\n3,,"ZZ"\n+9,80.,""\n'),
    "arrow": (ARROW, arrow(TABLE)),
    "arrow of dictionaries": (ARROW, arrow(TABLE.set_column(2, "carrier", TABLE["carrier"].dictionary_encode()))),
}


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    env = Environment.load({"CLEARWAY__HOME": str(home), "CLEARWAY__STORAGE__ROOT": (home / "store").as_uri()})
    endpoint, ref = InProcessEndpoint(env), make_package(env, 0.3)
    endpoint.load(uri=ref.uri, digest=ref.digest, epoch=1)
    endpoint.set_weights({ref.digest: 100.0}, epoch=1)
    yield endpoint.server, ref
    endpoint.close()


@pytest.fixture
def live(shared):
    return shared[0]


def send(app, kind, data, *headers):
    return call(app, "POST", "/invocations", data, headers=[(b"content-type", kind), *headers])


def expected(app):
    return send(app, *BODIES["json"]).json["predictions"]


@pytest.mark.parametrize("name", BODIES)
def test_the_same_rows_get_the_same_scores_in_every_format(live, name):
    assert send(live, *BODIES[name]).json["predictions"] == expected(live)


def test_v2_gets_the_same_scores_and_names_the_model(shared):
    app, ref = shared
    answer = call(app, "POST", INFER, msgspec.json.encode({**tensors(), "id": "a-1"})).json
    output = {"name": "score", "datatype": "FP64", "shape": [3], "data": expected(app)}
    assert answer == {
        "id": "a-1",
        "model_name": PRODUCT,
        "model_version": ref.digest,
        "outputs": [output],
        "parameters": {"model_digest": ref.digest},
    }


def test_v2_takes_columns_of_shape_rows_by_one_and_every_datatype(live):
    inputs = [
        {"name": "hour", "shape": [2, 1], "datatype": "INT64", "data": [[7], [None]]},
        tensor("distance", "BOOL", [True, None]),
        tensor("carrier", "BYTES", ["AA", None]),
    ]
    got = call(live, "POST", INFER, msgspec.json.encode({"inputs": inputs})).json["outputs"][0]["data"]
    rows = [{"hour": 7, "distance": 1, "carrier": "AA"}, {"hour": None, "distance": None, "carrier": None}]
    assert got == send(live, b"application/json", msgspec.json.encode({"instances": rows})).json["predictions"]


def test_v2_describes_the_server_and_the_model(shared):
    app, ref = shared
    assert call(app, "GET", "/v2").json["name"] == "clearway"
    for path in ("/v2/health/live", "/v2/health/ready", f"/v2/models/{PRODUCT}/ready"):
        assert call(app, "GET", path).status == 200
    model = call(app, "GET", f"/v2/models/{PRODUCT}").json
    assert model["versions"] == [ref.digest]
    assert {part["name"]: part["datatype"] for part in model["inputs"]} == {
        "hour": "FP64",
        "distance": "FP64",
        "carrier": "BYTES",
    }
    assert call(app, "GET", "/v2/models/other").status == 404


def test_v2_is_live_but_not_ready_without_a_model(env):
    endpoint = InProcessEndpoint(env)
    assert call(endpoint.server, "GET", "/v2/health/live").status == 200
    for path in ("/v2/health/ready", f"/v2/models/{PRODUCT}/ready", f"/v2/models/{PRODUCT}"):
        assert call(endpoint.server, "GET", path).status == 503
    endpoint.close()


BAD_TENSORS = {
    "other datatype": {"inputs": [tensor("hour", "FP16", [1.0])]},
    "text for number": {"inputs": [tensor("hour", "FP64", ["1"])]},
    "bool for number": {"inputs": [tensor("hour", "INT64", [True])]},
    "shape lies": {"inputs": [tensor("hour", "FP64", [1.0], shape=[2])]},
    "negative shape": {"inputs": [tensor("hour", "FP64", [], shape=[-1])]},
    "wide shape": {"inputs": [tensor("hour", "FP64", [1.0, 2.0], shape=[1, 2])]},
    "no inputs": {"inputs": []},
    "twice": {"inputs": [tensor("hour", "FP64", [1.0])] * 2},
    "unequal": {"inputs": [tensor("hour", "FP64", [1.0]), tensor("distance", "FP64", [1.0, 2.0])]},
    "other output": {**tensors(), "outputs": [{"name": "x"}]},
    "binary": {"inputs": [tensor("hour", "FP64", [1.0], parameters={"binary_data_size": 8})]},
    "bad id": {**tensors(), "id": "a b"},
    "huge shape": {"inputs": [tensor("hour", "FP64", [1.0], shape=[10**30])]},
    "not an object": [],
    "missing column": {"inputs": [tensor("hour", "FP64", [1.0])]},
}


@pytest.mark.parametrize("name", BAD_TENSORS)
def test_a_bad_v2_request_is_refused_in_the_protocols_form(live, name):
    answer = call(live, "POST", INFER, json.dumps(BAD_TENSORS[name]).encode())
    assert answer.status in {413, 422}, answer.body
    assert isinstance(answer.json["error"], str)


@pytest.mark.parametrize("place", ["name", "datatype", "data"])
def test_half_a_character_in_a_v2_request_is_400(live, place):
    broken = {**tensor("carrier", "BYTES", ["AA"]), place: ["\ud800"] if place == "data" else "\ud800"}
    answer = call(live, "POST", INFER, json.dumps({"inputs": [broken]}).encode())
    assert (answer.status, answer.json["code"]) == (400, "bad_encoding")


@pytest.mark.parametrize(
    ("accept", "kind", "lines"),
    [
        (b"text/csv", "text/csv; charset=utf-8", 4),
        (b"application/jsonlines", "application/jsonlines", 3),
        (b"text/csv;q=0.3, application/jsonlines;q=0.5", "application/jsonlines", 3),
        (b"image/png, */*;q=0.1", "application/json", 1),
    ],
)
def test_the_answer_has_the_format_the_caller_likes_best(live, accept, kind, lines):
    answer = send(live, *BODIES["json"], (b"accept", accept))
    assert answer.headers["content-type"] == kind
    assert len(answer.body.decode().splitlines()) == lines


def test_scores_in_csv_and_json_lines_are_those_of_json(live):
    in_csv = send(live, *BODIES["json"], (b"accept", CSV)).body.decode().splitlines()[1:]
    in_lines = send(live, *BODIES["json"], (b"accept", LINES)).body.splitlines()
    assert [float(line.split(",")[0]) for line in in_csv] == expected(live)
    assert [json.loads(line)["prediction"] for line in in_lines] == expected(live)


@pytest.mark.parametrize("accept", [b"image/png", b"application/json;q=0", b"text/csv;q=x", b""])
def test_an_answer_that_does_not_exist_is_406(live, accept):
    assert send(live, *BODIES["json"], (b"accept", accept)).status == 406


def wide(num_columns):
    return pa.table({f"c{i}": [1.0] for i in range(num_columns)})


def lines_of(num_rows):
    return b"hour,distance,carrier\n" + b"1,2,AA\n" * num_rows


REFUSED = {
    "lines: empty": (LINES, b"", 422),
    "lines: blank line": (LINES, b"{}\n\n{}", 400),
    "lines: name twice": (LINES, b'{"hour":1,"hour":2}', 400),
    "lines: a list": (LINES, b"[1]", 422),
    "lines: nested": (LINES, b'{"hour":[1]}', 422),
    "lines: deep": (LINES, b"[" * 100_000, 400),
    "lines: NaN": (LINES, b'{"hour":NaN}', 400),
    "lines: too many": (LINES, b"{}\n" * 1001, 413),
    "csv: empty": (CSV, b"", 422),
    "csv: no rows": (CSV, b"hour,distance,carrier\n", 422),
    "csv: too many": (CSV, lines_of(1001), 413),
    "csv: ragged": (CSV, b"hour,distance,carrier\n1,2\n", 422),
    "csv: name twice": (CSV, b"hour,hour,carrier\n1,2,3\n", 422),
    "csv: not UTF-8": (CSV, b"hour,distance,carrier\n1,2,\xff\n", 400),
    "csv: NUL": (CSV, b"hour,distance,carrier\n1,2\0,AA\n", 422),
    "csv: open quote": (CSV, b'hour,distance,carrier\n1,2,"AA\n', 400),
    "csv: nan": (CSV, b"hour,distance,carrier\nnan,2,AA\n", 422),
    "csv: inf": (CSV, b"hour,distance,carrier\n1e999,2,AA\n", 422),
    "csv: underscore": (CSV, b"hour,distance,carrier\n1_0,2,AA\n", 422),
    "csv: other digits": (CSV, "hour,distance,carrier\n٣,2,AA\n".encode(), 422),
    "csv: huge field": (CSV, b"hour,distance,carrier\n1,2," + b"x" * 200_000 + b"\n", 400),
    "csv: too wide": (CSV, b",".join(b"c%d" % i for i in range(MAX_COLUMNS + 1)) + b"\n", 422),
    "arrow: noise": (ARROW, b"\xff\xff\xff\xff" + b"x" * 50, 400),
    "arrow: cut": (ARROW, arrow(TABLE)[:-60], 400),
    "arrow: no rows": (ARROW, arrow(TABLE.slice(0, 0)), 422),
    "arrow: too many": (ARROW, arrow(pa.table({"hour": pa.nulls(1001)})), 413),
    "arrow: compressed": (ARROW, arrow(pa.table({"a": ["x" * (1 << 24)]}), compression="zstd"), 422),
    "arrow: compressed dictionary": (
        ARROW,
        arrow(pa.table({"a": pa.array(["x" * (1 << 24)]).dictionary_encode()}), compression="lz4"),
        422,
    ),
    "arrow: struct": (ARROW, arrow(pa.table({"hour": [{"a": 1}]})), 422),
    "arrow: empty": (ARROW, b"", 400),
    "arrow: many parts": (
        ARROW,
        arrow(pa.Table.from_batches(pa.table({"hour": [1.0] * (MAX_BATCHES + 5)}).to_batches(max_chunksize=1))),
        413,
    ),
    "parquet": (b"application/vnd.apache.parquet", b"PAR1PAR1", 415),
    "another type": (b"application/x-www-form-urlencoded", b"a=b", 415),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_body_no_row_can_come_from_is_refused(live, name):
    kind, data, status = REFUSED[name]
    answer = send(live, kind, data)
    assert answer.status == status, answer.body
    assert answer.json["error"]["message"]


def test_a_thousand_rows_that_name_one_long_text_stay_one_text_in_memory(live):
    carrier = pa.array(["x" * 300_000] * 900).dictionary_encode()
    data = arrow(pa.table({"hour": [1.0] * 900, "distance": [1.0] * 900, "carrier": carrier}))
    assert len(data) < 1 << 20
    tracemalloc.start()
    try:
        assert send(live, ARROW, data).status == 200
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()
