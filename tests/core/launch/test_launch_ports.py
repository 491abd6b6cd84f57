"""Taken ports lead to free ones and a sentence about it."""

import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clearway.contracts.errors import ConfigError
from clearway.launch.ports import Ports, choose_ports, endpoint_ports, is_free


def test_free_ports_are_taken_as_wished() -> None:
    assert choose_ports(Ports(), is_free=lambda _: True) == (Ports(), ())


def test_a_taken_port_is_replaced_and_named() -> None:
    chosen, notes = choose_ports(Ports(airflow=8080), is_free=lambda p: p not in {8080, 8081})
    assert chosen.airflow == 8082
    assert notes == ("port 8080 for airflow is taken by another program; using 8082 instead",)


@given(st.integers(1024, 65000), st.sets(st.integers(0, 40)))
def test_chosen_ports_are_free_and_distinct(wanted: int, taken: set[int]) -> None:
    free = lambda port: port - wanted not in taken  # noqa: E731
    chosen, _ = choose_ports(Ports(airflow=wanted, mlflow=wanted, endpoint=wanted), is_free=free)
    found = [chosen.airflow, chosen.mlflow, chosen.endpoint]
    assert len(set(found)) == 3
    assert all(free(port) for port in found)


def test_nothing_free_is_refused_with_the_option_to_use() -> None:
    with pytest.raises(ConfigError, match="no free port for airflow in 8080 to 8129; pass --airflow-port"):
        choose_ports(Ports(), is_free=lambda _: False)


def test_each_product_has_a_port_that_nothing_else_has() -> None:
    taken = {8891, 8893}
    found = endpoint_ports(
        ["one", "two", "three"], Ports(mlflow=8892, endpoint=8890), is_free=lambda port: port not in taken
    )
    assert found == {"one": 8890, "two": 8894, "three": 8895}
    assert endpoint_ports([], Ports()) == {}


def test_a_product_without_a_port_is_named() -> None:
    with pytest.raises(
        ConfigError, match="no free port for the model server of two in 8891 to 8940; pass --endpoint-p"
    ):
        endpoint_ports(["one", "two"], Ports(), is_free=lambda _: False)


@pytest.mark.parametrize("port", [-5, 0, 65536, 99999])
def test_a_number_that_is_no_port_is_refused(port: int) -> None:
    with pytest.raises(ConfigError, match=f"--mlflow-port {port} is no port; allowed: 1 to 65535"):
        choose_ports(Ports(mlflow=port))


def test_a_listening_socket_makes_its_port_taken() -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        assert not is_free(server.getsockname()[1])
