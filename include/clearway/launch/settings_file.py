"""airflow_settings.yaml (the Astro CLI's format) applied through Airflow's REST API, once per content."""

import hashlib
import json
import logging
from dataclasses import dataclass
from typing import Any

import httpx
import pydantic
import yaml

from clearway.contracts.errors import ConfigError
from clearway.devices.want import pool_of
from clearway.infra.environment import Devices, Environment
from clearway.launch.paths import StackPaths

logger = logging.getLogger("clearway.launch")


class _Entry(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)


class ConnectionEntry(_Entry):
    """One connection."""

    conn_id: str
    conn_type: str
    conn_host: str | None = None
    conn_schema: str | None = None
    conn_login: str | None = None
    conn_password: str | None = None
    conn_port: int | None = None
    conn_extra: dict[str, Any] | str | None = None


class PoolEntry(_Entry):
    """One pool."""

    pool_name: str
    pool_slot: int
    pool_description: str = ""
    # A task that waits in the triggerer has a job that runs; no key of the Astro CLI's.
    is_held_while_deferred: bool = False


class VariableEntry(_Entry):
    """One variable."""

    variable_name: str
    variable_value: str


class AirflowSection(_Entry):
    """Content of the `airflow` key; a missing or empty list is no entry."""

    connections: tuple[ConnectionEntry, ...] | None = ()
    pools: tuple[PoolEntry, ...] | None = ()
    variables: tuple[VariableEntry, ...] | None = ()


class SettingsFile(_Entry):
    """The whole file."""

    airflow: AirflowSection = AirflowSection()


def parse_settings(text: str) -> SettingsFile:
    """Raises: ConfigError naming the field and what was allowed."""
    try:
        return SettingsFile.model_validate(yaml.safe_load(text) or {})
    except (yaml.YAMLError, pydantic.ValidationError) as error:
        raise ConfigError(f"airflow_settings.yaml is not usable: {error}") from error


def with_device_pools(settings: SettingsFile, devices: Devices) -> SettingsFile:
    """The same with one pool per device class; the environment decides their slots, variables included."""
    pools = {p.pool_name: p for p in settings.airflow.pools or ()}
    pools |= {
        pool_of(name): PoolEntry(
            pool_name=pool_of(name),
            pool_slot=device.slots,
            pool_description=f"Devices of class {name}",
            is_held_while_deferred=True,
        )
        for name, device in devices.classes.items()
    }
    section = settings.airflow.model_copy(update={"pools": tuple(pools.values())})
    return settings.model_copy(update={"airflow": section})


def bulk_requests(settings: SettingsFile) -> tuple[tuple[str, dict[str, Any]], ...]:
    """(path, body) of the bulk calls that make Airflow hold these entries, replacing equal names."""
    section = settings.airflow
    entities: dict[str, list[dict[str, Any]]] = {
        "connections": [_connection(c) for c in section.connections or ()],
        "pools": [
            {
                "name": p.pool_name,
                "slots": p.pool_slot,
                "description": p.pool_description,
                "include_deferred": p.is_held_while_deferred,
            }
            for p in section.pools or ()
        ],
        "variables": [{"key": v.variable_name, "value": v.variable_value} for v in section.variables or ()],
    }
    return tuple(
        (
            f"/api/v2/{kind}",
            {"actions": [{"action": "create", "action_on_existence": "overwrite", "entities": found}]},
        )
        for kind, found in entities.items()
        if found
    )


def _connection(entry: ConnectionEntry) -> dict[str, Any]:
    extra = entry.conn_extra if isinstance(entry.conn_extra, str) else json.dumps(entry.conn_extra or {})
    return {
        "connection_id": entry.conn_id,
        "conn_type": entry.conn_type,
        "host": entry.conn_host,
        "schema": entry.conn_schema,
        "login": entry.conn_login,
        "password": entry.conn_password,
        "port": entry.conn_port,
        "extra": extra,
    }


@dataclass(kw_only=True)
class SettingsLoader:
    """Applies the file when its content differs from what was applied to this database last."""

    paths: StackPaths

    def apply(self, client: httpx.Client, airflow_url: str) -> bool:
        """True when Airflow holds the entries; False to try again later. Raises: ConfigError for a bad entry."""
        if not self.paths.settings_file.exists():
            return True
        text = self.paths.settings_file.read_text(encoding="utf-8")
        settings = with_device_pools(parse_settings(text), Environment.load().devices)
        digest = hashlib.sha256(settings.model_dump_json().encode()).hexdigest()
        marker = self.paths.airflow / "settings-applied"
        if marker.exists() and marker.read_text(encoding="utf-8") == digest:
            return True
        for path, body in bulk_requests(settings):
            try:
                answer = client.patch(airflow_url + path, json=body)
            except httpx.TransportError:
                return False
            if answer.status_code != httpx.codes.OK or any(a.get("errors") for a in answer.json().values() if a):
                raise ConfigError(f"Airflow refused {path} of airflow_settings.yaml: {answer.text[:500]}")
        marker.write_text(digest, encoding="utf-8")
        return True
