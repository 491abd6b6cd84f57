"""Past releases: every one is found again, page by page, with what it was judged by; nothing else is."""

import dataclasses
import json
from urllib.parse import quote

import httpx
import pytest

import http_kit
import pages_kit
from clearway.contracts.release_document import ReleaseDocument
from clearway.contracts.rollout import Rollout
from clearway.deploy.history import keep_history, name_of, past_names, read_endings, release_of
from clearway.infra.environment import Environment
from clearway.infra.layout import STORY, Layout
from clearway.infra.release_store import open_release_store
from clearway.infra.storage import open_storage
from clearway_airflow.ui.past_view import release_page, releases_page
from pages_kit import ended, past_rollout

EVIL = "<script>alert(1)</script>"
NUM_RELEASES = 45


@pytest.fixture
def places(env):
    return open_storage(env.store_root), Layout(env.store_root, "flights")


def document_of(numbers):
    return ReleaseDocument(product="flights", history=tuple(ended(n, at_s=1_000.0 + n) for n in numbers))


def test_endings_outlive_the_document_that_forgets_them(places):
    for last in range(20, NUM_RELEASES + 1, 5):
        keep_history(*places, document_of(range(max(0, last - 20), last)))
    newest = document_of(range(NUM_RELEASES - 19, NUM_RELEASES + 1))  # the last one is not kept yet
    names = past_names(*places, newest)
    assert [release_of(name) for name in names] == [f"release-{n}" for n in range(NUM_RELEASES, -1, -1)]
    assert read_endings(*places, newest, names) == [ended(n, at_s=1_000.0 + n) for n in range(NUM_RELEASES, -1, -1)]


def test_what_is_kept_is_not_written_again(places, monkeypatch):
    storage, layout = places
    keep_history(storage, layout, document_of(range(3)))
    written = []
    monkeypatch.setattr(type(storage), "write", lambda self, uri, data: written.append(uri))
    keep_history(storage, layout, document_of(range(4)))
    assert [uri.rpartition("/")[2] for uri in written] == [name_of(ended(3, at_s=1_003.0))]


def test_a_store_that_is_away_ends_no_release(places, caplog):
    _, layout = places
    keep_history(Away(), layout, document_of(range(3)))
    assert "not kept yet" in caplog.text


class Away:
    def exists(self, uri):
        raise OSError("gone")


@pytest.mark.parametrize("is_bad", [False, True], ids=["good", "bad"])
@pytest.mark.parametrize(
    ("strategy", "curves"),
    [
        (("shadow", "canary", "watch"), ["on the same row", "candidate less champion", "e-value", "Share of failed"]),
        (("ab_test",), ["Outcome: candidate less champion"]),
        (("shadow", "ab_test"), ["on the same row", "Outcome: candidate less champion"]),
    ],
    ids=str,
)
def test_every_stage_shows_its_curve_with_its_band_and_what_was_compared(strategy, curves, is_bad):
    html = release_page("Flights", ended(1, at_s=0.0), past_rollout(strategy, at_s=0.0, is_bad=is_bad), past="/p")
    for title in curves:
        assert title in html
    assert html.count('class="band"') == sum("e-value" not in title for title in curves)
    assert html.count('class="line"') >= len(curves)
    assert "origin=JFK" in html or strategy[0] != "shadow"
    assert ("harm shown" in html or "limit exceeded" in html) is is_bad
    assert html.count("<h3>Verdicts</h3>") == 1


def test_a_release_without_evidence_says_so():
    assert "No evidence was gathered" in release_page("Flights", ended(1, at_s=0.0), None, past="/p")


def test_evidence_of_another_version_is_named_and_the_rest_is_shown():
    rollout = past_rollout(("shadow", "canary"), at_s=0.0)
    strange = dataclasses.replace(rollout, evidence={**rollout.evidence, "mirror": {"unheard": "of"}})
    html = release_page("Flights", ended(1, at_s=0.0), strange, past="/p")
    assert "another version of Clearway kept this evidence" in html
    assert "candidate less champion" in html


def test_nothing_kept_reaches_a_page_as_markup():
    entry = dataclasses.replace(ended(1, at_s=0.0, reason=EVIL), release_id=EVIL)
    rollout = past_rollout(("canary",), at_s=0.0)
    evil = dataclasses.replace(rollout, trail=(dataclasses.replace(rollout.trail[0], reason=EVIL),), strategy=EVIL)
    html = release_page(EVIL, entry, evil, past=EVIL)
    html += releases_page(EVIL, [entry], past=EVIL, number=1, num_pages=2, num_all=30)
    assert "<script" not in html


@pytest.fixture(scope="module")
def base():
    with pages_kit.running_pages() as address:
        yield address


@pytest.fixture
def kept(env, monkeypatch):
    """A product with many releases, the fifth of which has evidence."""
    monkeypatch.setenv("CLEARWAY__HOME", str(env.home))
    monkeypatch.setenv("CLEARWAY__STORAGE__ROOT", env.store_root)
    here = Environment.load()
    open_release_store(here).swap(document_of(range(25, NUM_RELEASES)), expected_version=0)
    for number in range(25):
        rollout = past_rollout(("canary",), at_s=0.0) if number == 5 else None
        pages_kit.keep(here, ended(number, at_s=1_000.0 + number), rollout)
    return here


def test_turning_pages_shows_every_release_once(base, kept):
    pages = [http_kit.get(f"{base}/releases/flights_release?page={n}").text for n in (1, 2, 3)]
    counts = [sum(html.count(f'/release-{n}"') for html in pages) for n in range(NUM_RELEASES)]
    assert counts == [1] * NUM_RELEASES
    assert "page 2 of 3, 45 releases and orders" in pages[1]
    assert [("?page=1" in html, "?page=3" in html) for html in pages] == [(False, True), (True, True), (False, False)]


def test_a_past_release_is_drawn_from_its_record(base, kept):
    html = http_kit.get(f"{base}/releases/flights_release/release-5").text
    assert "Failed answers: candidate less champion" in html
    assert http_kit.get(f"{base}/releases/flights_release/release-6").status_code == httpx.codes.OK


@pytest.mark.parametrize(
    "release_id", ["release-99", "..", "../release-5", "..%2f..%2fmodels", "%00", "release-5%2f.."]
)
def test_a_release_that_is_not_on_record_is_not_looked_for(base, kept, release_id):
    answer = http_kit.get(f"{base}/releases/flights_release/{quote(release_id, safe='%')}")
    assert answer.status_code in {httpx.codes.NOT_FOUND, httpx.codes.METHOD_NOT_ALLOWED}


def test_the_policies_page_is_linked_once_it_is_there(base, kept):
    link = 'href="/clearway/stories/flights_release"'
    assert link not in http_kit.get(f"{base}/releases/flights_release").text
    assert http_kit.get(f"{base}/stories/flights_release").status_code == httpx.codes.NOT_FOUND
    open_storage(kept.store_root).write(Layout(kept.store_root, "flights").backtest(STORY), b"<p>the past</p>")
    assert link in http_kit.get(f"{base}/releases/flights_release").text
    page = http_kit.get(f"{base}/stories/flights_release")
    assert page.text == "<p>the past</p>"
    assert page.headers["Content-Security-Policy"].startswith("sandbox")


@pytest.mark.parametrize("dag_id", ["flights", "flights_monitor", "unknown_release"])
def test_another_dag_is_no_product(base, kept, dag_id):
    assert http_kit.get(f"{base}/releases/{dag_id}").status_code == httpx.codes.NOT_FOUND


def test_the_record_is_the_one_that_the_stage_writes(kept):
    layout = Layout(kept.store_root, "flights")
    record = json.loads(open_storage(kept.store_root).read(layout.rollout_record("release-5")))
    assert set(record) == {"phase", "reason", "rollout"}
    assert {field.name for field in dataclasses.fields(Rollout)} == set(record["rollout"])
