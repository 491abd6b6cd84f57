"""The ASGI app: dispatch, answers, split, limits, admin calls. No sockets; requests go straight in."""

import asyncio
import json
import random
from collections import Counter

import msgspec
import pytest

from clearway.infra.environment import Environment
from clearway.infra.layout import Layout
from clearway.infra.storage import LocalStorage
from clearway.serve.app import Limits
from clearway.serve.counters import parse_metric
from clearway.serve.logged import logged_by
from clearway.serve.process import make_server
from serving_kit import JSON_HEADERS, PRODUCT, ROW, InProcessEndpoint, call, call_async, expected_score, make_package


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """One server with one version and all traffic on it, for tests that change neither."""
    home = tmp_path_factory.mktemp("home")
    variables = {"CLEARWAY__HOME": str(home), "CLEARWAY__STORAGE__ROOT": (home / "store").as_uri()}
    env = Environment.load(variables)
    endpoint, ref = InProcessEndpoint(env), make_package(env, 0.3)
    endpoint.load(uri=ref.uri, digest=ref.digest, epoch=1)
    endpoint.set_weights({ref.digest: 100.0}, epoch=1)
    yield env, endpoint, ref
    endpoint.close()


@pytest.fixture
def live(shared):
    """The shared server's app."""
    return shared[1].server


@pytest.fixture
def ref(shared):
    """The version that answers there."""
    return shared[2]


@pytest.fixture
def limited(shared):
    """More servers over the shared state, with limits of the test's choice."""
    made = []

    def make(**limits):
        made.append(make_server(shared[0], product=PRODUCT, limits=Limits(**limits)))
        made[-1].versions.restore()
        return made[-1]

    yield make
    for app in made:
        app.prediction_log.close()


@pytest.fixture
def endpoint(env):
    """A fresh server with nothing loaded."""
    made = InProcessEndpoint(env)
    yield made
    made.close()


@pytest.fixture
def app(endpoint):
    """Its app."""
    return endpoint.server


def body_of(*rows, **fields):
    return msgspec.json.encode({"instances": list(rows), **fields})


def admin(app, method, path, body=None, *, token=None, query=b""):
    token = app._token if token is None else token
    headers = [*JSON_HEADERS, (b"authorization", f"Bearer {token}".encode())]
    data = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
    return call(app, method, path, data, headers=headers, query=query)


def metric(app, name):
    return dict(parse_metric(call(app, "GET", "/metrics").body.decode(), name))


def test_an_answer_carries_scores_and_the_model_that_gave_them(live, ref):
    answer = call(live, "POST", "/invocations", body_of(ROW, {**ROW, "carrier": "ZZ"}))
    assert answer.status == 200
    assert answer.json["model_digest"] == answer.headers["x-clearway-model-digest"] == ref.digest
    expected = [expected_score(0.3, ROW), expected_score(0.3, {**ROW, "carrier": "ZZ"})]
    assert answer.json["predictions"] == pytest.approx(expected, abs=1e-6)
    assert answer.headers["content-type"] == "application/json"


def test_many_rows_go_through_a_thread_and_come_back_in_order(live):
    rows = [{**ROW, "distance": float(i)} for i in range(700)]
    answer = call(live, "POST", "/invocations", body_of(*rows))
    assert answer.json["predictions"] == pytest.approx([expected_score(0.3, row) for row in rows], abs=1e-6)


def test_ping_is_200_only_while_a_model_takes_traffic(env, app, endpoint):
    assert call(app, "GET", "/ping").status == 503
    assert call(app, "GET", "/healthz").status == 200
    ref = make_package(env, 0.3)
    endpoint.load(uri=ref.uri, digest=ref.digest, epoch=1)
    assert call(app, "GET", "/ping").status == 503
    endpoint.set_weights({ref.digest: 100.0}, epoch=1)
    assert call(app, "GET", "/ping").status == 200
    endpoint.set_weights({}, epoch=1)
    assert call(app, "GET", "/ping").status == 503


def test_without_a_model_a_caller_is_told_to_come_back(app):
    answer = call(app, "POST", "/invocations", body_of(ROW))
    assert (answer.status, answer.code, answer.headers["retry-after"]) == (503, "no_model", "1")


@pytest.mark.parametrize("path", ["/ping", "/healthz", "/metrics"])
def test_head_gets_the_headers_of_get_without_a_body(live, path):
    got, head = call(live, "GET", path), call(live, "HEAD", path)
    assert (head.status, head.body) == (got.status, b"")
    assert head.headers["content-type"] == got.headers["content-type"]


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("GET", "/invocations", "POST"),
        ("HEAD", "/invocations", "POST"),
        ("OPTIONS", "/invocations", "POST"),
        ("POST", "/ping", "GET, HEAD"),
        ("DELETE", "/metrics", "GET, HEAD"),
        ("TRACE", "/healthz", "GET, HEAD"),
    ],
)
def test_a_method_that_does_not_fit_is_405_and_says_what_does(live, method, path, allow):
    answer = call(live, method, path)
    assert (answer.status, answer.headers["allow"]) == (405, allow)


@pytest.mark.parametrize("path", ["/", "/invocations/", "/Ping", "/admin", "//ping", "/favicon.ico", "/\u2028"])
def test_an_unknown_path_is_404(app, path):
    assert call(app, "GET", path).status == 404


@pytest.mark.parametrize(
    ("row", "field", "words"),
    [
        ({"hour": 1.0, "distance": 2.0}, "carrier", "is missing"),
        ({**ROW, "extra": 1}, "extra", "is not a column"),
        ({**ROW, "hour": "7"}, "hour", "is a str"),
        ({**ROW, "carrier": 7}, "carrier", "is a int"),
        ({**ROW, "distance": 10**39}, "distance", "float32"),
        ({**ROW, "distance": 10**400}, "distance", "float32"),
    ],
    ids=["missing", "extra", "text for number", "number for text", "over float32", "over float64"],
)
def test_a_row_the_model_does_not_take_is_422_naming_row_and_field(live, row, field, words):
    answer = call(live, "POST", "/invocations", json.dumps({"instances": [ROW, row]}).encode())
    assert (answer.status, answer.code) == (422, "bad_value")
    message = answer.json["error"]["message"]
    assert "row 1" in message
    assert field in message
    assert words in message


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [(b"content-type", b"text/plain")],
        [(b"content-type", b"application/json; charset=latin-1")],
        [(b"content-type", b"application/jsonx")],
        [(b"content-type", b"multipart/form-data; boundary=x")],
        [(b"content-type", b"application/json"), (b"content-encoding", b"gzip")],
    ],
    ids=str,
)
def test_another_content_type_or_encoding_is_415(live, headers):
    assert call(live, "POST", "/invocations", body_of(ROW), headers=headers).status == 415


@pytest.mark.parametrize("kind", [b"application/json", b"Application/JSON", b'application/json; charset="UTF-8"'])
def test_json_in_utf8_is_taken_however_it_is_spelled(live, kind):
    assert call(live, "POST", "/invocations", body_of(ROW), headers=[(b"content-type", kind)]).status == 200


def test_a_body_over_the_limit_is_413_declared_or_streamed(limited):
    app = limited(max_body_bytes=1000)
    declared = [*JSON_HEADERS, (b"content-length", b"1001")]
    assert call(app, "POST", "/invocations", b"", headers=declared).status == 413
    assert call(app, "POST", "/invocations", b"x" * 1001).status == 413
    answer = call(app, "POST", "/invocations", parts=[b"x" * 400] * 3)
    assert (answer.status, answer.headers["connection"]) == (413, "close")


def test_a_streamed_body_is_put_together(live):
    data = body_of(ROW)
    assert call(live, "POST", "/invocations", parts=[data[:7], b"", data[7:]]).status == 200


def test_a_body_that_does_not_come_is_408(limited):
    answer = call(limited(body_timeout_s=0.05), "POST", "/invocations", parts=[])
    assert (answer.status, answer.code, answer.headers["connection"]) == (408, "body_timeout", "close")


def test_requests_beyond_the_limit_are_shed_and_the_rest_is_answered(limited):
    app = limited(max_in_flight=4)
    big = body_of(*[ROW] * 300)

    async def burst():
        return await asyncio.gather(*(call_async(app, "POST", "/invocations", big) for _ in range(10)))

    statuses = Counter(answer.status for answer in asyncio.run(burst()))
    assert statuses == {200: 4, 503: 6}
    assert call(app, "POST", "/invocations", body_of(ROW)).status == 200


def test_a_client_that_leaves_is_no_error(live):
    async def leave():
        async def receive():
            return {"type": "http.disconnect"}

        async def send(message):
            raise AssertionError(f"nobody listens: {message}")

        scope = {"type": "http", "path": "/invocations", "method": "POST", "headers": list(JSON_HEADERS)}
        await live(scope, receive, send)

    asyncio.run(leave())
    assert any('code="499"' in labels for labels in metric(live, "clearway_serve_requests_total"))


def test_a_path_with_a_slash_too_many_is_404_and_no_redirect_to_the_host_a_caller_claims(live):
    assert admin(live, "POST", "/admin/flush/").status == 404


TRACE = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def test_a_valid_trace_is_echoed_and_names_the_request(live):
    answer = call(live, "POST", "/invocations", body_of(ROW), headers=[*JSON_HEADERS, (b"traceparent", TRACE)])
    assert answer.headers["traceparent"] == TRACE.decode()
    assert answer.headers["x-request-id"] == "0af7651916cd43dd8448eb211c80319c"


@pytest.mark.parametrize(
    "given",
    [b"", b"ff" + TRACE[2:], TRACE.upper(), TRACE + b"-x", TRACE.replace(b"b7ad6b7169203331", b"0" * 16), b"\xff" * 55],
)
def test_a_broken_trace_is_replaced_by_a_new_one(live, given):
    answer = call(live, "POST", "/invocations", body_of(ROW), headers=[*JSON_HEADERS, (b"traceparent", given)])
    found = answer.headers["traceparent"]
    assert len(found) == len(TRACE)
    assert found.encode() != given
    assert found[3:35] != TRACE[3:35].decode()


def test_a_request_without_a_trace_gets_none(live):
    assert "traceparent" not in call(live, "POST", "/invocations", body_of(ROW)).headers


def test_a_refusal_and_a_slow_answer_are_logged_with_their_trace(limited, caplog):
    headers = [*JSON_HEADERS, (b"traceparent", TRACE)]
    with caplog.at_level("DEBUG", logger="clearway.serve"):
        assert call(limited(slow_s=0.0), "POST", "/invocations", b"{", headers=headers).status == 400
    found = {record.message: record for record in caplog.records}
    assert found["refused"].trace_id == found["slow answer"].trace_id == "0af7651916cd43dd8448eb211c80319c"
    assert (found["refused"].code, found["slow answer"].status) == ("bad_json", 400)


@pytest.mark.parametrize("path", ["/ping", "/invocations", "/docs", "/openapi.json", "/nothing", "/v2", "/admin/state"])
def test_every_answer_has_the_security_headers(live, path):
    headers = call(live, "GET", path).headers
    wanted = {"x-content-type-options": "nosniff", "cache-control": "no-store", "referrer-policy": "no-referrer"}
    assert {name: headers.get(name) for name in wanted} == wanted
    assert ("content-security-policy" in headers) is (path == "/docs")
    assert "server" not in headers


def outcome(ref, key, value, **fields):
    return {"key": key, "model_digest": ref.digest, "value": value, **fields}


def report(app, *outcomes):
    return call(app, "POST", "/outcomes", json.dumps({"outcomes": outcomes}).encode())


def test_an_outcome_counts_once_for_the_version_that_answered(env, app, endpoint):
    ref = make_package(env, 0.3)
    endpoint.load(uri=ref.uri, digest=ref.digest, epoch=1)
    endpoint.set_weights({ref.digest: 100.0}, epoch=1)
    assert report(app, outcome(ref, "a", 1), outcome(ref, "b", 0.5)).json == {"num_counted": 2, "num_repeated": 0}
    assert report(app, outcome(ref, "a", 0), outcome(ref, "a", 0, request_id="r")).json == {
        "num_counted": 1,
        "num_repeated": 1,
    }
    arm = endpoint.observe(epoch=1).arms[ref.digest]
    assert (arm.num_outcomes, arm.outcome_sum, arm.outcome_square_sum) == (3, 1.5, 1.25)


def test_outcomes_that_cannot_be_are_refused_and_none_of_the_body_counts(shared):
    _, endpoint, ref = shared
    before = endpoint.observe(epoch=1).arms
    good = outcome(ref, "new", 1)
    bad = [
        outcome(ref, "x", 1.5),
        outcome(ref, "x", -0.1),
        outcome(ref, "", 1),
        outcome(ref, "x" * 201, 1),
        outcome(ref, "x", True),
        outcome(ref, "x", "1"),
        outcome(ref, "x", 1, extra=1),
        {"key": "x", "model_digest": "0" * 64, "value": 1},
        {"key": "x", "model_digest": "../x", "value": 1},
    ]
    for one in bad:
        assert report(endpoint.server, good, one).status == 422, one
    assert report(endpoint.server, *[good] * 1001).status == 413
    assert call(endpoint.server, "POST", "/outcomes", b'{"outcomes":[NaN]}').status == 400
    assert call(endpoint.server, "POST", "/outcomes", b"x", headers=[(b"content-type", b"text/csv")]).status == 415
    assert endpoint.observe(epoch=1).arms == before


def test_a_split_honours_shares_and_sticky_keys(env, app, endpoint):
    one, two = make_package(env, 0.3), make_package(env, 0.6)
    for ref in (one, two):
        endpoint.load(uri=ref.uri, digest=ref.digest, epoch=1)
    endpoint.set_weights({two.digest: 20.0, one.digest: 80.0}, epoch=1)
    app.random_source = random.Random(5)  # noqa: S311

    async def ask(num, headers=()):
        data = body_of(ROW)
        answers = [
            await call_async(app, "POST", "/invocations", data, headers=[*JSON_HEADERS, *headers]) for _ in range(num)
        ]
        return Counter(answer.json["model_digest"] for answer in answers)

    counts = asyncio.run(ask(1000))
    assert abs(counts[two.digest] - 200) < 3 * (1000 * 0.2 * 0.8) ** 0.5
    for user in (b"ann", b"bob", b"cyd"):
        assert len(asyncio.run(ask(20, [(b"x-clearway-sticky-key", user)]))) == 1


def test_answers_are_logged_with_their_keys_and_probes_are_not(live, ref, shared):
    num_before = live.prediction_log.num_written + live.prediction_log.num_pending
    call(live, "POST", "/invocations", body_of(ROW, ROW, keys=["a", "b"], batch_id="2013-04-01"))
    headers = [*JSON_HEADERS, (b"x-clearway-probe", b"1")]
    call(live, "POST", "/invocations", body_of(ROW, keys=["p"], batch_id="2013-04-01"), headers=headers)
    call(live, "POST", "/invocations", body_of({}, keys=["bad"], batch_id="2013-04-01"))
    live.prediction_log.flush()
    found = logged_by(LocalStorage(), Layout(shared[0].store_root, PRODUCT), "2013-04-01")
    assert found == {"a": ref.digest, "b": ref.digest}
    assert metric(live, "clearway_serve_prediction_log_written_rows_total") == {"": num_before + 2}


@pytest.mark.parametrize(
    ("given", "is_kept"), [(b"abc-123", True), (b"a b", False), (b"x" * 65, False), (b"a\xff", False), (b"", False)]
)
def test_a_sane_request_id_is_kept_and_a_strange_one_replaced(live, given, is_kept):
    answer = call(live, "POST", "/invocations", body_of(ROW), headers=[*JSON_HEADERS, (b"x-request-id", given)])
    assert (answer.headers["x-request-id"] == given.decode("latin-1")) is is_kept


ADMIN = [
    ("GET", "/admin/state"),
    ("POST", "/admin/versions"),
    ("DELETE", f"/admin/versions/{'0' * 64}"),
    ("GET", f"/admin/versions/{'0' * 64}/examples"),
    ("PUT", "/admin/traffic"),
    ("POST", "/admin/score"),
    ("POST", "/admin/flush"),
    ("POST", "/admin/observe"),
    ("POST", "/admin/mirrored"),
    ("GET", "/admin/anything"),
]


@pytest.mark.parametrize(("method", "path"), ADMIN, ids=lambda v: v[-20:])
@pytest.mark.parametrize("token", ["", "wrong", "Bearer"])
def test_no_admin_call_without_the_token(live, method, path, token):
    before = live.versions.serving
    answer = admin(live, method, path, {}, token=token)
    assert (answer.status, answer.headers["www-authenticate"]) == (401, "Bearer")
    assert live.versions.serving is before


def test_every_admin_route_is_in_the_token_test(app):
    document = call(app, "GET", "/openapi.json").json
    known = {(m, p.replace("0" * 64, "{digest}")) for m, p in ADMIN}
    routes = {(verb.upper(), path) for path, item in document["paths"].items() for verb in item if "admin" in path}
    assert routes <= known
    assert all(op["security"] for path, item in document["paths"].items() if "admin" in path for op in item.values())


def test_admin_calls_load_switch_score_and_unload(env, app):
    one, two = make_package(env, 0.3), make_package(env, 0.6)
    for ref in (one, two):
        assert admin(app, "POST", "/admin/versions", {"uri": ref.uri, "digest": ref.digest, "epoch": 3}).status == 200
    assert admin(app, "PUT", "/admin/traffic", {"weights_pct": {one.digest: 100}, "epoch": 3}).status == 200
    state = admin(app, "GET", "/admin/state").json
    loaded = sorted([one.digest, two.digest])
    idle = {"mirror": None, "dead_man": None, "broken": {}}
    assert state == {"weights_pct": {one.digest: 100.0}, "loaded": loaded, "epoch": 3, **idle}
    scored = admin(app, "POST", "/admin/score", {"instances": [ROW]}, query=f"digest={two.digest}".encode())
    assert scored.json["predictions"] == [pytest.approx(expected_score(0.6, ROW), abs=1e-6)]
    examples = admin(app, "GET", f"/admin/versions/{one.digest}/examples").json
    assert call(app, "POST", "/invocations", msgspec.json.encode(examples)).status == 200
    assert admin(app, "DELETE", f"/admin/versions/{two.digest}", query=b"epoch=3").status == 200
    assert admin(app, "POST", "/admin/flush", {}).status == 200


DIGEST = "0" * 64
BAD_ADMIN = {
    "not JSON": ("PUT", "/admin/traffic", b"{", 422),
    "NaN weight": ("PUT", "/admin/traffic", b'{"weights_pct":{"' + DIGEST.encode() + b'":NaN},"epoch":9}', 422),
    "huge weight": ("PUT", "/admin/traffic", {"weights_pct": {DIGEST: 1e300}, "epoch": 9}, 422),
    "negative": ("PUT", "/admin/traffic", {"weights_pct": {DIGEST: -1}, "epoch": 9}, 422),
    "not loaded": ("PUT", "/admin/traffic", {"weights_pct": {DIGEST: 100}, "epoch": 9}, 422),
    "bad digest": ("PUT", "/admin/traffic", {"weights_pct": {"../x": 100}, "epoch": 9}, 422),
    "text epoch": ("PUT", "/admin/traffic", {"weights_pct": {}, "epoch": "9"}, 422),
    "bool epoch": ("PUT", "/admin/traffic", {"weights_pct": {}, "epoch": True}, 422),
    "huge epoch": ("PUT", "/admin/traffic", {"weights_pct": {}, "epoch": 10**30}, 422),
    "extra field": ("PUT", "/admin/traffic", {"weights_pct": {}, "epoch": 9, "x": 1}, 422),
    "old epoch": ("PUT", "/admin/traffic", {"weights_pct": {}, "epoch": 0}, 409),
    "surrogate": ("POST", "/admin/versions", b'{"uri":"\\ud800","digest":"x","epoch":9}', 422),
    "deep": ("POST", "/admin/versions", b"[" * 100_000, (400, 422)),
    "no package": ("POST", "/admin/versions", {"uri": "file:///nowhere", "digest": DIGEST, "epoch": 9}, 422),
    "other scheme": ("POST", "/admin/versions", {"uri": "ftp://x/y", "digest": DIGEST, "epoch": 9}, 422),
    "score unknown": ("POST", "/admin/score", {"instances": [ROW]}, 404),
    "score NaN": ("POST", "/admin/score", b'{"instances":[NaN]}', (400, 404)),
    "examples unknown": ("GET", f"/admin/versions/{DIGEST}/examples", None, 404),
    "wrong method": ("PATCH", "/admin/traffic", {}, 405),
}


@pytest.mark.parametrize("name", BAD_ADMIN)
def test_a_bad_admin_call_is_a_clear_4xx_and_moves_no_traffic(live, name):
    method, path, body, status = BAD_ADMIN[name]
    before = live.versions.serving.traffic
    answer = admin(live, method, path, body, query=b"digest=" + DIGEST.encode())
    assert answer.status in (status if isinstance(status, tuple) else (status,)), answer.body
    assert answer.json["error"]["message"]
    assert live.versions.serving.traffic is before


def test_openapi_shows_an_example_that_really_works(live):
    document = call(live, "GET", "/openapi.json").json
    content = document["paths"]["/invocations"]["post"]["requestBody"]["content"]["application/json"]
    assert call(live, "POST", "/invocations", json.dumps(content["example"]).encode()).status == 200
    row = content["schema"]["properties"]["instances"]["items"]
    assert row["required"] == ["hour", "distance", "carrier"]
    assert row["properties"]["carrier"]["examples"] == ["AA", "DL", "UA"]


def test_docs_need_nothing_from_another_host(live):
    page = call(live, "GET", "/docs").body.decode()
    assert "/invocations" in page
    assert "curl" in page
    assert "http://" not in page
    assert "https://" not in page
    assert "<script" not in page


def test_docs_answer_before_any_model_is_loaded(app):
    assert call(app, "GET", "/docs").status == 200
    assert call(app, "GET", "/openapi.json").status == 200


def test_no_answer_shows_a_path_of_this_machine_or_the_token(live, shared):
    for path in ("/ping", "/healthz", "/metrics", "/docs", "/openapi.json"):
        body = call(live, "GET", path).body.decode()
        assert str(shared[0].home) not in body
        assert live._token not in body
