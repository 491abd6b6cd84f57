"""One batch after another through the real store: measured, decided, reported; and run again."""

import time
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from clearway.contracts.verdict import Verdict
from clearway.infra.faults import InjectedFault

NUM_TRAINING = 8


def week_by_week(town: Any, weeks: list[int], *, shift: float, digest: str) -> list[Any]:
    found = []
    for week in weeks:
        town.serve(week, digest)
        dataset = town.land(week, town.rows(week, shift=shift), labelled_week=week - 1)
        found.append(town.monitor(week, dataset))
    return found


def test_a_quiet_batch_passes_and_does_not_retrain(town: Any) -> None:
    digest = town.release()
    first, second = week_by_week(town, [8, 9], shift=0.0, digest=digest)
    assert (first.verdict, first.retrain) == (Verdict.PASS, False)
    assert "performance is unknown" in first.reason
    assert (second.verdict, second.retrain) == (Verdict.PASS, False)
    assert town.summary(9)["calibration_gap"] < 0.05


def test_lasting_drift_becomes_one_decision_with_its_evidence(town: Any) -> None:
    digest = town.release()
    first, second, third = week_by_week(town, [8, 9, 10], shift=1.0, digest=digest)
    assert [o.verdict for o in (first, second, third)] == [Verdict.FAIL] * 3
    assert [o.retrain for o in (first, second, third)] == [False, True, False]
    assert second.as_of == "2013-03-18T00:00:00Z"
    stored = town.storage.read(town.layout.decision(second.evidence_digest))
    assert digest.encode() in stored
    assert b'"as_of":"2013-03-18T00:00:00Z"' in stored
    assert not town.storage.exists(town.layout.decision(third.evidence_digest))


def test_a_new_champion_starts_with_a_clean_record(town: Any) -> None:
    week_by_week(town, [8, 9], shift=1.0, digest=town.release())
    new = town.release(seed=1)
    outputs = week_by_week(town, [10, 11], shift=1.0, digest=new)
    assert [o.retrain for o in outputs] == [False, True]
    assert town.summary(10)["champion_digest"] == new


def test_scores_that_no_longer_match_labels_are_a_signal_of_their_own(town: Any) -> None:
    digest = town.release()
    outputs = []
    for week in (8, 9, 10, 11):
        town.serve(week, digest, shift=0.2)
        outputs.append(town.monitor(week, town.land(week, town.rows(week), labelled_week=week - 1)))
    assert [o.verdict for o in outputs] == [Verdict.PASS, Verdict.FAIL, Verdict.FAIL, Verdict.FAIL]
    assert [o.retrain for o in outputs] == [False, False, True, False]
    assert town.summary(10)["calibration_gap"] == pytest.approx(0.2, abs=0.06)


def test_labels_meet_the_first_prediction_served_for_their_key(town: Any) -> None:
    digest = town.release()
    town.serve(8, digest, at_s=50.0, file="z", shift=0.0)
    town.serve(8, "f" * 64, at_s=60.0, file="a", shift=0.3)
    town.monitor(9, town.land(9, town.rows(9), labelled_week=8))
    (model,) = town.summary(9)["performance"]["models"]
    assert model["model_digest"] == digest
    assert model["num_rows"] == 400


def test_each_batch_hands_on_what_the_next_one_starts_from(town: Any) -> None:
    digest = town.release()
    week_by_week(town, list(range(8, 14)), shift=0.0, digest=digest)
    unknown, known = town.summary(12)["estimate"], town.summary(13)["estimate"]
    assert not unknown["is_known"]
    assert "labels have judged 4 batches" in unknown["reason"]
    assert known["is_known"]
    (auc,) = [f for f in known["figures"] if f["name"] == "auc"]
    assert auc["lower"] < auc["value"] < auc["upper"]
    carried = town.summary(13)["carried"]
    assert (carried["num_batches"], carried["num_new_rows"], carried["stream"]["num_tests"]) == (6, 2_000, 6)
    page = town.storage.read(town.layout.monitor("2013-04-08", "drift.html")).decode()
    assert "Before its labels are there" in page
    assert "All features at once" in page
    assert "Of 6 windows of this champion 0 stand" in page


def test_labels_that_stop_are_said_to_a_person(town: Any) -> None:
    digest = town.release()
    week_by_week(town, [8, 9], shift=0.0, digest=digest)
    outputs = []
    for week in (10, 11, 12):
        town.serve(week, digest)
        outputs.append(town.monitor(week, town.land(week, town.rows(week), labelled_week=None)))
    assert ["source of the labels" in o.reason for o in outputs] == [False, False, True]
    assert not any(o.retrain for o in outputs)


def test_a_feature_in_another_unit_is_held_and_never_trained_on(town: Any) -> None:
    digest = town.release()
    week_by_week(town, [8, 9], shift=0.0, digest=digest)
    outputs = []
    for week in (10, 11, 12):
        town.serve(week, digest)
        table = town.rows(week)
        place = table.schema.get_field_index("x3")
        table = table.set_column(place, "x3", pc.add(table["x3"], 30.0))
        outputs.append(town.monitor(week, town.land(week, table, labelled_week=week - 1)))
    assert all("held for a person" in o.reason and "x3" in o.reason for o in outputs)
    assert not any(o.retrain for o in outputs)


def test_labels_are_shown_by_their_age(town: Any) -> None:
    digest = town.release()
    week_by_week(town, [8, 9], shift=0.0, digest=digest)
    (model,) = town.summary(9)["performance"]["models"]
    ages = [a["age_days"] for a in model["by_age"]]
    assert ages == sorted(ages)
    assert (ages[0], ages[-1]) == (8, 14)
    assert sum(a["num_rows"] for a in model["by_age"]) == 400


def test_coverage_counts_labels_without_prediction_and_the_reverse(town: Any) -> None:
    digest = town.release()
    town.serve(9, digest)
    town.monitor(9, town.land(9, town.rows(9), labelled_week=8))
    performance = town.summary(9)["performance"]
    assert (performance["num_labels"], performance["num_unpredicted"]) == (400, 400)
    assert (performance["num_predictions"], performance["num_unlabelled"]) == (400, 400)
    assert performance["models"] == []
    assert town.summary(9)["calibration_gap"] is None


@pytest.mark.parametrize("num_rows", [0, 5], ids=["none", "five"])
def test_too_few_rows_wait_and_never_retrain(town: Any, num_rows: int) -> None:
    digest = town.release()
    week_by_week(town, [8], shift=1.0, digest=digest)
    outputs = town.monitor(9, town.land(9, town.rows(9, shift=9.0).slice(0, num_rows), labelled_week=8))
    assert (outputs.verdict, outputs.retrain) == (Verdict.INCONCLUSIVE, False)
    assert f"{num_rows} rows" in outputs.reason


def test_an_outage_is_an_alert_not_drift(town: Any) -> None:
    digest = town.release()
    lost = [f"x{i}" for i in range(3)]
    outputs = []
    for week in (8, 9, 10):
        town.serve(week, digest)
        table = town.rows(week, shift=1.0, lost=lost)
        outputs.append(town.monitor(week, town.land(week, table, labelled_week=week - 1)))
    assert [o.retrain for o in outputs] == [False] * 3
    assert all(o.verdict is Verdict.INCONCLUSIVE for o in outputs)
    assert "3 features lost" in outputs[-1].reason
    assert town.summary(10)["drift"]["num_counted"] == 6


@pytest.mark.parametrize(("num_thinned", "is_alert"), [(1, False), (3, True)])
def test_a_feed_that_falls_silent_in_part_is_an_alert_too(town: Any, num_thinned: int, is_alert: bool) -> None:
    digest = town.release()
    lost = [f"x{i}" for i in range(num_thinned)]
    for week in (8, 9):
        town.serve(week, digest)
        table = town.rows(week, shift=1.0, lost=lost, lost_share=0.3)
        outputs = town.monitor(week, town.land(week, table, labelled_week=week - 1))
    assert outputs.retrain is not is_alert
    assert ("a feed is silent" in outputs.reason) is is_alert
    assert (outputs.verdict is Verdict.INCONCLUSIVE) is is_alert


def test_without_a_champion_nothing_can_be_said(town: Any) -> None:
    outputs = town.monitor(8, town.land(8, town.rows(8), labelled_week=7))
    assert (outputs.verdict, outputs.retrain) == (Verdict.INCONCLUSIVE, False)
    assert "no champion" in outputs.reason
    assert town.storage.exists(outputs.report_uri)


def test_an_inconclusive_batch_is_measured_again_once_a_champion_serves(town: Any) -> None:
    dataset = town.land(8, town.rows(8), labelled_week=7)
    assert town.monitor(8, dataset).verdict is Verdict.INCONCLUSIVE
    digest = town.release()
    assert town.monitor(8, dataset).verdict is Verdict.PASS
    assert digest[:12].encode() in town.storage.read(town.layout.monitor("2013-03-04", "drift.html"))


def test_running_again_returns_the_same_result_and_decides_nothing_new(town: Any) -> None:
    digest = town.release()
    week_by_week(town, [8], shift=1.0, digest=digest)
    town.serve(9, digest)
    dataset = town.land(9, town.rows(9, shift=1.0), labelled_week=8)
    first = town.monitor(9, dataset)
    before = {uri: town.storage.read(uri) for uri in town.storage.list(town.layout._at())}
    town.release(seed=1)  # a promotion in between changes no finished batch
    known = set(town.storage.list(town.layout._at("models")))
    assert town.monitor(9, dataset) == first
    after = {uri: town.storage.read(uri) for uri in town.storage.list(town.layout._at()) if uri not in known}
    assert after == {uri: data for uri, data in before.items() if uri not in known}


@pytest.mark.parametrize("point", ["monitor.after_summary", "monitor.after_decision"])
def test_a_crash_and_a_second_run_end_where_an_undisturbed_run_ends(
    town: Any, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    digest = town.release()
    week_by_week(town, [8], shift=1.0, digest=digest)
    town.serve(9, digest)
    dataset = town.land(9, town.rows(9, shift=1.0), labelled_week=8)
    monkeypatch.setenv("CLEARWAY_FAULT", f"{point}=raise@1")
    monkeypatch.setattr("clearway.infra.faults._visits", {point: 0})
    with pytest.raises(InjectedFault):
        town.monitor(9, dataset)
    monkeypatch.delenv("CLEARWAY_FAULT")
    outputs = town.monitor(9, dataset)
    assert outputs.retrain
    assert len(list(town.storage.list(town.layout._at("decisions")))) == 1
    again = town.monitor(9, dataset)
    assert again == outputs


def test_score_drift_is_measured_on_the_champions_own_scores(town: Any) -> None:
    digest = town.release()
    town.serve(8, "f" * 64, file="other", shift=0.3, at_s=2_000.0)
    town.serve(8, digest, file="own", shift=0.0)
    town.monitor(8, town.land(8, town.rows(8), labelled_week=7))
    assert town.summary(8)["drift"]["score"]["is_over"] is False


@pytest.mark.slow
def test_the_report_is_evidentlys_page_with_our_summary_on_top(town: Any) -> None:
    digest = town.release()
    started = time.process_time()
    (outputs,) = week_by_week(town, [8], shift=1.0, digest=digest)
    html = town.storage.read(outputs.report_uri).decode()
    assert html.index('class="cw"') < html.index("window.drawDashboard(")
    assert "features are beyond their own limit" in html
    assert all(f"x{i}" in html for i in range(8))
    assert len(html) < 8_000_000
    assert time.process_time() - started < 20  # 5 s on a quiet machine


def test_pyarrow_sees_one_row_per_key() -> None:
    from clearway.monitor.prediction_log import EMPTY, first_served

    log = pa.table(
        {
            "key": ["b", "a", "a", None],
            "score": [0.5, 0.2, 0.1, 0.9],
            "model_digest": ["m", "m", "n", "m"],
            "event_time": pa.array([None] * 4, pa.timestamp("us", tz="UTC")),
            "logged_at": pa.array([5, 9, 3, 1], pa.timestamp("us", tz="UTC")),
        },
        schema=EMPTY,
    )
    assert first_served(log).select(["key", "score"]).to_pydict() == {"key": ["a", "b"], "score": [0.1, 0.5]}
