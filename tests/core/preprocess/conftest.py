"""The second product, and a run of the first two stages."""

from collections.abc import Callable
from pathlib import Path

import pytest

from clearway.infra.environment import Environment
from clearway.ingest.run import run as ingest
from clearway.ingest.spec import Inputs as IngestInputs
from clearway.ingest.spec import Outputs as IngestOutputs
from clearway.preprocess.run import run as preprocess
from clearway.preprocess.spec import Inputs, Outputs
from clearway.product import LoadedProduct
from clearway.product_yaml import find_product

PRODUCTS = Path(__file__).parents[2] / "products"


@pytest.fixture(scope="session")
def rain() -> LoadedProduct:
    return find_product(PRODUCTS, "seattle_rain")


@pytest.fixture(scope="session")
def land() -> Callable[..., IngestOutputs]:
    """land(product, env, start=…, end=…)"""

    def run(product: LoadedProduct, env: Environment, *, start: str, end: str) -> IngestOutputs:
        return ingest(
            IngestInputs(product=product.name, release_id="r", start=start, end=end), product=product, env=env
        )

    return run


@pytest.fixture(scope="session")
def prepare(land: Callable[..., IngestOutputs]) -> Callable[..., Outputs]:
    """prepare(product, env, first=…, start=…, end=…): ingest [first, end), then features from `start` on."""

    def run(product: LoadedProduct, env: Environment, *, first: str, start: str, end: str) -> Outputs:
        raw = land(product, env, start=first, end=end).raw
        assert raw is not None
        inputs = Inputs(product=product.name, release_id="r", raw=raw, start=start)
        return preprocess(inputs, product=product, env=env)

    return run
