"""Bad tokens on every route: none of them opens anything, changes anything, or gets an answer of class 5xx."""

import asyncio
import time

import pytest

from clearway.infra.environment import Environment
from clearway.serve.process import guarded, make_server
from hostile_kit import ROUTES
from serving_kit import JSON_HEADERS, PRODUCT, call, call_async
from tokens_kit import ADMINS, CALLERS, EDDSA, SIGNER, bad_headers, claims, pem, signed

MIN_TOKENS = 60
OPEN = {"/ping", "/healthz", "/metrics", "/docs", "/openapi.json", "/v2", "/v2/health/live", "/v2/health/ready"}
METHODS = ("GET", "POST", "PUT", "DELETE")
CLOSED = [
    (method, route) for route in [*ROUTES, "/nothing", "/admin/nothing"] if route not in OPEN for method in METHODS
]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """(server, gate before it) that asks callers and admins for tokens."""
    home = tmp_path_factory.mktemp("home")
    (home / "serving" / "jwt").mkdir(parents=True)
    (home / "serving" / "jwt" / "key.pem").write_bytes(pem(SIGNER))
    places = {"CLEARWAY__HOME": str(home), "CLEARWAY__STORAGE__ROOT": (home / "store").as_uri()}
    env = Environment.load(places | {"CLEARWAY__SERVING__CALLERS": "jwt", "CLEARWAY__SERVING__ADMINS": "jwt"})
    made = make_server(env, product=PRODUCT)
    yield made, guarded(made, env)
    made.prediction_log.close()


def headers_of(value):
    return [*JSON_HEADERS, *([] if value is None else [(b"authorization", value)])]


def audience_of(route):
    return ADMINS if route.startswith("/admin/") else CALLERS


@pytest.mark.parametrize("audience", [CALLERS, ADMINS])
def test_there_are_as_many_as_are_said(audience):
    assert len(bad_headers(audience)) >= MIN_TOKENS


def test_the_good_ones_that_these_were_made_from_are_taken(server):
    _, gate = server
    for method, route in (("POST", "/invocations"), ("POST", "/outcomes"), ("GET", f"/v2/models/{PRODUCT}")):
        bearer = b"Bearer " + signed(EDDSA, claims(CALLERS)).encode()
        assert call(gate, method, route, b"{}", headers=headers_of(bearer)).status != 401
    bearer = b"Bearer " + signed(EDDSA, claims(ADMINS, iat=time.time() + 5)).encode()
    assert call(gate, "GET", "/admin/state", headers=headers_of(bearer)).status == 200


@pytest.mark.parametrize("audience", [CALLERS, ADMINS])
def test_no_bad_token_opens_any_route(server, audience):
    app, gate = server
    before = app.versions.serving
    routes = [(method, route) for method, route in CLOSED if audience_of(route) == audience]
    assert len(routes) >= 20

    async def attack():
        opened = []
        for name, value in bad_headers(audience).items():
            for method, route in routes:
                answer = await call_async(gate, method, route, b'{"epoch":9}', headers=headers_of(value))
                if (answer.status, answer.headers.get("www-authenticate")) != (401, "Bearer"):
                    opened.append((name, method, route, answer.status))
                assert b"Traceback" not in answer.body
        return opened

    assert asyncio.run(attack()) == []
    assert app.versions.serving is before


@pytest.mark.parametrize("route", sorted(OPEN))
def test_what_is_open_ignores_bad_tokens(server, route):
    _, gate = server
    without = call(gate, "GET", route, headers=headers_of(None))
    for value in list(bad_headers(CALLERS).values())[::10]:
        answer = call(gate, "GET", route, headers=headers_of(value))
        assert answer.status == without.status


def test_a_thousand_replays_of_an_admin_token_are_refused(server):
    _, gate = server
    bearer = b"Bearer " + signed(EDDSA, claims(ADMINS, iat=time.time() + 5)).encode()

    async def replay():
        return [
            (await call_async(gate, "GET", "/admin/state", headers=headers_of(bearer))).status for _ in range(1_001)
        ]

    assert asyncio.run(replay()) == [200] + [401] * 1_000
