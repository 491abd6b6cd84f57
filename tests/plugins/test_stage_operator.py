"""One operator for all stages: what it submits, when it re-attaches, and how answers and errors become task states."""

import airflow_kit  # noqa: F401, I001 - sets AIRFLOW_HOME before Airflow is imported

import asyncio
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import DAG
from airflow.sdk.exceptions import AirflowException, AirflowFailException, DownstreamTasksSkipped, TaskDeferred
from clearway_airflow.operators.stages import EvaluateOperator, MonitorOperator, TrainOperator, ValidateOperator
from clearway_airflow.triggers.job_ended import JobEnded
from plugins_kit import DATA, FakeJobs, FakeTi, context_of, xcom_before_train

from clearway.contracts.codec import to_jsonable
from clearway.contracts.errors import DataError, Unavailable
from clearway.contracts.refs import ModelRef
from clearway.contracts.verdict import Verdict
from clearway.devices.want import Want
from clearway.infra import jobs as jobs_module
from clearway.infra.environment import project_root
from clearway.infra.jobs import JobState
from clearway.monitor.spec import Outputs as MonitorOutputs
from clearway.product import LoadedProduct
from clearway.train.spec import Outputs as TrainOutputs

MODEL = ModelRef(uri="file:///model", digest="b" * 64)


@pytest.fixture
def runner(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeJobs:
    monkeypatch.setenv("CLEARWAY__HOME", str(tmp_path))  # where tasks on devices meet
    runner = FakeJobs()
    monkeypatch.setattr(jobs_module, "open_jobs", lambda _: runner)
    return runner


@pytest.fixture
def dag() -> DAG:
    return DAG("flights_release", schedule=None)


@pytest.fixture
def ti(flights: LoadedProduct) -> FakeTi:
    """XCom as it is when `train` begins."""
    return FakeTi(xcom=xcom_before_train(flights.spec))


def trained(verdict: Verdict = Verdict.PASS, reason: str = "fine") -> str:
    return json.dumps(
        to_jsonable(TrainOutputs(verdict=verdict, reason=reason, model=MODEL, mlflow_run_id="1", duration_s=2.0))
    )


def train_task(dag: DAG) -> TrainOperator:
    want = Want(product="flights", team="ops", risk_tier="medium")
    task = TrainOperator(product="flights", chain="release", want=want, dag=dag)
    task >> EvaluateOperator(product="flights", chain="release", dag=dag)
    return task


def execute(task: Any, context: dict[str, Any]) -> Any:
    return type(task).execute.__wrapped__(task, context)


def test_a_stage_gets_its_inputs_by_reference_and_hands_its_outputs_on(runner: FakeJobs, dag: DAG, ti: FakeTi) -> None:
    runner.results["train"] = trained()
    task = train_task(dag)
    value = execute(task, context_of(ti, task))
    (spec,) = runner.submitted
    assert json.loads(spec.inputs_json)["dataset"]["digest"] == DATA.digest
    assert json.loads(spec.inputs_json)["receipt_uri"] == "file:///receipt"
    assert value == ti.xcom["train", "return_value"]
    assert value["model"]["digest"] == MODEL.digest


def test_a_stage_over_budget_is_not_started_and_the_run_ends_green(
    runner: FakeJobs, dag: DAG, ti: FakeTi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    products = tmp_path / "products"
    shutil.copytree(project_root() / "include" / "products" / "flights", products / "flights")
    text = (products / "flights" / "product.yaml").read_text()
    assert "\nresources:" not in text
    (products / "flights" / "product.yaml").write_text(f"{text}\nresources: {{max_money: 2}}\n")
    monkeypatch.setenv("CLEARWAY__PRODUCTS", str(products))
    monkeypatch.setenv("CLEARWAY__JOBS__PRICE_PER_HOUR", "3")
    task = train_task(dag)
    with pytest.raises(DownstreamTasksSkipped) as skipped:
        execute(task, context_of(ti, task))
    assert list(skipped.value.tasks) == ["evaluate"]
    assert runner.submitted == []
    value = ti.xcom["train", "return_value"]
    assert value["verdict"] == "fail"
    assert value["reason"].startswith("over budget: train needs at most 3 USD by its time limit of 3600 s")


def test_a_retry_attaches_to_the_job_that_still_runs(runner: FakeJobs, dag: DAG, ti: FakeTi) -> None:
    runner.results["train"] = trained()
    task = train_task(dag)
    context = context_of(ti, task)

    submit_only(task, context, runner)
    (job_id,) = runner.states
    runner.states[job_id] = JobState.RUNNING
    looks = iter([JobState.RUNNING, JobState.RUNNING, JobState.SUCCEEDED])
    runner.on_state = lambda job_id: runner.states.__setitem__(job_id, next(looks, JobState.SUCCEEDED))
    execute(task, context)
    assert len(runner.submitted) == 1


def test_a_retry_takes_the_result_of_a_job_that_ended_meanwhile(runner: FakeJobs, dag: DAG, ti: FakeTi) -> None:
    runner.results["train"] = trained()
    task = train_task(dag)
    context = context_of(ti, task)
    submit_only(task, context, runner)
    runner.on_state = lambda _: None
    execute(task, context)
    assert len(runner.submitted) == 1


def test_a_retry_after_a_dead_job_submits_again_under_the_same_key(runner: FakeJobs, dag: DAG, ti: FakeTi) -> None:
    runner.results["train"] = trained()
    task = train_task(dag)
    context = context_of(ti, task)
    submit_only(task, context, runner)
    (job_id,) = runner.states
    runner.states[job_id] = JobState.FAILED
    runner.on_state = lambda _: None
    execute(task, context)
    first, second = runner.submitted
    assert first.key == second.key


def test_a_task_cleared_after_success_runs_its_stage_again(runner: FakeJobs, dag: DAG, ti: FakeTi) -> None:
    runner.results["train"] = trained()
    task = train_task(dag)
    context = context_of(ti, task)
    execute(task, context)
    ti.max_tries += 4  # as Airflow counts on when a task is cleared
    execute(task, context)
    assert len({spec.key for spec in runner.submitted}) == len(runner.submitted) == 2


def test_a_retry_after_a_success_that_airflow_never_learned_of_takes_its_result(
    runner: FakeJobs, dag: DAG, ti: FakeTi
) -> None:
    runner.results["train"] = trained()
    task = train_task(dag)
    context = context_of(ti, task)
    first = execute(task, context)
    assert execute(task, context) == first
    assert len(runner.submitted) == 1
    ti.max_tries += 4
    execute(task, context)
    execute(task, context)
    assert len(runner.submitted) == 2


def test_a_job_of_other_inputs_is_not_taken_for_this_one(runner: FakeJobs, dag: DAG, ti: FakeTi) -> None:
    runner.results["train"] = trained()
    task = train_task(dag)
    context = context_of(ti, task)
    submit_only(task, context, runner)
    ti.xcom["preprocess", "return_value"]["dataset"]["digest"] = "c" * 64
    runner.on_state = lambda _: None
    execute(task, context)
    assert json.loads(runner.submitted[-1].inputs_json)["dataset"]["digest"] == "c" * 64


def submit_only(task: Any, context: dict[str, Any], runner: FakeJobs) -> None:
    def crash(_: str) -> None:
        raise KeyboardInterrupt  # stands for the end of the task's process while it watches

    runner.on_state = crash
    with pytest.raises(KeyboardInterrupt):
        execute(task, context)


def test_a_fail_succeeds_keeps_its_outputs_and_skips_the_rest(runner: FakeJobs, dag: DAG, ti: FakeTi) -> None:
    runner.results["train"] = trained(Verdict.FAIL, "loss is not finite")
    task = train_task(dag)
    with pytest.raises(DownstreamTasksSkipped) as skipped:
        execute(task, context_of(ti, task))
    assert skipped.value.tasks == ["evaluate"]
    assert ti.xcom["train", "return_value"]["reason"] == "loss is not finite"


def test_an_error_verdict_is_tried_again(runner: FakeJobs, dag: DAG, ti: FakeTi) -> None:
    runner.results["train"] = trained(Verdict.ERROR, "no rows")
    task = train_task(dag)
    with pytest.raises(AirflowException, match="train could not be measured: no rows") as raised:
        execute(task, context_of(ti, task))
    assert not isinstance(raised.value, AirflowFailException)
    assert ("train", "return_value") not in ti.xcom


@pytest.mark.parametrize(("error", "is_final"), [(DataError("bad bytes"), True), (Unavailable("no answer"), False)])
def test_only_errors_worth_repeating_are_repeated(
    runner: FakeJobs, dag: DAG, ti: FakeTi, error: Exception, is_final: bool
) -> None:
    def refuse(_: str) -> str:
        raise error

    runner.result = refuse  # type: ignore[method-assign]
    task = train_task(dag)
    with pytest.raises(AirflowException, match=str(error)) as raised:
        execute(task, context_of(ti, task))
    assert isinstance(raised.value, AirflowFailException) is is_final


@pytest.mark.parametrize(("state", "num_cancelled"), [("failed", 1), ("restarting", 1), ("running", 0)])
def test_a_job_is_stopped_by_a_person_and_survives_a_shutdown(
    runner: FakeJobs, dag: DAG, ti: FakeTi, state: str, num_cancelled: int
) -> None:
    task = train_task(dag)

    def told(job_id: str) -> None:
        runner.states[job_id] = JobState.RUNNING
        ti.state = state
        task.on_kill()

    runner.on_state = told
    with pytest.raises(AirflowException):
        execute(task, context_of(ti, task))
    assert len(runner.cancelled) == num_cancelled


def test_a_missing_handoff_says_which_task_to_clear(runner: FakeJobs, dag: DAG, ti: FakeTi) -> None:
    del ti.xcom["tune", "return_value"]
    task = train_task(dag)
    with pytest.raises(AirflowFailException, match="task 'tune' left no outputs"):
        execute(task, context_of(ti, task))
    assert runner.submitted == []


def test_a_long_reason_is_cut_in_xcom(runner: FakeJobs, dag: DAG, ti: FakeTi) -> None:
    runner.results["train"] = trained(reason="x" * 5_000)
    task = train_task(dag)
    assert len(execute(task, context_of(ti, task))["reason"]) == 300


@pytest.mark.parametrize(("retrain", "verdict"), [(True, Verdict.FAIL), (False, Verdict.FAIL), (False, Verdict.PASS)])
def test_only_a_due_retraining_follows_monitor(
    runner: FakeJobs, dag: DAG, ti: FakeTi, retrain: bool, verdict: Verdict
) -> None:
    said = {"verdict": verdict, "reason": "r", "retrain": retrain, "evidence_digest": "e" * 64, "as_of": "2013-04-08"}
    outputs = MonitorOutputs(**said, report_uri="file:///page", summary_uri="file:///summary")
    runner.results["monitor"] = json.dumps(to_jsonable(outputs))
    ti.task_id = "monitor"
    task = MonitorOperator(product="flights", chain="batch", dag=dag)
    task >> ValidateOperator(product="flights", chain="batch", task_id="retrain", dag=dag)
    call: Callable[[], Any] = lambda: execute(task, context_of(ti, task))  # noqa: E731
    if retrain:
        assert call()["evidence_digest"] == "e" * 64
    else:
        with pytest.raises(DownstreamTasksSkipped):
            call()


@pytest.fixture
def deferrable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLEARWAY__JOBS__DEFERRABLE", "true")
    monkeypatch.setenv("CLEARWAY__JOBS__POLL_S", "0.01")


def deferred(task: Any, context: dict[str, Any]) -> JobEnded:
    """The trigger that a task is deferred for, as the triggerer gets it: from its serialized form."""
    with pytest.raises(TaskDeferred) as raised:
        execute(task, context)
    assert raised.value.method_name == "execute_after_job"
    path, values = raised.value.trigger.serialize()
    assert path == "clearway_airflow.triggers.job_ended.JobEnded"
    return JobEnded(**json.loads(json.dumps(values)))


def fired(trigger: JobEnded) -> dict[str, Any]:
    async def all_of() -> list[Any]:
        return [event.payload async for event in trigger.run()]

    (payload,) = asyncio.run(all_of())
    return dict(payload)


@pytest.mark.usefixtures("deferrable")
def test_a_deferred_task_holds_no_slot_while_its_job_runs(runner: FakeJobs, dag: DAG, ti: FakeTi) -> None:
    runner.results["train"] = trained()
    task = train_task(dag)
    context = context_of(ti, task)
    trigger = deferred(task, context)
    looks = iter([JobState.RUNNING, JobState.RUNNING, JobState.SUCCEEDED])
    runner.on_state = lambda job_id: runner.states.__setitem__(job_id, next(looks, JobState.SUCCEEDED))
    event = fired(trigger)
    assert next(looks, None) is None
    value = task.execute_after_job(context, event)
    assert value == ti.xcom["train", "return_value"]
    assert len(runner.submitted) == 1


@pytest.mark.usefixtures("deferrable")
def test_a_deferred_task_tells_what_its_job_failed_of(runner: FakeJobs, dag: DAG, ti: FakeTi) -> None:
    def refuse(_: str) -> str:
        raise DataError("bad bytes")

    runner.result = refuse  # type: ignore[method-assign]
    task = train_task(dag)
    context = context_of(ti, task)
    trigger = deferred(task, context)
    runner.states[trigger.job_id] = JobState.FAILED
    with pytest.raises(AirflowFailException, match="bad bytes"):
        task.execute_after_job(context, fired(trigger))


@pytest.mark.usefixtures("deferrable")
def test_a_person_who_ends_a_deferred_task_ends_its_job(runner: FakeJobs, dag: DAG, ti: FakeTi) -> None:
    trigger = deferred(train_task(dag), context_of(ti, train_task(DAG("other", schedule=None))))
    asyncio.run(trigger.on_kill())
    assert runner.cancelled == [trigger.job_id]


@pytest.mark.usefixtures("deferrable")
def test_a_job_that_never_ends_is_ended_by_its_trigger(runner: FakeJobs, dag: DAG, ti: FakeTi) -> None:
    task = train_task(dag)
    trigger = deferred(task, context_of(ti, task))
    runner.states[trigger.job_id] = JobState.RUNNING
    trigger.max_seconds = 0.05
    fired(trigger)
    assert runner.cancelled == [trigger.job_id]
