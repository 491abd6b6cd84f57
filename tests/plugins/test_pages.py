"""Pages say what is stored, and nothing in it can act on its own."""

import dataclasses

import pages_kit
from clearway.contracts.release_document import HistoryEntry, Outcome, ReleaseDocument, begin_abort
from clearway_airflow.ui.pages import Standing, run_page, standings_page
from pages_kit import CHAMPION

EVIL = '<script>alert("x")</script>'
ENTRY = HistoryEntry(
    release_id="r-2", outcome=Outcome.PROMOTED, before="b" * 64, after="a" * 64, at_s=1_700_000_000, reason=EVIL
)


def standing(**changes: object) -> Standing:
    document = ReleaseDocument(product="flights", champion=CHAMPION, epoch=3, history=(ENTRY,))
    return Standing(**{"title": EVIL, "document": document, "weights_pct": {"a" * 64: 100.0}} | changes)  # type: ignore[arg-type]


def test_the_standing_names_champion_share_and_history() -> None:
    html = standings_page([standing()], base="/clearway/rollouts", past="/clearway/releases")
    assert "a" * 64 in html
    assert "100 %" in html
    assert "2023-11-14 22:13:20" in html
    assert "promoted" in html


def canary() -> ReleaseDocument:
    """A rollout at its second share, with a curve and something to say."""
    return pages_kit.canary(ReleaseDocument(product="flights", champion=CHAMPION), reason=EVIL)


def test_a_rollout_shows_plan_evidence_and_forms_and_the_page_looks_again() -> None:
    html = standings_page([standing(document=canary())], base="/clearway/rollouts", past="/clearway/releases")
    assert "1 % → <b>5 %</b> → 25 %" in html
    assert html.count("<svg") == 2
    assert html.count('action="/clearway/rollouts/flights_release/orders"') == 3
    assert [f'value="{kind}"' in html for kind in ("promote", "abort", "pause", "resume")] == [True, True, True, False]
    assert html.count("<script") == 1
    assert 'http-equiv="refresh"' not in html
    assert "<script" not in standings_page([standing()], base="/x", past="/p")


def test_a_paused_rollout_offers_to_resume() -> None:
    document = canary()
    paused = dataclasses.replace(document, rollout=dataclasses.replace(document.rollout, is_paused=True))
    html = standings_page([standing(document=paused)], base="/x", past="/p")
    assert 'value="resume"' in html
    assert 'value="pause"' not in html


def test_a_silent_endpoint_is_said_to_be_silent() -> None:
    assert "the endpoint does not answer" in standings_page([standing(weights_pct=None)], base="/x", past="/p")
    assert "nothing serves" in standings_page([standing(weights_pct={})], base="/x", past="/p")


def test_a_run_shows_verdicts_and_links_reports_below_itself() -> None:
    outputs = {"verdict": "fail", "reason": "too bad", "report_uri": "file:///home/me/secret/report.html"}
    html = run_page("flights_release: r", [("evaluate", outputs)], base="/clearway/runs/d/r")
    assert '<span class="fail">fail</span>' in html
    assert 'href="/clearway/runs/d/r/evaluate/report.html"' in html
    assert "secret" not in html


def test_a_run_without_results_says_so() -> None:
    assert "No stage of this run has finished yet" in run_page("r", [], base="/x")


def test_nothing_stored_reaches_the_page_as_markup() -> None:
    outputs = {"verdict": EVIL, "reason": EVIL, "report_uri": f"file:///{EVIL}.html"}
    html = standings_page([standing()], base="/clearway/rollouts", past="/clearway/releases") + run_page(
        EVIL, [(EVIL, outputs)], base=EVIL
    )
    assert "<script" not in html


def test_a_rollout_on_its_way_back_takes_no_orders_and_still_shows_why() -> None:
    document = begin_abort(canary(), epoch=0, reason="harm shown")
    html = standings_page([standing(document=document)], base="/clearway/rollouts", past="/clearway/releases")
    assert html.count("<svg") == 2
    assert "<form" not in html
