"""An Airflow task's surroundings in memory: state store, XCom, events. What operators touch, and nothing else."""

from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from clearway.contracts.codec import to_jsonable
from clearway.contracts.refs import DatasetRef
from clearway.contracts.verdict import Verdict
from clearway.infra.clock import parse_instant
from clearway.infra.jobs import JobSpec, JobState
from clearway.preprocess.spec import Outputs as PreprocessOutputs
from clearway.product import Product
from clearway.release import release_request
from clearway.tune.spec import Outputs as TuneOutputs
from clearway.validate.spec import Outputs as ValidateOutputs

DATA = DatasetRef(uri="file:///data", digest="a" * 64)
PASSED = {"verdict": Verdict.PASS, "reason": "fine"}


@dataclass
class FakeTi:
    """XCom of one run, and the states the API server would report."""

    dag_id: str = "flights_release"
    task_id: str = "train"
    run_id: str = "manual__1"
    map_index: int = -1
    id: str = "0"
    xcom: dict[tuple[str, str], Any] = field(default_factory=dict)
    state: str = "running"
    max_tries: int = 3
    stats_tags: dict[str, str] = field(default_factory=dict)

    def xcom_push(self, key: str, value: Any) -> None:
        self.xcom[self.task_id, key] = value

    def xcom_pull(self, task_ids: str, key: str = "return_value") -> Any:
        return self.xcom.get((task_ids, key))

    def get_task_states(self, dag_id: str, task_ids: list[str], run_ids: list[str]) -> dict[str, Any]:
        assert (dag_id, task_ids, run_ids) == (self.dag_id, [self.task_id], [self.run_id])
        return {self.run_id: {self.task_id: self.state}}


class FakeStateStore(dict[str, Any]):
    """The task state store: survives retries, unlike XCom."""

    def set(self, key: str, value: Any) -> None:
        self[key] = value


@dataclass
class FakeEvent:
    """One triggering asset event."""

    extra: dict[str, Any]
    timestamp: Any
    asset: Any = field(default_factory=lambda: SimpleNamespace(name="flights_retrain"))


class FakeJobs:
    """A JobRunner whose jobs stay in the state they are put in."""

    def __init__(self) -> None:
        self.submitted: list[JobSpec] = []
        self.states: dict[str, JobState] = {}
        self.results: dict[str, str] = {}
        self.cancelled: list[str] = []
        self.on_state: Callable[[str], None] = lambda _: None

    def submit(self, spec: JobSpec) -> str:
        job_id = f"{spec.key}.{len(self.submitted):04d}"
        self.submitted.append(spec)
        self.states.setdefault(job_id, JobState.SUCCEEDED)
        return job_id

    def state(self, job_id: str) -> JobState:
        self.on_state(job_id)
        return self.states[job_id]

    def result(self, job_id: str) -> str:
        return self.results[job_id.split("-", maxsplit=1)[0]]

    def read_log(self, job_id: str, offset: int) -> tuple[str, int]:
        return "", offset

    def attempts(self, key: str) -> tuple[str, ...]:
        return tuple(job_id for job_id in self.states if job_id.rpartition(".")[0] == key)

    def usage(self, job_id: str) -> None:
        return None

    def cancel(self, job_id: str, *, grace_s: float = 5.0) -> None:
        self.cancelled.append(job_id)
        self.states[job_id] = JobState.FAILED


def context_of(ti: FakeTi, task: Any, **more: Any) -> dict[str, Any]:
    """What Airflow hands to `execute`, as far as operators read it."""
    dag_run = SimpleNamespace(dag_id=ti.dag_id, run_id=ti.run_id, run_type="manual")
    return {
        "ti": ti,
        "task": task,
        "dag_run": dag_run,
        "params": {},
        "task_state_store": FakeStateStore(),
        "triggering_asset_events": {},
        **more,
    }


def xcom_before_train(product: Product) -> dict[tuple[str, str], Any]:
    """What the stages before `train` have left in a release's run."""
    request = release_request(product, "r-1", as_of=parse_instant("2013-04-01"))
    made = {
        "preprocess": PreprocessOutputs(**PASSED, dataset=DATA, num_rows=9, num_labelled=8, num_batches_computed=1),
        "validate": ValidateOutputs(**PASSED, receipt_uri="file:///receipt", report_uri="file:///page"),
        "tune": TuneOutputs(**PASSED, num_trials=0, params={}),
    }
    returned = {(stage, "return_value"): to_jsonable(outputs) for stage, outputs in made.items()}
    return {("ingest", "clearway_request"): to_jsonable(request)} | returned
