"""Orders through the pages' own application: who may send them, and from where."""

import httpx
import pytest

import http_kit
import pages_kit
from clearway.contracts.release_document import ReleaseDocument
from clearway.infra.environment import Environment
from clearway.infra.release_store import open_release_store

FORM = {"kind": "pause", "reason": "look at the errors", "release_id": "r-3", "confirmed": "yes"}


@pytest.fixture
def store(env, monkeypatch):
    """A store with a canary under way, in the environment that the pages load."""
    monkeypatch.setenv("CLEARWAY__HOME", str(env.home))
    monkeypatch.setenv("CLEARWAY__STORAGE__ROOT", env.store_root)
    monkeypatch.setenv("CLEARWAY__ENDPOINT__URL", "http://127.0.0.1:9")
    found = open_release_store(Environment.load())
    champion = ReleaseDocument(product="flights", champion=pages_kit.CHAMPION)
    found.swap(pages_kit.canary(champion, reason="few requests"), expected_version=0)
    return found


@pytest.fixture(scope="module")
def base():
    """The running pages."""
    with pages_kit.running_pages() as address:
        yield address


def send(base, changes, headers, dag_id="flights_release"):
    form = {name: value for name, value in (FORM | changes).items() if value is not None}
    return http_kit.post(f"{base}/rollouts/{dag_id}/orders", data=form, headers=headers).status_code


def own(base):
    return {"origin": base.removesuffix("/clearway")}


def test_an_order_from_the_page_is_stored_with_name_and_reason(base, store):
    assert send(base, {}, own(base)) == httpx.codes.SEE_OTHER
    order = store.read("flights")[0].rollout.order
    assert (order.kind.value, order.by, order.reason) == ("pause", pages_kit.PERSON, "look at the errors")


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"origin": "http://elsewhere.example"},
        {"origin": "null"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"sec-fetch-site": "none"},
        {"sec-fetch-site": "same-origin", "origin": "http://elsewhere.example"},
    ],
    ids=str,
)
def test_an_order_that_no_page_of_ours_sent_is_refused(base, store, headers):
    assert send(base, {}, headers) == httpx.codes.FORBIDDEN
    assert store.read("flights")[0].rollout.order is None


@pytest.mark.parametrize("headers", [{"sec-fetch-site": "same-origin"}, None], ids=["fetch metadata", "origin"])
def test_either_header_of_a_browser_is_enough(base, store, headers):
    assert send(base, {}, headers or own(base)) == httpx.codes.SEE_OTHER


@pytest.mark.parametrize(
    ("changes", "dag_id", "status"),
    [
        ({"confirmed": None}, "flights_release", httpx.codes.UNPROCESSABLE_ENTITY),
        ({"confirmed": "no"}, "flights_release", httpx.codes.UNPROCESSABLE_ENTITY),
        ({"reason": ""}, "flights_release", httpx.codes.UNPROCESSABLE_ENTITY),
        ({"release_id": None}, "flights_release", httpx.codes.UNPROCESSABLE_ENTITY),
        ({"release_id": ""}, "flights_release", httpx.codes.UNPROCESSABLE_ENTITY),
        ({"release_id": "r-2"}, "flights_release", httpx.codes.CONFLICT),
        ({}, "flights", httpx.codes.NOT_FOUND),
        ({}, "flights_monitor", httpx.codes.NOT_FOUND),
        ({}, "unknown_release", httpx.codes.NOT_FOUND),
    ],
)
def test_an_order_that_is_not_whole_does_nothing(base, store, changes, dag_id, status):
    assert send(base, changes, own(base), dag_id) == status
    assert store.read("flights")[0].rollout.order is None


def test_the_page_says_which_script_may_run_and_forbids_the_rest(base, store):
    answer = http_kit.get(f"{base}/serving")
    assert answer.status_code == httpx.codes.OK
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'sha256-" in policy
    assert answer.text.count("<script>") == 1
