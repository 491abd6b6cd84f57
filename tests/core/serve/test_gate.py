"""Tokens, budgets, the admin port and CORS, before the real app."""

import time
from itertools import count

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from clearway.contracts.errors import ConfigError
from clearway.infra.environment import Environment
from clearway.serve.gate import Budgets, Gate
from clearway.serve.process import guarded, make_server
from clearway.serve.refusal import Refusal
from clearway.serve.tokens import Key, Verifier, read_keys
from serving_kit import JSON_HEADERS, PRODUCT, call
from tokens_kit import EC_SIGNER, RSA_SIGNER, SIGNER, pem

_numbers = count()


def token(signer=SIGNER, *, algorithm="EdDSA", headers=None, without=(), audience="clearway-callers", **claims):
    now = time.time()
    base = {"sub": "ann", "iat": now, "exp": now + 600, "aud": audience, "iss": "clearway", "jti": f"n{next(_numbers)}"}
    payload = {name: value for name, value in (base | claims).items() if name not in without}
    return jwt.encode(payload, signer, algorithm=algorithm, headers=headers)


@pytest.fixture
def make_app(tmp_path):
    """Servers behind the gate that some settings ask for."""
    made = []

    def make(*keys, **settings):
        folder = tmp_path / "serving" / "jwt"
        folder.mkdir(parents=True, exist_ok=True)
        for i, key in enumerate(keys or (SIGNER,)):
            (folder / f"{i}.pem").write_bytes(pem(key))
        variables = {f"CLEARWAY__SERVING__{name.upper()}": str(value) for name, value in settings.items()}
        places = {"CLEARWAY__HOME": str(tmp_path), "CLEARWAY__STORAGE__ROOT": (tmp_path / "store").as_uri()}
        env = Environment.load(places | variables)
        made.append(make_server(env, product=PRODUCT))
        return guarded(made[-1], env)

    yield make
    for server in made:
        server.prediction_log.close()


def ask(app, path="/invocations", bearer=None, method="POST", headers=()):
    given = [*JSON_HEADERS, *headers]
    if bearer is not None:
        given.append((b"authorization", b"Bearer " + bearer.encode()))
    return call(app, method, path, b'{"instances":[{"hour":1}]}', headers=given)


def test_without_settings_nothing_stands_before_the_app(make_app):
    app = make_app()
    assert not isinstance(app, Gate)


# No model is loaded: whoever gets past the gate is told so by 503.
PASSED = 503


@pytest.mark.parametrize(
    ("signer", "algorithm"), [(SIGNER, "EdDSA"), (RSA_SIGNER, "RS256"), (EC_SIGNER, "ES256")], ids=["ed", "rsa", "ec"]
)
def test_each_kind_of_key_has_its_algorithm(make_app, signer, algorithm):
    app = make_app(signer, callers="jwt")
    good = token(signer, algorithm=algorithm)
    assert [ask(app, bearer=good).status for _ in range(2)] == [PASSED, PASSED]


def test_two_keys_count_while_one_replaces_the_other(make_app):
    app = make_app(SIGNER, EC_SIGNER, callers="jwt")
    assert ask(app, bearer=token()).status == PASSED
    assert ask(app, bearer=token(EC_SIGNER, algorithm="ES256")).status == PASSED


@pytest.mark.parametrize("path", ["/ping", "/healthz", "/metrics", "/v2/health/live"])
def test_health_needs_no_token(make_app, path):
    assert ask(make_app(callers="jwt", rate_per_s=1, burst=1), path, method="GET").status != 401


def test_an_admin_token_counts_once_and_only_for_admin_calls(make_app, tmp_path):
    app = make_app(admins="jwt", callers="jwt")
    admin = token(audience="clearway-admin", iat=time.time() + 5)
    assert ask(app, bearer=admin).status == 401
    assert ask(app, "/admin/state", admin, "GET").status == 200
    assert ask(app, "/admin/state", admin, "GET").status == 401
    assert ask(app, "/admin/state", token(), "GET").status == 401
    assert ask(app, "/admin/state", token(audience="clearway-admin", without=("jti",)), "GET").status == 401
    of_file = (tmp_path / "serving" / "admin.token").read_text()
    assert ask(app, "/admin/state", of_file, "GET").status == 401


def test_an_admin_token_from_before_the_start_is_refused_since_it_may_have_been_used():
    verifier = Verifier(keys=read_keys_of(SIGNER), issuer="clearway", audience="clearway-admin", is_single_use=True)
    with pytest.raises(Refusal, match="older than this server process"):
        verifier.verify(b"Bearer " + token(audience="clearway-admin", iat=time.time() - 60).encode())


def read_keys_of(*signers):
    return tuple(Key(public=signer.public_key(), algorithm="EdDSA") for signer in signers)


def test_a_remembered_token_ends_with_its_time():
    now = [time.time()]
    verifier = Verifier(
        keys=read_keys_of(SIGNER), issuer="clearway", audience="a", is_single_use=False, now_s=lambda: now[0]
    )
    header = b"Bearer " + token(audience="a").encode()
    assert verifier.verify(header).subject == "ann"
    now[0] += 611
    with pytest.raises(Refusal, match="expired"):
        verifier.verify(header)


@pytest.mark.parametrize("num_keys", [0, 3])
def test_no_key_or_three_are_no_start(tmp_path, num_keys):
    for i in range(num_keys):
        (tmp_path / f"{i}.pem").write_bytes(pem(SIGNER))
    with pytest.raises(ConfigError, match="public keys"):
        read_keys(tmp_path)


@pytest.mark.parametrize("data", [b"x", pem(rsa.generate_private_key(public_exponent=65537, key_size=1024))])  # noqa: S505 - weak on purpose
def test_a_weak_key_or_none_is_no_start(tmp_path, data):
    (tmp_path / "a.pem").write_bytes(data)
    with pytest.raises(ConfigError, match=r"a\.pem"):
        read_keys(tmp_path)


def test_a_caller_over_its_budget_is_429_and_others_are_not(make_app):
    app = make_app(callers="jwt", rate_per_s=0.01, burst=2)
    assert [ask(app, bearer=token()).status for _ in range(3)] == [PASSED, PASSED, 429]
    assert ask(app, bearer=token()).headers["retry-after"] == "100"
    assert ask(app, bearer=token(sub="bob")).status == PASSED


def test_a_budget_comes_back_with_time():
    now = [0.0]
    budgets = Budgets(rate_per_s=2, burst=1, now_s=lambda: now[0])
    budgets.take("a")
    with pytest.raises(Refusal):
        budgets.take("a")
    now[0] = 0.5
    budgets.take("a")


def test_admin_calls_exist_on_their_port_only(make_app):
    gate = make_app(admin_port=81)
    seen = {}
    for port in (80, 81):

        async def app(scope, receive, send, port=port):
            await gate({**scope, "server": ("127.0.0.1", port)}, receive, send)

        paths = (("GET", "/admin/state"), ("POST", "/invocations"), ("GET", "/healthz"))
        seen[port] = [ask(app, path, method=method).status for method, path in paths]
    assert seen == {80: [404, PASSED, 200], 81: [401, 404, 200]}


def test_only_listed_origins_may_call_and_never_admin(make_app):
    app = make_app(origins="https://a.example https://b.example")
    allowed = [(b"origin", b"https://a.example")]
    preflight = [*allowed, (b"access-control-request-method", b"POST")]
    assert ask(app, headers=allowed).headers["access-control-allow-origin"] == "https://a.example"
    assert ask(app, method="OPTIONS", headers=preflight).status == 204
    for headers, path in (([(b"origin", b"https://c.example")], "/invocations"), (allowed, "/admin/state")):
        assert "access-control-allow-origin" not in ask(app, path, headers=headers).headers


def test_audiences_must_differ(make_app):
    with pytest.raises(ConfigError, match="differ"):
        make_app(caller_audience="x", admin_audience="x")
