"""The environment of every child process, as one pure function."""

from collections.abc import Mapping

from clearway.launch.paths import StackPaths
from clearway.launch.ports import LOOPBACK, Ports, url_at
from clearway.launch.secret_keys import SecretKeys

# Tasks that may run at once. Each is a child process of two threads; four already oversubscribe two cores.
PARALLELISM = 4

# Carried by every process of a stack, so that one whose parents were all killed can still be found.
STACK_MARK = "CLEARWAY_STACK"

# One-machine tuning. Sources: measured chains of no-op tasks, 0.64-0.83 s per task against 1.28-1.75 s with defaults.
ONE_MACHINE_TUNING = {
    "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.1",
    "AIRFLOW__SCHEDULER__MAX_TIS_PER_QUERY": "16",
    "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "10",
    "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "30",
    "AIRFLOW__DAG_PROCESSOR__PARSING_PROCESSES": "1",
    "AIRFLOW__CORE__MIN_SERIALIZED_DAG_UPDATE_INTERVAL": "5",
    "AIRFLOW__CORE__PARALLELISM": str(PARALLELISM),
    "AIRFLOW__CORE__MAX_ACTIVE_TASKS_PER_DAG": str(PARALLELISM),
    "AIRFLOW__CORE__MAX_ACTIVE_RUNS_PER_DAG": "1",
    "AIRFLOW__API__WORKERS": "1",
}
_BEHAVIOUR = {
    "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
    "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
    "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
    # Every visitor is an administrator: acceptable only because nothing listens beyond 127.0.0.1.
    "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
    "AIRFLOW__API__HOST": LOOPBACK,
    "AIRFLOW__LOGGING__COLORED_CONSOLE_LOG": "False",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "GX_ANALYTICS_ENABLED": "false",
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
}
# Idle OpenMP threads that spin steal the cores from the other tasks: a 0.8 s fit took 24.6 s beside others (measured).
_THREADS = {"OMP_WAIT_POLICY": "PASSIVE", "OMP_NUM_THREADS": "2"}


def airflow_env(*, ports: Ports, paths: StackPaths, keys: SecretKeys, endpoints: Mapping[str, int]) -> dict[str, str]:
    """Variables that the components get on top of the caller's own environment. `endpoints`: see `components`."""
    airflow_url = url_at(ports.airflow)
    return {
        **ONE_MACHINE_TUNING,
        **_BEHAVIOUR,
        **_THREADS,
        "AIRFLOW_HOME": str(paths.airflow),
        "AIRFLOW__CORE__DAGS_FOLDER": str(paths.root / "dags"),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(paths.root / "plugins"),
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{airflow_url}/execution/",
        "AIRFLOW__CORE__FERNET_KEY": keys.fernet,
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{paths.airflow_db}",
        "AIRFLOW__API__PORT": str(ports.airflow),
        "AIRFLOW__API__BASE_URL": airflow_url,
        "AIRFLOW__API__SECRET_KEY": keys.api,
        "AIRFLOW__API_AUTH__JWT_SECRET": keys.jwt,
        "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(paths.airflow / "logs"),
        "PYTHONPATH": f"{paths.root / 'include'}:{paths.root / 'plugins'}",
        "PYTHONUNBUFFERED": "1",
        STACK_MARK: str(paths.home),
        "CLEARWAY__HOME": str(paths.home),
        # What is asked for another product is refused there, in words.
        **({"CLEARWAY__ENDPOINT__URL": url_at(ports.endpoint)} if endpoints else {}),
        **{f"CLEARWAY__ENDPOINT__URLS__{product.upper()}": url_at(port) for product, port in endpoints.items()},
        "CLEARWAY__TRACKING__URI": url_at(ports.mlflow),
    }
