"""Airflow's own scheduler, asked one question at a time: which of these tasks get slots now?

Run as a program, it makes a database of its own below AIRFLOW_HOME and answers cases: JSON on stdin, JSON on stdout.
A case is {"slots": …, "running": [slots, …], "waiting": [[name, slots, weight], …]}; its answer is the names that
`SchedulerJobRunner._executable_task_instances_to_queued` picks, in its order. Nothing is started.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

TIMEOUT_S = 300
# More than any case has tasks, so that the pool alone decides.
EXECUTOR_SLOTS = "1000"


def ask_scheduler(cases: list[dict[str, Any]]) -> list[list[str]]:
    """Answers of the real scheduler, from a process of its own."""
    with tempfile.TemporaryDirectory(prefix="clearway-scheduler-") as home:
        variables = {
            "AIRFLOW_HOME": home,
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__PARALLELISM": EXECUTOR_SLOTS,
            "AIRFLOW__CORE__MAX_ACTIVE_TASKS_PER_DAG": EXECUTOR_SLOTS,
            "AIRFLOW__LOGGING__LOGGING_LEVEL": "ERROR",
        }
        done = subprocess.run(
            [sys.executable, __file__],
            input=json.dumps(cases),
            env=os.environ | variables,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
            cwd=Path(home),
        )
    assert done.returncode == 0, done.stderr[-4000:]
    answers: list[list[str]] = json.loads(done.stdout.splitlines()[-1])
    return answers


def _answer(number: int, case: dict[str, Any], runner: Any, session: Any) -> list[str]:
    from airflow.models.pool import Pool
    from airflow.utils.state import TaskInstanceState

    pool = f"pool{number}"
    Pool.create_or_update_pool(pool, slots=case["slots"], description="", include_deferred=False, session=session)
    tasks = [(f"running{i}", slots, 1) for i, slots in enumerate(case["running"])] + case["waiting"]
    run = _run(f"case{number}", tasks, pool, session)
    for ti in run.get_task_instances(session=session):
        is_running = ti.task_id.startswith("running")
        ti.state = TaskInstanceState.RUNNING if is_running else TaskInstanceState.SCHEDULED
    session.flush()
    picked = [ti.task_id for ti in runner._executable_task_instances_to_queued(max_tis=512, session=session)]
    for ti in run.get_task_instances(session=session):
        ti.state = TaskInstanceState.SUCCESS
    session.flush()
    return picked


def _run(name: str, tasks: list[Any], pool: str, session: Any) -> Any:
    from datetime import UTC, datetime

    from airflow.models.dag import DagModel
    from airflow.models.serialized_dag import SerializedDagModel
    from airflow.providers.standard.operators.empty import EmptyOperator
    from airflow.sdk import DAG
    from airflow.serialization.definitions.dag import SerializedDAG
    from airflow.serialization.serialized_objects import LazyDeserializedDAG
    from airflow.utils.state import DagRunState
    from airflow.utils.types import DagRunTriggeredByType, DagRunType

    start = datetime(2024, 1, 1, tzinfo=UTC)
    with DAG(name, schedule=None, start_date=start) as dag:
        for task, slots, weight in tasks:
            EmptyOperator(task_id=task, pool=pool, pool_slots=slots, priority_weight=weight, weight_rule="absolute")
    lazy = LazyDeserializedDAG.from_dag(dag)
    SerializedDAG.bulk_write_to_db("kit", None, [lazy], session=session)
    SerializedDagModel.write_dag(lazy, bundle_name="kit", session=session)
    session.flush()
    session.get(DagModel, name).is_paused = False
    serialized = SerializedDagModel.get(name, session=session).dag
    return serialized.create_dagrun(
        run_id="one",
        run_type=DagRunType.MANUAL,
        triggered_by=DagRunTriggeredByType.TEST,
        run_after=start,
        logical_date=start,
        state=DagRunState.RUNNING,
        session=session,
    )


def main() -> None:
    """Answer the cases on stdin."""
    from airflow.executors.executor_loader import ExecutorLoader
    from airflow.jobs.job import Job
    from airflow.jobs.scheduler_job_runner import SchedulerJobRunner
    from airflow.models.dagbundle import DagBundleModel
    from airflow.utils.db import initdb
    from airflow.utils.session import create_session

    initdb()
    with create_session() as session:
        session.add(DagBundleModel(name="kit"))
        session.flush()
        job = Job()
        runner = SchedulerJobRunner(job=job, executors=ExecutorLoader.init_executors())
        answers = [_answer(number, case, runner, session) for number, case in enumerate(json.load(sys.stdin))]
    sys.stdout.write("\n" + json.dumps(answers) + "\n")


if __name__ == "__main__":
    main()
