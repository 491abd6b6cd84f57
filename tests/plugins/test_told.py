"""What a run tells the world outside Airflow: figures of every outcome, a notice where a person must know."""

import airflow_kit  # noqa: F401, I001 - sets AIRFLOW_HOME before Airflow is imported

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk import DAG
from airflow.sdk.exceptions import DownstreamTasksSkipped
from clearway_airflow import told
from clearway_airflow.factory import build_dags
from clearway_airflow.operators.stages import TrainOperator, ValidateOperator
from clearway_airflow.outcomes import conclude
from plugins_kit import FakeTi, context_of

from clearway.contracts.verdict import Verdict
from clearway.devices.want import Want
from clearway.infra.environment import project_root
from clearway.infra.watch import notices, outcomes
from clearway.infra.watch.metrics import Point
from clearway.infra.watch.notices import Kind, Notice
from clearway.monitor.spec import Outputs as MonitorOutputs
from clearway.validate.spec import Outputs


class Kept:
    """A Notifier and a Metrics that keep what they are given."""

    def __init__(self) -> None:
        self.notices: list[Notice] = []
        self.points: list[Point] = []

    def tell(self, notice: Notice) -> None:
        self.notices.append(notice)

    def put(self, points: Sequence[Point]) -> None:
        self.points += points

    def endings(self) -> list[str]:
        """Over all products."""
        return [point.labels["Outcome"] for point in self.points if set(point.labels) == {"Outcome"}]


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Kept:
    monkeypatch.setenv("CLEARWAY__HOME", str(tmp_path))
    kept = Kept()
    monkeypatch.setattr(outcomes, "open_metrics", lambda _: kept)
    for module in (outcomes, notices):
        monkeypatch.setattr(module, "open_notifier", lambda _: kept)
    return kept


@pytest.fixture
def task() -> ValidateOperator:
    dag, want = DAG("flights_release", schedule=None), Want(product="flights", team="ops", risk_tier="low")
    task = ValidateOperator(product="flights", chain="release", dag=dag)
    task >> TrainOperator(product="flights", chain="release", want=want, dag=dag)
    return task


def said(verdict: Verdict) -> Outputs:
    return Outputs(verdict=verdict, reason="12 rows are bad", receipt_uri=None, report_uri="file:///page")


def test_a_rejected_release_is_told_with_its_reason_before_the_rest_is_skipped(kept: Kept, task: Any) -> None:
    with pytest.raises(DownstreamTasksSkipped):
        conclude(task, context_of(FakeTi(task_id="validate"), task), said(Verdict.FAIL))
    (notice,) = kept.notices
    assert (notice.kind, notice.product, notice.text) == (Kind.REJECTED, "flights", "validate: 12 rows are bad")
    assert notice.run.startswith("manual-1-")
    assert kept.endings() == ["rejected"]


def test_a_passed_stage_is_counted_and_nobody_is_told(kept: Kept, task: Any) -> None:
    conclude(task, context_of(FakeTi(task_id="validate"), task), said(Verdict.PASS))
    assert [dict(point.labels)["Verdict"] for point in kept.points] == ["pass"]
    assert (kept.notices, kept.endings()) == ([], [])


def test_a_superseded_release_is_no_news(kept: Kept, task: Any) -> None:
    with pytest.raises(DownstreamTasksSkipped):
        conclude(task, context_of(FakeTi(task_id="validate"), task), said(Verdict.FAIL), is_told=False)
    assert (kept.notices, kept.points) == ([], [])


def test_a_drifted_batch_is_an_alert_and_no_release(kept: Kept, task: Any) -> None:
    operator = SimpleNamespace(product="flights", stage="monitor", chain="batch")
    found = MonitorOutputs(
        verdict=Verdict.FAIL, reason="5 of 20 features", retrain=True, evidence_digest="e", as_of="2013-05-06",
        report_uri="file:///page", summary_uri="file:///summary",
    )  # fmt: skip
    told.outcome(operator, context_of(FakeTi(task_id="monitor"), task), found, ends=False)
    assert [(notice.kind, notice.text) for notice in kept.notices] == [(Kind.ALERT, "5 of 20 features")]
    assert kept.endings() == []
    assert [point.value for point in kept.points if point.name == "RetrainingsAsked"] == [1.0]


@pytest.mark.parametrize(("dag_id", "endings"), [("flights_release", ["failed"]), ("flights_monitor", [])])
def test_a_task_that_failed_for_good_is_told(kept: Kept, dag_id: str, endings: list[str]) -> None:
    ti = FakeTi(dag_id=dag_id, task_id="train")
    context = context_of(ti, SimpleNamespace(task_id="train"), exception=RuntimeError("no machine"))
    told.failure(context)  # type: ignore[arg-type]
    assert [(n.kind, n.product, n.text) for n in kept.notices] == [(Kind.FAILED, "flights", "train: no machine")]
    assert kept.endings() == endings


def test_a_question_is_told(kept: Kept) -> None:
    told.question(None, "flights", "manual-1", "look at http://page")
    assert [(notice.kind, notice.text) for notice in kept.notices] == [(Kind.APPROVAL, "look at http://page")]


def test_airflow_calls_it_for_every_task_of_a_product() -> None:
    dags = build_dags(project_root() / "include" / "products")
    tasks = [task for dag_id, dag in dags.items() if dag_id != "clearway_reconcile" for task in dag.tasks]
    assert tasks
    assert all(told.failure in list(task.on_failure_callback or ()) for task in tasks)
