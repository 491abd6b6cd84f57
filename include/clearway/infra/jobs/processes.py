"""What a job's process is given, and how all processes of a job are found and ended."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil

from clearway.contracts.errors import JobFailed
from clearway.infra.environment import PREFIX, Environment, conf_of

# Rounds of SIGKILL, one second each: a process that survives this is stuck inside the kernel.
MAX_KILLS = 30
# Holds the attempt's folder, which no other installation on this machine shares; two may well share job ids.
JOB_VARIABLE = "CLEARWAY_JOB"
# A job needs nothing of its orchestrator; these may hold its secrets and tokens.
_DROPPED_PREFIXES = ("AIRFLOW", "_AIRFLOW", "__AIRFLOW", PREFIX)
# Libraries that phone home unless told not to.
_SILENT = {"DO_NOT_TRACK": "1", "GX_ANALYTICS_ENABLED": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}


def child_variables(env: Environment, folder: Path | None) -> dict[str, str]:
    """Environment variables of a job: this process's own, without the orchestrator's, plus `env` spelled out.

    `folder`: of the attempt, by which all its processes are found; None for a further process of the same attempt.

    Thread pools are sized before the first import, and idle threads sleep instead of spinning: with two cores a
    spinning pool of one library slows down every other (OMP_WAIT_POLICY).
    """
    kept = {k: v for k, v in os.environ.items() if not k.startswith(_DROPPED_PREFIXES)}
    return {
        **kept,
        **_settled(env),
        **environment_variables(env),
        "PYSPARK_PYTHON": sys.executable,
        **({JOB_VARIABLE: str(folder)} if folder is not None else {}),
    }


def cloud_variables(env: Environment) -> dict[str, str]:
    """The same for a job on another machine, which has folders and credentials of its own.

    Without what its code, which is this project's, says anyway: EMR and SageMaker take a hundred variables at most, and
    EMR no empty ones.
    """
    own = (f"{PREFIX}HOME", f"{PREFIX}PRODUCTS", f"{PREFIX}COST__PRICES", f"{PREFIX}JOBS__SCRATCH")
    defaults, in_files = environment_variables(Environment()), dict(_flat(conf_of(env.name), PREFIX))
    told = {
        name: value
        for name, value in environment_variables(env).items()
        if value and name not in own and (name in in_files or value != defaults.get(name))
    }
    return {**_settled(env), **told}


def _settled(env: Environment) -> dict[str, str]:
    pools = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    threads = dict.fromkeys(pools, str(env.jobs.num_threads))
    return {**threads, **_SILENT, "OMP_WAIT_POLICY": "PASSIVE", "PYTHONUNBUFFERED": "1"}


def environment_variables(env: Environment) -> dict[str, str]:
    """The variables from which `Environment.load` makes an equal environment in another process."""
    settings = env.model_dump(mode="json", exclude={"name"})
    return {"CLEARWAY_ENV": env.name, **dict(_flat(settings, PREFIX))}


def _flat(settings: Mapping[str, Any], prefix: str) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for name, value in settings.items():
        path = f"{prefix}{name.upper()}"
        found += _flat(value, f"{path}__") if isinstance(value, dict) else [(path, str(value))]
    return found


def processes_of(folder: Path) -> list[psutil.Process]:
    """Every live process of this user that belongs to the attempt in `folder`, wherever it was re-parented to."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(JOB_VARIABLE) == str(folder) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue  # ended meanwhile, or another user's: not ours to stop
    return found


def end_processes(folder: Path, *, grace_s: float) -> None:
    """SIGTERM, `grace_s` seconds to finish, then SIGKILL, until no process carries the mark.

    Raises: JobFailed if one survives.
    """
    processes = processes_of(folder)
    if grace_s > 0:
        _signal(processes, "terminate")
        psutil.wait_procs(processes, timeout=grace_s)
    for _ in range(MAX_KILLS):
        if not (alive := processes_of(folder)):
            return
        _signal(alive, "kill")
        psutil.wait_procs(alive, timeout=1)
    raise JobFailed(f"processes of job {folder} do not die: {processes_of(folder)}; look at them before trying again")


def _signal(processes: list[psutil.Process], verb: str) -> None:
    for process in processes:
        try:
            getattr(process, verb)()
        except psutil.NoSuchProcess:
            continue
