"""Fixtures every tier shares."""

import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# Before numpy or torch load: threads of one test process would starve the others on a small machine, most of all those
# that wait spinning. What is computed here is small; two threads take longer for it than one.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
# Libraries that would otherwise report home; a test run reaches no network.
os.environ.setdefault("DO_NOT_TRACK", "1")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")
# Hundreds of children load the same modules: where no bytecode is kept, each of them would compile all of it.
if os.environ.pop("PYTHONDONTWRITEBYTECODE", ""):
    sys.dont_write_bytecode = False

import pytest
from hypothesis import settings

from aws_kit import at_endpoint, moto_server
from clearway.infra.environment import Environment, project_root
from clearway.product import LoadedProduct
from clearway.product_yaml import find_product

LONG_VARIABLE = "CLEARWAY_TEST_LONG"
# One machine with two cores serves many processes: deadlines would measure the neighbours. Same examples every run.
settings.register_profile("clearway", deadline=None, derandomize=True, max_examples=50)
settings.load_profile("clearway")


def _hold_temporary_files_in_memory(least_free_bytes: int = 4 << 30) -> None:
    """Where the machine has room: a test run waits for the disk a good part of its time, mostly for fsync.

    Not where somebody chose a folder, nor where programs may not run from it.
    """
    memory = Path("/dev/shm")  # noqa: S108
    if "TMPDIR" in os.environ or not os.access(memory, os.W_OK):
        return
    seen = os.statvfs(memory)
    if seen.f_bavail * seen.f_frsize >= least_free_bytes and not seen.f_flag & os.ST_NOEXEC:
        # Children ask the environment; this process has asked before, for the files that pytest keeps output in.
        os.environ["TMPDIR"] = tempfile.tempdir = str(memory)


_hold_temporary_files_in_memory()


@pytest.fixture
def env(tmp_path: Path) -> Environment:
    """A local environment whose home, store, databases and keys all lie below this test's own folder."""
    home = tmp_path / "home"
    variables = {"CLEARWAY__HOME": str(home), "CLEARWAY__STORAGE__ROOT": (home / "store").as_uri()}
    return Environment.load(variables)


@pytest.fixture(scope="session")
def flights() -> LoadedProduct:
    """The demonstration product, as a user has it."""
    return find_product(project_root() / "include" / "products", "flights")


@pytest.fixture(scope="session")
def moto() -> Iterator[str]:
    """Address of a moto server."""
    with moto_server() as endpoint:
        yield endpoint


@pytest.fixture
def aws(moto: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """This process and its children take the moto server for AWS; its address."""
    yield from at_endpoint(moto, monkeypatch)


# Tests that share something costly, or must not run beside each other: one worker runs all of a group. By place, not by
# mark: pytest-xdist 3.8.0 writes a mark's group into the node id, where pytest 9.2.0 no longer reads it.
GROUPS = {
    "tests/integration/test_airflow_loop.py": "airflow",
    "tests/integration/test_airflow_on_aws.py": "airflow",
    "tests/integration/test_airflow_on_sagemaker.py": "airflow",
    "tests/integration/test_language_release.py": "airflow",
    "tests/integration/test_launch_stack.py": "airflow",
    "tests/integration/test_release_on_aws.py": "aws",
    "tests/plugins/test_airflow_pools.py": "airflow",
    "tests/plugins/test_drop_trigger.py": "aws",
    "tests/architecture/test_house_rules.py": "house_rules",
    "tests/plugins/test_wishes.py": "aws",
    "tests/behaviour/": "quarter",
    "tests/browser/": "browser",
    "tests/contracts/test_endpoint_conformance.py": "aws",
    "tests/contracts/test_job_runner_conformance.py": "aws",
    "tests/contracts/test_metrics_conformance.py": "aws",
    "tests/contracts/test_notifier_conformance.py": "aws",
    "tests/contracts/test_release_store_conformance.py": "aws",
    "tests/contracts/test_service_conformance.py": "aws",
    "tests/contracts/test_storage_conformance.py": "aws",
    "tests/core/aws/": "aws",
    "tests/core/engine/test_kill.py": "engine_kill",
    "tests/core/ingest/test_files_in_s3.py": "aws",
    "tests/core/ingest/test_flights_source.py": "flights_source",
    "tests/core/language/test_language_task.py": "language_task",
    "tests/core/launch/test_launch_backtest.py": "backtest",
    "tests/core/monitor/": "monitor",
    "tests/core/preprocess/": "preprocess",
    "tests/core/serve/test_serving_parity.py": "serving_parity",
    "tests/core/train/": "train",
    "tests/core/validate/test_suite.py": "suite",
    "tests/faults/test_aws_submit_kill.py": "aws",
    "tests/faults/test_deploy_kill.py": "deploy_kill",
    "tests/faults/test_rollout_process_kill.py": "rollout_kill",
    "tests/faults/test_sagemaker_rollout.py": "aws",
    "tests/integration/test_engines_on_missing_values.py": "engines",
    "tests/integration/test_planted_shifts.py": "shifts",
    "tests/model/": "model",
}


def group_of(nodeid: str) -> str:
    """The group of a test; most are one of their own."""
    return next((group for place, group in GROUPS.items() if nodeid.startswith(place)), nodeid)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Workers take group by group, in the order of the collection (`--no-loadscope-reorder`)."""
    from xdist.scheduler import LoadScopeScheduling

    class Groups(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return group_of(nodeid)

    return Groups(config, log)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Fast tests first, then slow ones, then those that start Airflow: a mistake shows within seconds.

    Among several workers, those that start Airflow follow the fast ones: they wait most of their time, and the other
    workers run the slow tests meanwhile.
    """
    is_worker, takes_long = hasattr(config, "workerinput"), bool(os.environ.get(LONG_VARIABLE))
    for item in items:
        if item.get_closest_marker("long") and not takes_long:
            item.add_marker(pytest.mark.skip(reason=f"takes minutes; set {LONG_VARIABLE}=1 to run it"))

    def tier(item: pytest.Item) -> int:
        if item.get_closest_marker("airflow"):
            assert group_of(item.nodeid) == "airflow", f"name the file of {item.nodeid} in GROUPS, as airflow"
            return 1 if is_worker else 3
        return 2 if item.get_closest_marker("slow") else 0

    items.sort(key=tier)
