"""A running Airflow with the small rain product, for tests that need one."""

import shutil
from collections.abc import Callable, Iterator

import pytest

from clearway.infra.environment import project_root
from stack_kit import Stack, started, until

PRODUCT = "seattle_rain"


@pytest.fixture(name="until", scope="session")
def _until() -> Callable[..., None]:
    return until


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Started once for all tests that need a running Airflow."""
    folder = tmp_path_factory.mktemp("stack")
    # The product as it is; a copy, because one test plants a fault in it.
    shutil.copytree(project_root() / "tests" / "products" / PRODUCT, folder / "products" / PRODUCT)
    with started(Stack(folder / "home", products=folder / "products", product=PRODUCT)) as found:
        yield found
