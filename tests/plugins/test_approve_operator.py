"""Who is asked, what they see, and what their answer does."""

import airflow_kit  # noqa: F401, I001 - sets AIRFLOW_HOME before Airflow is imported

import json
from typing import Any

import pytest
from airflow.sdk import DAG
from airflow.sdk.exceptions import DownstreamTasksSkipped, TaskAwaitingInput
from airflow.sdk.execution_time import hitl
from clearway_airflow.operators.approve import ApproveOperator
from clearway_airflow.operators.stages import DeployOperator
from plugins_kit import FakeTi, context_of

from clearway.contracts.codec import to_jsonable
from clearway.contracts.manifest import canonical_json, sha256_of
from clearway.contracts.refs import ModelRef
from clearway.contracts.verdict import Verdict
from clearway.evaluate.spec import Outputs
from clearway.infra.clock import parse_instant
from clearway.infra.environment import Environment
from clearway.infra.evaluations import evaluation_uri
from clearway.infra.jobs.processes import environment_variables
from clearway.infra.layout import Layout
from clearway.infra.storage import open_storage
from clearway.product import LoadedProduct
from clearway.release import release_request

MODEL = ModelRef(uri="file:///model", digest="b" * 64)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Questions as Airflow would store them."""
    questions: list[dict[str, Any]] = []
    monkeypatch.setattr(hitl, "upsert_hitl_detail", lambda **question: questions.append(question))
    return questions


@pytest.fixture
def task() -> ApproveOperator:
    dag = DAG("flights_release", schedule=None)
    task = ApproveOperator(product="flights", dag=dag)
    task >> DeployOperator(product="flights", chain="release", dag=dag)
    return task


@pytest.fixture
def case(env: Environment, flights: LoadedProduct, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A release evaluated with a verdict, in an environment that asks or answers itself."""

    def make(task: ApproveOperator, *, mode: str, verdict: Verdict = Verdict.PASS, asked: str = "default") -> Any:
        for name, value in (environment_variables(env) | {"CLEARWAY__APPROVE__MODE": mode}).items():
            monkeypatch.setenv(name, value)
        text = canonical_json({"model_digest": MODEL.digest, "dataset_digest": "a" * 64, "verdict": verdict.value})
        uri = evaluation_uri(Layout(env.store_root, "flights"), "r-1")
        open_storage(env.store_root).write(uri, text)
        evaluated = Outputs(
            verdict=verdict,
            reason="better in every slice",
            model=MODEL,
            evaluation_uri=uri,
            evaluation_digest=sha256_of(text),
            report_uri="file:///page",
        )
        request = release_request(flights.spec, "r-1", as_of=parse_instant("2013-04-01"), approval=asked)
        ti = FakeTi(task_id="approve")
        ti.xcom["ingest", "clearway_request"] = to_jsonable(request)
        ti.xcom["evaluate", "return_value"] = to_jsonable(evaluated)
        return context_of(ti, task)

    return make


def execute(task: ApproveOperator, context: Any) -> Any:
    return ApproveOperator.execute.__wrapped__(task, context)


def answered(option: str, *, user: str | None = "ada", note: str = "") -> dict[str, Any]:
    by = {"id": user, "name": user} if user else None
    return {"chosen_options": [option], "params_input": {"note": note}, "responded_by_user": by}


def record_of(value: Any, env: Environment) -> Any:
    return json.loads(open_storage(env.store_root).read(value["approval_uri"]))


def test_the_local_profile_answers_itself_and_says_so(
    task: ApproveOperator, case: Any, asked: list[Any], env: Environment
) -> None:
    value = execute(task, case(task, mode="auto"))
    assert asked == []
    assert record_of(value, env)["answered_by"] == "local profile (auto)"


@pytest.mark.parametrize(
    ("mode", "verdict", "wish"),
    [
        ("person", Verdict.PASS, "default"),
        ("person", Verdict.INCONCLUSIVE, "auto"),
        ("auto", Verdict.INCONCLUSIVE, "person"),
        ("auto", Verdict.PASS, "person"),
    ],
)
def test_a_person_is_asked_about_exact_bytes(
    task: ApproveOperator, case: Any, asked: list[Any], mode: str, verdict: Verdict, wish: str
) -> None:
    with pytest.raises(TaskAwaitingInput) as parked:
        execute(task, case(task, mode=mode, verdict=verdict, asked=wish))
    (question,) = asked
    assert question["defaults"] == ["Reject"]
    assert MODEL.digest in question["body"]
    assert verdict.value in question["body"]
    assert parked.value.timeout.total_seconds() == 72 * 3600


def test_the_local_profile_lets_no_missing_evidence_through(
    task: ApproveOperator, case: Any, asked: list[Any], env: Environment
) -> None:
    context = case(task, mode="auto", verdict=Verdict.INCONCLUSIVE)
    with pytest.raises(DownstreamTasksSkipped) as skipped:
        execute(task, context)
    assert asked == []
    assert skipped.value.tasks == ["deploy"]
    assert record_of(context["ti"].xcom["approve", "return_value"], env)["answer"] == "reject"


def test_an_approval_names_the_person_and_goes_on(task: ApproveOperator, case: Any, env: Environment) -> None:
    value = task.execute_complete(case(task, mode="person"), answered("Approve", note="looked at the slices"))
    record = record_of(value, env)
    assert (record["answered_by"], record["note"]) == ("ada", "looked at the slices")
    assert record["model_digest"] == MODEL.digest


@pytest.mark.parametrize(("user", "by"), [("ada", "ada"), (None, "nobody (time ran out)")])
def test_a_rejection_and_silence_end_the_release_green(
    task: ApproveOperator, case: Any, env: Environment, user: str | None, by: str
) -> None:
    context = case(task, mode="person")
    with pytest.raises(DownstreamTasksSkipped) as skipped:
        task.execute_complete(context, answered("Reject", user=user))
    assert skipped.value.tasks == ["deploy"]
    value = context["ti"].xcom["approve", "return_value"]
    assert value["verdict"] == "fail"
    assert record_of(value, env)["answered_by"] == by
