"""The account: what counts as promoted or rejected, and what people are shown."""

from typing import Any

import pytest

from clearway.contracts.codec import to_jsonable
from clearway.contracts.release_document import (
    ReleaseDocument,
    Version,
    begin_abort,
    begin_deploy,
    finish_abort,
    promote,
)
from clearway.launch.account import (
    CLOSED,
    WATCHED,
    Release,
    Span,
    Stage,
    Times,
    closing_of,
    makers_of,
    outcome_of,
    times_of,
)
from clearway.launch.drill import Drilled
from clearway.launch.replay import Played
from clearway.launch.report_table import render_account
from clearway.launch.served import Score, Served, TextScore


def stages(**verdicts: str) -> tuple[Stage, ...]:
    return tuple(Stage(name=n, verdict=v, reason=f"{n} says so", seconds=1.5) for n, v in verdicts.items())


@pytest.mark.parametrize(
    ("state", "found", "outcome", "reason"),
    [
        ("success", stages(evaluate="pass", deploy="pass"), "promoted", "deploy says so"),
        ("success", stages(evaluate="fail", deploy="skipped"), "rejected by evaluate", "evaluate says so"),
        ("success", stages(evaluate="pass", deploy="fail"), "rejected by deploy", "deploy says so"),
        ("success", stages(approve="inconclusive", deploy="skipped"), "inconclusive by approve", "approve says so"),
        ("failed", stages(train="failed", deploy="waiting"), "failed", "train says so"),
        ("running", stages(train="running"), "running", ""),
        ("success", stages(ingest="skipped"), "nothing to do", ""),
    ],
    ids=["promoted", "rejected", "not-deployed", "inconclusive", "crashed", "running", "merged"],
)
def test_an_outcome_is_named_by_the_stage_that_decided(
    state: str, found: tuple[Stage, ...], outcome: str, reason: str
) -> None:
    assert outcome_of(state, found) == (outcome, reason)


def release(**changes: Any) -> Release:
    served = Served(
        model_digest="b" * 64,
        batch_ids=("2013-04-01", "2013-04-08"),
        num_rows=12345,
        score=Score(auc=0.7312, log_loss=0.5401),
        reference=Score(auc=0.7345, log_loss=0.5388),
    )
    values: dict[str, Any] = {
        "run_id": "first-2013-04-01",
        "release_id": "first-2013-04-01-0a1b2c3d",
        "trigger": "by hand",
        "as_of": "2013-04-01T00:00:00Z",
        "outcome": "promoted",
        "reason": "",
        "seconds": 61.2,
        "stages": stages(ingest="pass", train="pass", deploy="pass"),
        "champion_before": None,
        "champion_after": "b" * 64,
        "served": served,
    }
    return Release(**{**values, **changes})


def account(*releases: Release, **more: Any) -> dict[str, Any]:
    stack = {
        "airflow": "http://127.0.0.1:8080",
        "mlflow": "http://127.0.0.1:5000",
        "endpoints": {"flights": "http://127.0.0.1:8890"},
        "peak_memory_mib": 2345,
    }
    times = Times(
        healthy_s=20.0, first_release_s=61.2, week_median_s=9.0, week_max_s=12.0, retraining_release_max_s=None
    )
    return {
        "kind": "tabular",
        "releases": to_jsonable(releases),
        "stack": stack,
        "times": {**to_jsonable(times), "total_s": 200.0},
        "curl": "curl -s http://127.0.0.1:8890/invocations",
        **more,
    }


def test_the_table_shows_model_and_reference_side_by_side() -> None:
    text = render_account(account(release()))
    line = next(line for line in text.splitlines() if "bbbbbbbb" in line)
    for figure in ("none → bbbbbbbb", "12,345", "0.7312", "0.7345", "0.5401", "0.5388", "promoted", "2013-04-01"):
        assert figure in line
    assert "pass 1.5 s" in text
    assert "curl -s http://127.0.0.1:8890/invocations" in text
    assert "2345 MiB" in text


def test_models_of_texts_are_shown_by_bits_per_byte_beside_the_compressor() -> None:
    served = Served(
        model_digest="b" * 64,
        batch_ids=("2016-01-01",),
        num_rows=1234,
        score=TextScore(bits_per_byte=1.9876),
        reference=TextScore(bits_per_byte=2.3456),
    )
    unknown = release(served=Served(model_digest="b" * 64, batch_ids=(), num_rows=0, score=None, reference=None))
    text = render_account(account(release(served=served), unknown, kind="language"))
    head, *lines = [line for line in text.splitlines() if "bits per byte" in line or "bbbbbbbb" in line]
    assert head.split()[-4:] == ["bits", "per", "byte", "compressor"]
    assert "LightGBM" not in text
    assert [line.split()[-4:] for line in lines] == [["1", "1,234", "1.9876", "2.3456"], ["0", "0", "-", "-"]]


def test_a_rejection_gives_its_reason_and_serves_nothing() -> None:
    rejected = release(
        run_id="r2", outcome="rejected by evaluate", reason="auc_floor: 0.61 >= 0.7 does not hold", served=None
    )
    text = render_account(account(release(), rejected))
    assert "r2: rejected by evaluate: auc_floor: 0.61 >= 0.7 does not hold" in text


def test_a_planted_fault_is_announced_first() -> None:
    text = render_account(account(release(), planted=[{"fault": "unit_change", "from": "2013-04-15"}]))
    assert text.splitlines()[0] == "PLANTED FAULT: unit_change in every batch from 2013-04-15 on."


@pytest.mark.parametrize(("is_safe", "shown"), [(True, "went back by itself"), (False, "STAYED")])
def test_planted_models_are_shown_with_how_they_ended(*, is_safe: bool, shown: str) -> None:
    drilled = Drilled(
        defect="slow",
        release_id="drill-slow-7",
        is_safe=is_safe,
        reason="slice[origin=EWR]: harm shown",
        num_requests=41,
        num_unanswered=0,
        seconds=5.2,
    )
    text = render_account(account(release(), drills=[to_jsonable(drilled)]))
    line = next(line for line in text.splitlines() if line.strip().startswith("slow"))
    for figure in (shown, "41", "5.2 s", "slice[origin=EWR]: harm shown"):
        assert figure in line


def test_an_account_without_any_release_can_be_shown() -> None:
    assert "Where to look" in render_account(account())


def test_times_count_landed_weeks_and_asset_triggered_releases() -> None:
    weeks = [
        Played(batch_id="a", is_landed=True, seconds=8.0),
        Played(batch_id="b", is_landed=True, seconds=12.0),
        Played(batch_id="c", is_landed=False, seconds=99.0),
    ]
    releases = (release(), release(trigger="asset retrain", seconds=50.0), release(seconds=500.0))
    found = times_of(releases, weeks, healthy_s=20.0)
    assert found == Times(
        healthy_s=20.0, first_release_s=61.2, week_median_s=10.0, week_max_s=12.0, retraining_release_max_s=50.0
    )


def drifted(run_id: str, *, seconds: float, closed_s: float | None) -> Played:
    return Played(
        batch_id=run_id,
        is_landed=True,
        seconds=seconds,
        retrain=True,
        released=run_id,
        is_promoted=closed_s is not None,
        closed_s=closed_s,
    )


def test_closing_the_loop_counts_promoted_retrainings_only() -> None:
    releases = tuple(release(run_id=f"r{i}", stages=stages(train="pass", deploy="pass")) for i in range(3))
    weeks = [
        Played(batch_id="quiet", is_landed=True, seconds=1.0),
        drifted("r0", seconds=8.0, closed_s=60.0),
        drifted("r1", seconds=10.0, closed_s=80.0),
        drifted("r2", seconds=99.0, closed_s=None),
    ]
    found = {span.name: span for span in closing_of(releases, weeks)}
    assert list(found) == [WATCHED, "train", "deploy", CLOSED]
    assert found[WATCHED] == Span(name=WATCHED, num=2, p50_s=9.0, p95_s=pytest.approx(9.9))
    assert found[CLOSED] == Span(name=CLOSED, num=2, p50_s=70.0, p95_s=pytest.approx(79.0))
    text = render_account(account(*releases, closing=to_jsonable(tuple(found.values()))))
    assert "From drift to a new champion, 2 times" in text
    line = next(line for line in text.splitlines() if CLOSED in line)
    assert ("70.0 s" in line, "79.0 s" in line) == (True, True)


def test_without_a_retraining_nothing_is_said_of_closing_the_loop() -> None:
    assert closing_of((release(),), [Played(batch_id="a", is_landed=True, seconds=8.0)]) == ()


def test_a_release_that_went_back_made_no_model() -> None:
    version = Version(uri="file:///m", digest="b" * 64, release_id="r1")
    document = begin_deploy(ReleaseDocument(product="p"), version, epoch=0)
    document = promote(document, epoch=0, now_s=1.0, reason="fine")
    bad = Version(uri="file:///n", digest="c" * 64, release_id="drill-slow-7")
    document = begin_abort(begin_deploy(document, bad, epoch=0), epoch=0, reason="harm shown")
    assert makers_of(finish_abort(document, epoch=0, now_s=2.0)) == {"b" * 64: "r1"}
