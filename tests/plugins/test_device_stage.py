"""A task on shared devices: what it asks for, when it gives slots back, how it makes room; and its weight."""

import airflow_kit  # noqa: F401, I001 - sets AIRFLOW_HOME before Airflow is imported

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow import plugins_manager
from airflow.sdk import DAG
from airflow.sdk.exceptions import AirflowRescheduleException
from airflow.serialization.serialized_objects import DagSerialization
from clearway_airflow.device_priority import LOWEST_WEIGHT, DevicePriority
from clearway_airflow.operators.stages import TrainOperator, TuneOperator
from plugins_kit import PASSED, FakeJobs, FakeTi, context_of, xcom_before_train

from clearway.contracts.codec import to_jsonable
from clearway.contracts.refs import ModelRef
from clearway.devices.board import Board, folder_of
from clearway.devices.priority import weight
from clearway.devices.sharing import Ask
from clearway.devices.want import Want
from clearway.infra import jobs as jobs_module
from clearway.infra.jobs import JobState
from clearway.infra.storage import open_storage
from clearway.product import LoadedProduct
from clearway.train.spec import Outputs as TrainOutputs
from clearway.tune.spec import Outputs as TuneOutputs

WANT = Want(product="flights", team="ops", risk_tier="medium", is_preemptible=True)
URGENT = Ask(id="urgent", task=("d", "r", "t"), product="u", team="u", slots=1, priority=1.0, asked_s=0.0)


class Ti(FakeTi):
    """Other runs' tasks as well."""

    def get_task_states(self, dag_id: str, task_ids: list[str], run_ids: list[str]) -> dict[str, Any]:
        known = {("d", "r"): {"t": "scheduled"}, (self.dag_id, self.run_id): {self.task_id: self.state}}
        return {run_ids[0]: known.get((dag_id, run_ids[0]), {})}


@pytest.fixture
def runner(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeJobs:
    runner = FakeJobs()
    monkeypatch.setattr(jobs_module, "open_jobs", lambda _: runner)
    monkeypatch.setenv("CLEARWAY__HOME", str(tmp_path))
    monkeypatch.setenv("CLEARWAY__DEVICES__MIN_RUN_S", "0")
    monkeypatch.setenv("CLEARWAY__DEVICES__LOOK_S", "0.001")
    monkeypatch.setenv("CLEARWAY__JOBS__POLL_S", "0.001")
    model = ModelRef(uri="file:///model", digest="b" * 64)
    trained = TrainOutputs(**PASSED, model=model, mlflow_run_id="1", duration_s=2.0)
    runner.results = {
        "train": json.dumps(to_jsonable(trained)),
        "tune": json.dumps(to_jsonable(TuneOutputs(**PASSED, num_trials=0, params={}))),
    }
    return runner


@pytest.fixture
def board(tmp_path: Path) -> Board:
    root = (tmp_path / "store").as_uri()
    return Board(open_storage(root), folder_of(root, "cpu"))


@pytest.fixture
def run(flights: LoadedProduct) -> Callable[..., Any]:
    """Execute a task whose XCom is as it is when `train` begins."""
    ti = Ti(xcom=xcom_before_train(flights.spec))
    contexts: dict[str, Any] = {}

    def execute(task: Any) -> Any:
        ti.task_id = task.task_id
        context = contexts.setdefault(task.task_id, context_of(ti, task))
        return type(task).execute.__wrapped__(task, context)

    return execute


def stage(operator: Any = TrainOperator, want: Want = WANT, dag: DAG | None = None) -> Any:
    return operator(product="flights", chain="release", want=want, dag=dag or DAG("flights_release", schedule=None))


def test_slots_pool_and_weight_come_from_the_product() -> None:
    dag = DAG("flights_release", schedule=None)
    task = stage(want=Want(product="flights", team="ops", risk_tier="low", device="gpu", slots=8), dag=dag)
    assert (task.pool, task.pool_slots) == ("clearway_gpu", 8)
    back = DagSerialization.from_dict(DagSerialization.to_dict(dag)).task_dict["train"]
    assert isinstance(back.weight_rule, DevicePriority)
    assert (back.pool, back.pool_slots) == ("clearway_gpu", 8)


def test_a_job_holds_its_slots_while_it_runs_and_leaves_a_record(runner: FakeJobs, run: Any, board: Board) -> None:
    seen = []
    runner.on_state = lambda _: seen.append(len(board.held()))
    run(stage())
    assert 1 in seen
    assert board.held() == board.asks() == []
    assert board.yields() == []


def test_the_stage_before_asks_for_the_next_one(runner: FakeJobs, run: Any, board: Board) -> None:
    dag = DAG("flights_release", schedule=None)
    tune, train = stage(TuneOperator, dag=dag), stage(dag=dag)
    tune >> train
    run(tune)
    (waiting,) = board.asks()
    assert waiting.id.startswith("train-")
    assert waiting.task == ("flights_release", "manual__1", "train")


def test_slots_that_a_more_urgent_job_waits_for_are_given_back(runner: FakeJobs, run: Any, board: Board) -> None:
    board.ask(URGENT)
    task = stage()
    with pytest.raises(AirflowRescheduleException):
        run(task)
    assert runner.submitted == []
    board.withdraw("urgent")
    run(task)
    assert len(runner.submitted) == 1


def test_a_running_job_makes_room_once_and_starts_again_later(runner: FakeJobs, run: Any, board: Board) -> None:
    task, told = stage(), []

    def look(job_id: str) -> None:
        if not told:
            runner.states[job_id] = JobState.RUNNING
            told.append(job_id)
        elif board.held() and not board.asks():
            board.ask(URGENT)

    runner.on_state = look
    with pytest.raises(AirflowRescheduleException):
        run(task)
    assert runner.cancelled == told
    (line,) = board.yields()
    assert (line.job_id, line.for_ask) == (told[0], "urgent")
    assert {(waiting.id[:5], waiting.num_yields) for waiting in board.asks()} == {("train", 1), ("urgen", 0)}
    board.withdraw("urgent")
    runner.on_state = lambda _: None
    assert run(task)["verdict"] == "pass"
    assert len(runner.submitted) == 2
    assert board.asks() == board.held() == []


def test_the_weight_is_the_priority_and_a_broken_product_gets_the_lowest(
    runner: FakeJobs, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    task = SimpleNamespace(dag_id="flights_release", task_id="train")
    assert DevicePriority().get_weight(task) == weight(0.5 * 0.5 + 0.25)
    monkeypatch.setenv("CLEARWAY__PRODUCTS", str(tmp_path))
    assert DevicePriority().get_weight(task) == LOWEST_WEIGHT
    assert "no priority for task train of flights" in caplog.text


def test_airflow_knows_the_strategy() -> None:
    names = plugins_manager.get_priority_weight_strategy_plugins()
    assert names["clearway_airflow.device_priority.DevicePriority"] is DevicePriority
