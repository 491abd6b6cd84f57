"""The environment of the children: loopback only, quiet, tuned."""

from pathlib import Path

from clearway.infra.environment import Environment
from clearway.launch.airflow_env import STACK_MARK, airflow_env
from clearway.launch.paths import StackPaths
from clearway.launch.ports import Ports
from clearway.launch.secret_keys import SecretKeys

PATHS = StackPaths(home=Path("/srv/home"), root=Path("/srv/project"))
KEYS = SecretKeys(jwt="j" * 86, api="a", fernet="f")


def variables(**ports: int) -> dict[str, str]:
    found = Ports(**ports)
    return airflow_env(ports=found, paths=PATHS, keys=KEYS, endpoints={"flights": found.endpoint, "my_rain": 18123})


def test_everyone_is_admin_only_behind_loopback() -> None:
    found = variables()
    assert found["AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS"] == "True"
    assert found["AIRFLOW__API__HOST"] == "127.0.0.1"
    urls = [value for value in found.values() if "http" in value]
    assert len(urls) == 6
    assert all(url.startswith("http://127.0.0.1:") for url in urls)


def test_every_address_follows_the_port_that_was_taken() -> None:
    found = variables(airflow=18123, mlflow=15001, endpoint=18999)
    assert found["AIRFLOW__API__PORT"] == "18123"
    assert found["AIRFLOW__API__BASE_URL"] == "http://127.0.0.1:18123"
    assert found["AIRFLOW__CORE__EXECUTION_API_SERVER_URL"] == "http://127.0.0.1:18123/execution/"
    assert found["CLEARWAY__TRACKING__URI"] == "http://127.0.0.1:15001"
    assert found["CLEARWAY__ENDPOINT__URLS__FLIGHTS"] == "http://127.0.0.1:18999"


def test_the_core_reads_the_same_home_and_addresses() -> None:
    env = Environment.load({k: v for k, v in variables(endpoint=18999).items() if k.startswith("CLEARWAY")})
    assert env.home == PATHS.home
    assert env.endpoint.url_of("flights") == "http://127.0.0.1:18999"
    assert env.endpoint.url_of("my_rain") == "http://127.0.0.1:18123"
    assert env.endpoint.url_of("tides") == "http://127.0.0.1:18999", "where it is told whose server that is"


def test_nothing_reports_home() -> None:
    found = variables()
    assert found["MLFLOW_DISABLE_TELEMETRY"] == found["DO_NOT_TRACK"] == "true"
    assert found["GX_ANALYTICS_ENABLED"].lower() == "false"


def test_every_process_can_be_traced_to_its_stack() -> None:
    assert variables()[STACK_MARK] == "/srv/home"


def test_values_are_pure_text_and_repeatable() -> None:
    assert variables() == variables()
    assert all(isinstance(v, str) and v for v in variables().values())
