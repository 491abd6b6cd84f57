"""Which products a stack of one machine has model servers for."""

import pytest

from clearway.contracts.errors import ConfigError
from clearway.contracts.release_document import ReleaseDocument, Version
from clearway.infra.environment import Environment
from clearway.infra.release_store import open_release_store
from clearway.launch.ports import Ports
from clearway.launch.stack import check_serves, connected, served_products
from clearway.launch.state import Phase, StackState


@pytest.fixture
def several(env: Environment, tmp_path) -> Environment:
    """Three products, one of which has a champion."""
    for name in ("flights", "rain", "tides"):
        (tmp_path / "products" / name).mkdir(parents=True)
        (tmp_path / "products" / name / "product.yaml").touch()
    champion = Version(uri="file:///m", digest="a" * 64, release_id="r")
    open_release_store(env).swap(ReleaseDocument(product="rain", champion=champion), expected_version=0)
    return env.model_copy(update={"products": tmp_path / "products"})


def state(**endpoints: int) -> StackState:
    return StackState(
        supervisor_pid=1,
        supervisor_created_s=0.0,
        phase=Phase.READY,
        ports=Ports(),
        endpoints=endpoints,
        started_s=0.0,
    )


def test_the_product_asked_for_comes_first_and_whatever_has_a_champion_after_it(several: Environment) -> None:
    assert served_products(several, "flights") == ("flights", "rain")
    assert served_products(several, "rain") == ("rain",)


def test_a_stack_has_no_server_where_sagemaker_serves(several: Environment) -> None:
    endpoint = several.endpoint.model_copy(update={"kind": "sagemaker"})
    assert served_products(several.model_copy(update={"endpoint": endpoint}), "flights") == ()
    check_serves(state(), "flights")


def test_a_stack_that_does_not_serve_a_product_says_what_to_do() -> None:
    check_serves(state(flights=8890, rain=8891), "rain")
    with pytest.raises(ConfigError, match="serves flights, rain, not tides; run `make stop`, then this again"):
        check_serves(state(flights=8890, rain=8891), "tides")


def test_each_product_is_asked_at_the_port_that_its_server_took(env: Environment) -> None:
    found = connected(env, state(flights=8890, rain=8891)).endpoint
    assert [found.url_of(name) for name in ("flights", "rain")] == ["http://127.0.0.1:8890", "http://127.0.0.1:8891"]
