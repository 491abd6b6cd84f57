"""The loop in a running Airflow, with real stages: every way to start it, a person's answer, and killed tasks."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

import http_kit
from clearway.infra.storage import LocalStorage
from stack_kit import is_told_to_end

pytestmark = [pytest.mark.slow, pytest.mark.airflow, pytest.mark.timeout(1800)]

FIRST_END, NEXT_BATCH = "2015-01-01", "2015-01-01"
# The release on 1 January judges on the year before, which begins with this day.
HOLDOUT_START = "2013-12-31"
STAGES = ("ingest", "preprocess", "validate", "tune", "train", "yardsticks", "evaluate", "approve", "deploy")
KILLED = ("preprocess", "train", "evaluate", "deploy")


def test_a_release_by_hand_waits_for_the_person_who_was_asked_for(stack: Any, until: Any) -> None:
    conf = {"as_of": FIRST_END, "approval": "person", "reason": "first model"}
    stack.api.trigger("seattle_rain_release", "by-hand", conf=conf, note="")
    release = ("seattle_rain_release", "by-hand")
    until(lambda: stack.questions("by-hand") or stack.api.run(*release).has_ended, seconds=420, what="a question")
    (question,) = stack.questions("by-hand")
    assert question["task_instance"]["state"] == "awaiting_input"
    digest = stack.outputs("release", "by-hand", "train")["model"]["digest"]
    assert digest in question["body"]
    assert stack.document().champion is None
    stack.answer("by-hand", "Approve", note="read the report")
    states = stack.wait("release", "by-hand")
    assert states == dict.fromkeys((*STAGES, "champion"), "success")
    champion = stack.document().champion
    assert champion is not None
    assert champion.digest == digest
    record = json.loads(LocalStorage().read(stack.outputs("release", "by-hand", "approve")["approval_uri"]))
    assert (record["answer"], record["note"], record["model_digest"]) == ("approve", "read the report", digest)


def test_killed_tasks_end_in_the_same_release(stack: Any, until: Any) -> None:
    """kill -9 of the task's process in four stages of one release; each retry finds the job that went on without it."""
    whole = {task: stack.outputs("release", "by-hand", task) for task in STAGES}
    stack.api.trigger("seattle_rain_release", "killed", conf={"as_of": FIRST_END}, note="")
    for stage in KILLED:
        with stack.held_job(stage):  # else a short job is done before its task is killed
            path = f"/dags/seattle_rain_release/dagRuns/killed/taskInstances/{stage}"
            until(lambda path=path: stack.call("GET", path)["pid"], seconds=30, what=f"the process of {stage}")
            os.kill(stack.call("GET", path)["pid"], signal.SIGKILL)
    states = stack.wait("release", "killed")
    assert "failed" not in states.values()
    tries = {task.task_id: task.try_number for task in stack.api.tasks("seattle_rain_release", "killed")}
    assert {stage: tries[stage] for stage in KILLED} == dict.fromkeys(KILLED, 2)
    again = {task: stack.outputs("release", "killed", task) for task in STAGES}
    assert again["preprocess"]["dataset"] == whole["preprocess"]["dataset"]
    assert again["train"]["model"]["digest"] == whole["train"]["model"]["digest"]
    assert again["evaluate"]["verdict"] in {"pass", "inconclusive"}
    assert again["deploy"]["status"]["digest"] == stack.document().champion.digest == whole["train"]["model"]["digest"]
    attempts = [p for p in (stack.home / "jobs").glob("*/0002") if p.parent.name.split("-")[0] in KILLED]
    assert attempts == []


def test_a_model_of_shuffled_labels_is_rejected_and_changes_nothing(stack: Any) -> None:
    """The source delivers wrong labels for all that is trained on, true ones for the year that judges."""
    import httpx

    document, traffic = stack.document(), stack.traffic()
    assert traffic.weights_pct == {document.champion.digest: 100.0}
    with stack.shuffled_labels(before=HOLDOUT_START):
        stack.api.trigger("seattle_rain_release", "planted", conf={"as_of": FIRST_END}, note="")
        states = stack.wait("release", "planted")
    done = ("ingest", "preprocess", "validate", "tune", "train", "yardsticks", "evaluate")
    assert states == dict.fromkeys(done, "success") | dict.fromkeys(("approve", "deploy", "champion"), "skipped")
    assert stack.api.run("seattle_rain_release", "planted").state == "success"
    trained = stack.outputs("release", "planted", "train")["model"]["digest"]
    evaluated = stack.outputs("release", "planted", "evaluate")
    assert (evaluated["verdict"], evaluated["model"]["digest"]) == ("fail", trained)
    assert "gates did not pass" in evaluated["reason"]
    evaluation = json.loads(LocalStorage().read(evaluated["evaluation_uri"]))
    failed = {check["name"] for check in evaluation["checks"] if check["verdict"] == "fail"}
    assert {"auc_floor", "logloss_skill", "not_worse_logloss[champion]", "not_worse_auc[champion]"} <= failed
    report = http_kit.get(f"{stack.url}/clearway/runs/seattle_rain_release/planted/evaluate/report.html")
    assert report.status_code == httpx.codes.OK
    assert all(name in report.text for name in failed)
    after = stack.document()
    assert trained != after.champion.digest
    assert (after.champion, after.previous) == (document.champion, document.previous)
    assert stack.traffic().weights_pct == traffic.weights_pct
    assert trained not in stack.traffic().loaded


def test_a_trigger_form_with_nonsense_is_refused(stack: Any) -> None:
    for conf in ({"as_of": "soon"}, {"approval": "yes"}, {"reason": "x" * 501}):
        with pytest.raises(Exception, match="refused with 400"):
            stack.api.trigger("seattle_rain_release", "nonsense", conf=conf, note="")


def test_a_backfilled_batch_is_landed_scored_and_monitored(stack: Any) -> None:
    known = stack.runs("monitor")
    body = {
        "dag_id": "seattle_rain_ingest",
        "from_date": f"{NEXT_BATCH}T00:00:00Z",
        "to_date": f"{NEXT_BATCH}T00:00:00Z",
        "max_active_runs": 1,
        "reprocess_behavior": "none",
    }
    runs = stack.runs("ingest")
    stack.call("POST", "/backfills", body)
    run_id = stack.new_run("ingest", runs)
    assert run_id.startswith("backfill__")
    assert stack.wait("ingest", run_id) == {"ingest": "success", "batches": "success"}
    monitor = stack.new_run("monitor", known)
    states = stack.wait("monitor", monitor)
    assert {states[task] for task in ("ingest", "preprocess", "serve", "monitor")} == {"success"}
    served = stack.outputs("monitor", monitor, "serve")
    assert served["digest"] == stack.document().champion.digest
    assert served["num_rows"] > 0


def test_an_event_starts_one_release_and_the_same_evidence_no_second(stack: Any) -> None:
    event = {"as_of": "2015-02-01", "evidence_digest": "e" * 64, "reason": "drift seen elsewhere"}
    known = stack.runs("release")
    stack.post_event("retrain", event)
    first = stack.new_run("release", known)
    states = stack.wait("release", first, answer="Approve")
    assert states["ingest"] == "success"
    assert "failed" not in states.values()
    known = stack.runs("release")
    stack.post_event("retrain", event)
    second = stack.new_run("release", known)
    states = stack.wait("release", second)
    assert states.pop("ingest") == "success"
    assert set(states.values()) == {"skipped"}
    assert "already acts on this evidence" in stack.outputs("release", second, "ingest")["reason"]


def test_a_request_file_starts_a_release(stack: Any) -> None:
    known = stack.runs("release")
    folder: Path = stack.home / "drop" / "seattle_rain"
    folder.mkdir(parents=True, exist_ok=True)
    wish = {"as_of": "2014-12-01", "reason": "asked by file", "override": "cooldown, budget, input"}
    (folder / "please.json").write_text(json.dumps(wish))
    run_id = stack.new_run("release", known)
    states = stack.wait("release", run_id, answer="Reject")
    assert states["train"] == "success"
    assert "failed" not in states.values()
    request = stack.call(
        "GET", f"/dags/seattle_rain_release/dagRuns/{run_id}/taskInstances/ingest/xcomEntries/clearway_request"
    )["value"]
    asked = request if isinstance(request, dict) else json.loads(request)
    assert (asked["end"], asked["reason"]) == ("2014-12-01T00:00:00Z", "asked by file")


def test_a_person_who_fails_a_task_stops_its_job(stack: Any, until: Any) -> None:
    stack.api.trigger("seattle_rain_release", "stopped", conf={"as_of": "2014-11-01"}, note="")
    with stack.held_job("preprocess") as held:  # it cannot end by itself
        path = "/dags/seattle_rain_release/dagRuns/stopped/taskInstances/preprocess"
        stack.call("PATCH", path, {"new_state": "failed"})
        until(lambda: any(is_told_to_end(p) for p in held), seconds=120, what="an order to the job to end")
    until(lambda: not stack.job_processes("preprocess"), seconds=120, what="the end of the job")
    stack.wait("release", "stopped")
    assert stack.state("release", "stopped", "preprocess") == "failed"


def test_a_rollback_by_hand_brings_the_previous_champion_back(stack: Any) -> None:
    before = stack.document()
    assert before.previous is not None, "the release after the event took the traffic"
    stack.api.trigger("seattle_rain_rollback", "back", conf={"reason": "drill"}, note="")
    assert stack.wait("rollback", "back") == {"revert": "success", "champion": "success"}
    assert stack.document().champion.digest == before.previous.digest


def test_the_pages_show_what_serves_and_what_a_run_found(stack: Any) -> None:
    import httpx

    serving = http_kit.get(f"{stack.url}/clearway/serving").text
    assert stack.document().champion.digest in serving
    page = http_kit.get(f"{stack.url}/clearway/runs/seattle_rain_release/by-hand")
    assert "read the report" in page.text
    report = http_kit.get(f"{stack.url}/clearway/runs/seattle_rain_release/by-hand/evaluate/report.html")
    assert report.status_code == httpx.codes.OK
    assert "sandbox" in report.headers["content-security-policy"]
    for file in ("..%2f..%2frelease.db", "report.html%00", "missing.html"):
        answer = http_kit.get(f"{stack.url}/clearway/runs/seattle_rain_release/by-hand/evaluate/{file}")
        assert answer.status_code == httpx.codes.NOT_FOUND
    stranger = {"Authorization": "Bearer x"}
    assert http_kit.get(f"{stack.url}/clearway/serving", headers=stranger).status_code in {401, 403}
    orders = f"{stack.url}/clearway/rollouts/seattle_rain_release/orders"
    form, own = {"reason": "why", "release_id": "r", "confirmed": "yes"}, {"origin": stack.url}
    for changes, headers, expected in (
        ({"kind": "abort"}, own, {httpx.codes.CONFLICT}),  # no rollout is under way
        ({"kind": "explode"}, own, {httpx.codes.UNPROCESSABLE_ENTITY}),
        ({"kind": "abort"}, {"sec-fetch-site": "cross-site"}, {httpx.codes.FORBIDDEN}),
        ({"kind": "abort"}, {}, {httpx.codes.FORBIDDEN}),
        ({"kind": "abort"}, own | stranger, {httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN}),
    ):
        assert http_kit.post(orders, data=form | changes, headers=headers).status_code in expected


def test_the_reconciler_runs_and_repairs_nothing_that_is_whole(stack: Any, until: Any) -> None:
    champion = stack.document().champion
    stack.api.trigger("clearway_reconcile", "check", conf={}, note="")
    until(lambda: stack.api.run("clearway_reconcile", "check").has_ended, seconds=120, what="the reconciler")
    assert stack.api.run("clearway_reconcile", "check").state == "success"
    assert stack.document().champion == champion
