"""airflow_settings.yaml: read as the Astro CLI writes it, applied once per content."""

import json
from pathlib import Path

import httpx
import pytest

from clearway.contracts.errors import ConfigError
from clearway.infra.environment import DeviceClass, Devices, project_root
from clearway.launch.paths import StackPaths
from clearway.launch.settings_file import SettingsLoader, bulk_requests, parse_settings, with_device_pools

TEXT = """
airflow:
  connections:
    - {conn_id: aws_default, conn_type: aws, conn_extra: {region_name: eu-central-1}}
  pools:
    - {pool_name: heavy, pool_slot: 2, pool_description: all cores}
  variables:
    - {variable_name: colour, variable_value: blue}
"""


@pytest.fixture
def paths(tmp_path: Path) -> StackPaths:
    found = StackPaths(home=tmp_path / "home", root=tmp_path)
    found.make()
    (tmp_path / "airflow_settings.yaml").write_text(TEXT, encoding="utf-8")
    return found


def test_the_shipped_file_is_valid() -> None:
    parse_settings((project_root() / "airflow_settings.yaml").read_text(encoding="utf-8"))


def test_each_kind_becomes_one_bulk_call() -> None:
    found = dict(bulk_requests(parse_settings(TEXT)))
    assert set(found) == {"/api/v2/connections", "/api/v2/pools", "/api/v2/variables"}
    (connection,) = found["/api/v2/connections"]["actions"][0]["entities"]
    assert connection["connection_id"] == "aws_default"
    assert json.loads(connection["extra"]) == {"region_name": "eu-central-1"}
    assert found["/api/v2/pools"]["actions"][0]["entities"][0]["slots"] == 2


def test_every_device_class_gets_a_pool_with_its_slots() -> None:
    devices = Devices(classes={"gpu": DeviceClass(slots=8), "blue": DeviceClass(slots=5)})
    text = "airflow: {pools: [{pool_name: clearway_gpu, pool_slot: 1}, {pool_name: other, pool_slot: 3}]}"
    ((_, body),) = bulk_requests(with_device_pools(parse_settings(text), devices))
    pools = {p["name"]: (p["slots"], p["include_deferred"]) for p in body["actions"][0]["entities"]}
    assert pools == {"clearway_gpu": (8, True), "clearway_blue": (5, True), "other": (3, False)}


@pytest.mark.parametrize("text", ["", "airflow:\n  pools:\n", "airflow: {}\n"], ids=["empty", "null-list", "no-lists"])
def test_nothing_to_do_makes_no_call(text: str) -> None:
    assert bulk_requests(parse_settings(text)) == ()


@pytest.mark.parametrize(
    "text",
    ["airflow: {pools: [{pool_name: a}]}", "airflow: {pool: []}", "airflow: [", "other: 1"],
    ids=["missing-field", "unknown-section", "no-yaml", "unknown-top"],
)
def test_a_bad_file_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"airflow_settings\.yaml is not usable"):
        parse_settings(text)


def test_entries_are_applied_once_and_again_when_they_change(paths: StackPaths) -> None:
    seen: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request.url.path)
        return httpx.Response(200, json={"create": {"success": ["x"], "errors": []}})

    loader = SettingsLoader(paths=paths)
    with httpx.Client(transport=httpx.MockTransport(answer)) as client:
        assert loader.apply(client, "http://airflow")
        assert len(seen) == 3
        assert loader.apply(client, "http://airflow")
        assert len(seen) == 3
        paths.settings_file.write_text(TEXT.replace("blue", "red"), encoding="utf-8")
        assert loader.apply(client, "http://airflow")
        assert len(seen) == 6


def test_an_api_that_is_not_up_yet_is_asked_again_later(paths: StackPaths) -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused", request=request)

    with httpx.Client(transport=httpx.MockTransport(refuse)) as client:
        assert not SettingsLoader(paths=paths).apply(client, "http://airflow")


def test_a_refused_entry_is_an_error_not_a_silence(paths: StackPaths) -> None:
    def answer(_: httpx.Request) -> httpx.Response:
        return httpx.Response(
            200, json={"create": {"success": [], "errors": [{"error": "bad pool", "status_code": 409}]}}
        )

    with (
        httpx.Client(transport=httpx.MockTransport(answer)) as client,
        pytest.raises(ConfigError, match="bad pool"),
    ):
        SettingsLoader(paths=paths).apply(client, "http://airflow")
