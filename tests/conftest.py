"""Fixtures every tier shares."""

import os
from pathlib import Path
from typing import Any

# Before numpy or torch load: spinning threads of one test process would starve the others on a small machine.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("OMP_NUM_THREADS", "2")
# Libraries that would otherwise report home; a test run reaches no network.
os.environ.setdefault("DO_NOT_TRACK", "1")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")

import pytest
from hypothesis import settings

from clearway.infra.environment import Environment, project_root
from clearway.product import LoadedProduct
from clearway.product_yaml import find_product

# One machine with two cores serves many processes: deadlines would measure the neighbours. Same examples every run.
settings.register_profile("clearway", deadline=None, derandomize=True, max_examples=50)
settings.load_profile("clearway")


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


# Tests that share something costly, or must not run beside each other: one worker runs all of a group. By place, not by
# mark: pytest-xdist 3.8.0 writes a mark's group into the node id, where pytest 9.2.0 no longer reads it.
GROUPS = {
    "tests/integration/test_airflow_loop.py": "airflow",
    "tests/integration/test_launch_stack.py": "airflow",
    "tests/plugins/test_airflow_pools.py": "airflow",
    "tests/behaviour/": "quarter",
    "tests/browser/": "browser",
    "tests/core/engine/test_kill.py": "engine_kill",
    "tests/core/ingest/test_flights_source.py": "flights_source",
    "tests/core/preprocess/": "preprocess",
    "tests/core/serve/test_serving_parity.py": "serving_parity",
    "tests/core/validate/test_suite.py": "suite",
    "tests/faults/test_deploy_kill.py": "deploy_kill",
    "tests/faults/test_rollout_process_kill.py": "rollout_kill",
    "tests/integration/test_engines_on_missing_values.py": "engines",
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
    is_worker = hasattr(config, "workerinput")

    def tier(item: pytest.Item) -> int:
        if item.get_closest_marker("airflow"):
            assert group_of(item.nodeid) == "airflow", f"name the file of {item.nodeid} in GROUPS, as airflow"
            return 1 if is_worker else 3
        return 2 if item.get_closest_marker("slow") else 0

    items.sort(key=tier)
