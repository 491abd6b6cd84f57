"""The rollout page in a real Chromium: what a person sees of a canary, and what it takes to order it about."""

import dataclasses
import time

import pytest

import pages_kit
from browser_kit import find_chromium, open_browser
from clearway.contracts.release_document import ReleaseDocument
from clearway.contracts.rollout import Order, OrderKind
from clearway.deploy.orders import give_order
from clearway.infra.environment import Environment
from clearway.infra.release_store import open_release_store

pytestmark = [pytest.mark.browser, pytest.mark.slow]

PAUSE = "[data-order=pause]"


@pytest.fixture(scope="module")
def base():
    find_chromium()
    with pages_kit.running_pages() as address:
        yield address


@pytest.fixture
def store(env, monkeypatch):
    monkeypatch.setenv("CLEARWAY__HOME", str(env.home))
    monkeypatch.setenv("CLEARWAY__STORAGE__ROOT", env.store_root)
    monkeypatch.setenv("CLEARWAY__ENDPOINT__URL", "http://127.0.0.1:9")
    found = open_release_store(Environment.load())
    champion = ReleaseDocument(product="flights", champion=pages_kit.CHAMPION)
    found.swap(pages_kit.canary(champion, reason="few requests", at_s=time.time() - 60), expected_version=0)
    return found


@pytest.fixture
def order(store):
    return lambda: store.read("flights")[0].rollout.order


def test_a_person_sees_the_rollout_and_its_evidence(base, store):
    with open_browser() as page:
        page.open(f"{base}/serving")
        assert page.ask("document.querySelector('h3').textContent") == "Rollout"
        assert "canary" in page.ask("document.querySelector('#now-flights').innerText")
        curves = page.ask("[...document.querySelectorAll('svg .line')].map(l => l.points.numberOfItems)")
        assert len(curves) == 2
        assert min(curves) >= 20
        assert page.ask("document.querySelector('svg').getBoundingClientRect().height") > 50
        assert page.picture().startswith(b"\x89PNG")


def test_a_person_turns_to_a_past_release_and_sees_what_it_was_judged_by(base, store):
    here, (document, version) = Environment.load(), store.read("flights")
    for number in range(45):
        stages = ("shadow", "canary", "watch") if number == 24 else ("ab_test",)
        rollout = pages_kit.past_rollout(stages, at_s=time.time() - 900, is_bad=True) if number in {23, 24} else None
        pages_kit.keep(here, pages_kit.ended(number, at_s=1.7e9 + 3_600 * number), rollout)
    newest = tuple(pages_kit.ended(n, at_s=1.7e9 + 3_600 * n) for n in range(25, 45))
    store.swap(dataclasses.replace(document, history=newest), expected_version=version)
    with open_browser() as page:
        page.open(f"{base}/serving")
        page.click("#past-flights p a")
        page.until(lambda: "page 1 of 3, 45 releases and orders" in page.text())
        page.click(".turn a[href$='page=2']")
        page.until(lambda: "page 2 of 3" in page.text())
        page.click("a[href$='/release-24']")
        page.until(lambda: "Mirror: copies of requests" in page.text())
        shown = page.ask("[...document.querySelectorAll('h3')].map(h => h.textContent.split(':')[0])")
        assert shown == ["Mirror", "Callers", "Watch", "Verdicts"]
        lines = page.ask("[...document.querySelectorAll('svg .line')].map(l => l.points.numberOfItems)")
        assert len(lines) == 5
        assert min(lines) >= 30
        drawn = "[...document.querySelectorAll('svg')].map(s => s.querySelector('.band') ? 1 : 0)"
        assert page.ask(drawn) == [1, 1, 0, 1, 0]
        inside = """[...document.querySelectorAll('svg .line, svg .band, svg text')].every(part => {
            const own = part.getBoundingClientRect(), box = part.closest('svg').getBoundingClientRect();
            return own.left >= box.left - 1 && own.right <= box.right + 1
                && own.top >= box.top - 1 && own.bottom <= box.bottom + 1 })"""
        assert page.ask(inside), "something is drawn beside its picture"
        page.open(f"{base}/releases/flights_release/release-23")
        assert "Outcome: candidate less champion" in page.text()
        assert page.ask("document.querySelectorAll('script, form').length") == 0


def test_a_pause_needs_a_reason_and_a_confirmation_and_is_recorded_with_the_name(base, order):
    with open_browser() as page:
        page.open(f"{base}/serving")
        page.click(f"{PAUSE} summary")
        page.click(f"{PAUSE} button")
        page.click(f'{PAUSE} input[name="reason"]')
        page.type("the morning peak first")
        page.click(f"{PAUSE} button")
        assert page.ask(f"document.querySelector('{PAUSE} [name=confirmed]').validity.valueMissing")
        assert page.ask("location.pathname") == "/clearway/serving"
        assert order() is None, "an order went out that nobody confirmed"
        page.click(f'{PAUSE} input[name="confirmed"]')
        page.click(f"{PAUSE} button")
        page.until(order)
        page.until(lambda: "pause by Ada, not yet followed" in page.text())
    given = order()
    assert (given.kind, given.by, given.reason) == (OrderKind.PAUSE, pages_kit.PERSON, "the morning peak first")


def test_an_order_works_without_javascript(base, order):
    with open_browser(has_javascript=False) as page:
        page.open(f"{base}/serving")
        assert page.ask("document.querySelector('noscript') !== null")
        page.click(f"{PAUSE} summary")
        page.click(f'{PAUSE} input[name="reason"]')
        page.type("by hand")
        page.click(f'{PAUSE} input[name="confirmed"]')
        page.click(f"{PAUSE} button")
        page.until(order)
    assert order().reason == "by hand"


def test_the_page_follows_the_rollout_and_keeps_what_is_being_typed(base, store):
    with open_browser() as page:
        page.open(f"{base}/serving")
        page.click(f"{PAUSE} summary")
        page.click(f'{PAUSE} input[name="reason"]')
        page.type("half a sen")
        given = Order(kind=OrderKind.PROMOTE, by="Bob", reason="ship it", at_s=time.time())
        give_order(store, "flights", given, release_id="r-3")
        page.until(lambda: "promote by Bob" in page.text())
        assert page.ask(f"document.querySelector('{PAUSE} [name=reason]').value") == "half a sen"
        page.type("tence")
        assert page.ask(f"document.querySelector('{PAUSE} [name=reason]').value") == "half a sentence"


def test_a_stored_script_is_text_and_would_not_run(base, store):
    document, version = store.read("flights")
    evil = dataclasses.replace(document.rollout, waits_for="<script>document.title = 'taken'</script>")
    store.swap(dataclasses.replace(document, rollout=evil), expected_version=version)
    with open_browser() as page:
        page.open(f"{base}/serving")
        page.ask("document.body.append(Object.assign(document.createElement('script'), {text: 'document.title = 1'}))")
        assert page.ask("document.title") == "What serves now"
        assert "document.title = 'taken'" in page.text()


def test_another_site_cannot_order(base, store, order):
    """The same form, sent from a page of another origin: the browser itself says where it comes from."""
    form = {"kind": "abort", "reason": "x", "release_id": "r-3", "confirmed": "yes"}
    fields = "".join(f'<input name="{name}" value="{value}">' for name, value in form.items())
    html = f'<form method="post" action="{base}/rollouts/flights_release/orders">{fields}</form>'
    with open_browser() as page:
        page.open(f"data:text/html,{html}")
        page.ask("document.forms[0].submit()")
        page.until(lambda: "pages only" in page.text())
    assert order() is None
