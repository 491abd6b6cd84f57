"""What Airflow itself costs for a chain of tasks that start a process which does nothing. Part of bench_release.py.

Stock: BashOperator under Airflow's default settings. Clearway: its stage operator, which submits a job, keeps its id,
watches it and hands its outputs on, under the launcher's settings and with its plugin and DAG factory loaded. Both:
LocalExecutor, SQLite, the four Airflow processes. Counted from the trigger to the end of the run; what an idle Airflow
costs is not.
"""

import os
import subprocess
import time
from pathlib import Path

from costs import START_TIMEOUT_S, Cost, answers, tree_cpu_s

from clearway.infra.environment import project_root
from clearway.launch import process
from clearway.launch.airflow_api import AirflowApi
from clearway.launch.airflow_env import ONE_MACHINE_TUNING, airflow_env
from clearway.launch.components import components
from clearway.launch.database import migrate_command
from clearway.launch.paths import StackPaths
from clearway.launch.ports import Ports
from clearway.launch.secret_keys import load_secret_keys
from serving_kit import free_port

DAG_ID = "bench_chain"
# Past the components' first heartbeats and the first parsing of all files.
SETTLE_S = 15
TAIL = """
with DAG(dag_id="bench_chain", schedule=None, max_active_runs=1):
    chain(*[{task} for i in range({num_tasks})])
"""
STOCK_HEAD = """
from airflow.sdk import DAG, chain
from airflow.providers.standard.operators.bash import BashOperator
"""
STOCK_TASK = 'BashOperator(task_id=f"t{i}", bash_command="true")'
OUR_HEAD = '''
import json
from airflow.sdk import DAG, chain
from clearway_airflow.factory import build_dags
from clearway_airflow.operators.stage import StageOperator

build_dags()
OUTPUTS = json.dumps({"verdict": "pass", "reason": "nothing to do", "num_trials": 0, "params": {}})

class NothingOperator(StageOperator):
    """A stage whose job copies its inputs to its outputs."""
    stage = "tune"

    def _prepare(self, context):
        from clearway.infra.environment import Environment
        from clearway.infra.jobs import JobSpec
        self._env = Environment.load()
        self._spec = JobSpec(stage="tune", inputs_json=OUTPUTS, key=f"bench-{self.task_id}")

    def _runner(self):
        from clearway.infra.jobs.local import LocalJobs
        return LocalJobs(self._env, command=("/bin/sh", "-c", 'cp "$2" "$4"'))
'''
OUR_TASK = 'NothingOperator(task_id=f"t{i}", product="flights", chain="release")'


def chain_cost(home: Path, *, num_tasks: int, is_stock: bool) -> Cost:
    """Cost of one run of the chain in a fresh Airflow below `home`."""
    paths = StackPaths(home=home, root=home if is_stock else project_root())
    paths.make()
    dags, plugins = home / "dags", home / "plugins"
    dags.mkdir(parents=True)
    plugins.mkdir()
    head, task = (STOCK_HEAD, STOCK_TASK) if is_stock else (OUR_HEAD, OUR_TASK)
    (dags / f"{DAG_ID}.py").write_text(head + TAIL.format(task=task, num_tasks=num_tasks), encoding="utf-8")
    ports = Ports(airflow=free_port(), mlflow=free_port(), endpoint=free_port())
    settings = airflow_env(ports=ports, paths=paths, keys=load_secret_keys(paths.keys))
    settings["AIRFLOW__CORE__DAGS_FOLDER"] = str(dags)
    if is_stock:
        settings = {k: v for k, v in settings.items() if k not in ONE_MACHINE_TUNING}
    variables = os.environ | settings
    subprocess.run(migrate_command(), env=variables, check=True, capture_output=True, timeout=120)
    wanted = [c for c in components(ports=ports, paths=paths, product="flights") if c.needs_database]
    children = [process.start(c.command, env=variables, log=paths.log(c.name), cwd=home) for c in wanted]
    try:
        return _run_once(f"http://127.0.0.1:{ports.airflow}", [c.pid for c in children])
    finally:
        for component, child in zip(wanted, children, strict=True):
            child.send_signal(component.stop_signal)
        for child in children:
            process.wait_or_kill(child, timeout_s=20)


def _run_once(url: str, pids: list[int]) -> Cost:
    deadline = time.monotonic() + START_TIMEOUT_S
    while not answers(f"{url}/api/v2/version"):
        _expect(time.monotonic() < deadline, f"Airflow at {url} did not come up")
        time.sleep(0.2)
    api = AirflowApi(url)
    while not api.has_dag(DAG_ID):
        _expect(time.monotonic() < deadline, f"{DAG_ID} did not appear: {api.import_errors()}")
        time.sleep(0.2)
    time.sleep(SETTLE_S)
    before, begin = tree_cpu_s(pids), time.monotonic()
    run = api.trigger(DAG_ID, "once", conf={}, note="benchmark")
    while not api.run(run.dag_id, run.run_id).has_ended:
        time.sleep(0.2)
    cost = Cost(tree_cpu_s(pids) - before, time.monotonic() - begin)
    _expect(api.run(run.dag_id, run.run_id).state == "success", f"{DAG_ID} failed: {api.tasks(run.dag_id, run.run_id)}")
    api.close()
    return cost


def _expect(holds: bool, text: str) -> None:
    if not holds:
        raise RuntimeError(text)
