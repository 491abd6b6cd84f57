"""Fixtures every tier shares."""

import os
from pathlib import Path

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


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Fast tests first, then slow ones, then those that start Airflow: a mistake shows within seconds."""
    items.sort(
        key=lambda item: (item.get_closest_marker("airflow") is not None, item.get_closest_marker("slow") is not None)
    )
