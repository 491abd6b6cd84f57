"""Where this process runs: conf/base.yaml, then conf/<CLEARWAY_ENV>.yaml, then CLEARWAY__SECTION__KEY variables.

`Environment.load()` is the only reader of process environment variables in the core, besides fault points.
"""

import os
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic

from clearway.contracts.errors import ConfigError
from clearway.strict_yaml import read_yaml

PREFIX = "CLEARWAY__"


def project_root() -> Path:
    """The folder that holds include/, dags/ and plugins/."""
    return Path(__file__).resolve().parents[3]


class Section(pydantic.BaseModel):
    """A part of the configuration: closed, immutable, without coercion surprises."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)


class Storage(Section):
    """`root`: folder or `s3://bucket/prefix` under which every product keeps its store; empty = <home>/store."""

    kind: Literal["local", "s3"] = "local"
    root: str = ""


class Spark(Section):
    """`engine`: `sail` needs no Java; `jvm` is stock Spark. `shuffle_partitions` suits one machine's cores."""

    engine: Literal["sail", "jvm"] = "sail"
    shuffle_partitions: int = pydantic.Field(4, ge=1)


class Jobs(Section):
    """How stage jobs run: `local` child processes; threads per job; poll interval in seconds.

    `deferrable`: tasks wait in the triggerer and hold no worker slot. Off by default: a LocalExecutor of Airflow 3.2
    and 3.3 can fail a deferred task falsely, and a task's log then comes in one piece at its end. `num_tune_workers`:
    processes that share a study, and the threads of the job among them; 0 is one per thread. `price_per_hour`: of this
    machine, in whatever money budgets are written in; 0 is free.
    """

    kind: Literal["local"] = "local"
    num_threads: int = pydantic.Field(2, ge=1)
    deferrable: bool = False
    poll_s: float = pydantic.Field(0.1, gt=0)
    max_seconds: float = pydantic.Field(3600, gt=0)
    num_tune_workers: int = pydantic.Field(0, ge=0)
    price_per_hour: float = pydantic.Field(0.0, ge=0)


class Training(Section):
    """How the processes of a training find each other and when they give up; see docs/reference/training.md.

    `allows_other_world`: go on with another number of processes, no longer bitwise. `watches_spot`: ask EC2's metadata
    service for notices. `stop_file`: stop when this exists; empty = no file.
    """

    min_nodes: int = pydantic.Field(1, ge=1)
    max_nodes: int = pydantic.Field(1, ge=1)
    rendezvous: str = "localhost:0"
    max_restarts: int = pydantic.Field(2, ge=0)
    collective_timeout_s: float = pydantic.Field(60.0, gt=0)
    allows_other_world: bool = False
    watches_spot: bool = False
    stop_file: str = ""


class DeviceClass(Section):
    """`slots`: devices of this class, and slots of the Airflow pool `clearway_<class>`."""

    slots: int = pydantic.Field(1, ge=1)


class Devices(Section):
    """Devices that products share; docs/reference/devices.md.

    `shares`: what teams are due, 1 where a team is not listed. `margin`, `min_run_s`, `max_yields`: who makes room, and
    how often. `grace_s`: time for the checkpoint. `look_s`: how often a running job looks whether it has to;
    `return_s`: how long one that gave its slots back stays away.
    """

    classes: dict[str, DeviceClass] = pydantic.Field(default_factory=lambda: {"cpu": DeviceClass()})
    shares: dict[str, Annotated[float, pydantic.Field(gt=0)]] = pydantic.Field(default_factory=dict)
    half_life_days: float = pydantic.Field(7.0, gt=0)
    margin: float = pydantic.Field(0.1, gt=0, le=1)
    min_run_s: float = pydantic.Field(600.0, ge=0)
    max_yields: int = pydantic.Field(3, ge=0)
    grace_s: float = pydantic.Field(25.0, ge=0)
    look_s: float = pydantic.Field(10.0, gt=0)
    return_s: float = pydantic.Field(60.0, gt=0)


class Tracking(Section):
    """MLflow server; loopback locally. Empty = the SQLite file below home, without a server."""

    uri: str = ""


class Endpoint(Section):
    """The model server: base URL and the file with the admin bearer token (empty = <home>/serving/admin.token)."""

    kind: Literal["local"] = "local"
    url: str = "http://127.0.0.1:8890"
    admin_token_file: str = ""
    timeout_s: float = pydantic.Field(30.0, gt=0)


class Serving(Section):
    """What the model server asks of callers. `jwt` wants public keys in `keys` (empty = <home>/serving/jwt).

    `rate_per_s`, `admin_port`, `origins`: 0 or empty is off; origins are separated by blanks.
    """

    callers: Literal["open", "jwt"] = "open"
    admins: Literal["token", "jwt"] = "token"
    keys: str = ""
    issuer: str = "clearway"
    caller_audience: str = pydantic.Field("clearway-callers", min_length=1)
    admin_audience: str = pydantic.Field("clearway-admin", min_length=1)
    admin_port: int = pydantic.Field(0, ge=0, lt=65536)
    rate_per_s: float = pydantic.Field(0.0, ge=0, le=1e6)
    burst: int = pydantic.Field(100, ge=1)
    origins: str = ""
    slow_s: float = pydantic.Field(1.0, gt=0)

    @pydantic.model_validator(mode="after")
    def _audiences_differ(self) -> "Serving":
        if self.caller_audience == self.admin_audience:
            raise ValueError("caller_audience and admin_audience must differ, or a caller could make admin calls")
        return self


class ReleaseStore(Section):
    """SQLAlchemy URL of the release documents; empty = SQLite below home."""

    url: str = ""
    lease_ttl_s: float = pydantic.Field(120.0, gt=0)


class Approve(Section):
    """`person`: a required approval waits in the Airflow UI. `auto`: it answers itself and the record says so."""

    mode: Literal["person", "auto"] = "person"
    timeout_hours: float = pydantic.Field(72.0, gt=0)


class Environment(Section):
    """Everything that differs between a laptop and a cloud account, and nothing that belongs to a product."""

    name: str = "local"
    home: Path = pydantic.Field(default_factory=lambda: project_root() / ".clearway")
    products: Path = pydantic.Field(default_factory=lambda: project_root() / "include" / "products")
    storage: Storage = Storage()
    spark: Spark = Spark()
    jobs: Jobs = Jobs()
    training: Training = Training()
    devices: Devices = Devices()
    tracking: Tracking = Tracking()
    endpoint: Endpoint = Endpoint()
    serving: Serving = Serving()
    release_store: ReleaseStore = ReleaseStore()
    approve: Approve = Approve()

    @classmethod
    def load(cls, variables: dict[str, str] | None = None) -> "Environment":
        """Raises: ConfigError naming file or variable, value and what was allowed."""
        env = dict(os.environ) if variables is None else variables
        name = env.get("CLEARWAY_ENV", "local")
        conf = project_root() / "include" / "conf"
        if not (conf / f"{name}.yaml").exists():
            allowed = sorted(p.stem for p in conf.glob("*.yaml") if p.stem != "base")
            raise ConfigError(f"CLEARWAY_ENV={name!r} has no file conf/{name}.yaml; allowed: {allowed}")
        merged: dict[str, Any] = {"name": name}
        for part in ("base", name):
            _merge(merged, read_yaml(conf / f"{part}.yaml").value or {})
        for key, value in sorted(env.items()):
            if key.startswith(PREFIX):
                _merge(merged, _nested(key.removeprefix(PREFIX).lower().split("__"), value))
        try:
            return cls.model_validate(merged)
        except pydantic.ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(p) for p in first["loc"])
            variable = PREFIX + where.upper().replace(".", "__")
            raise ConfigError(
                f"setting {where!r} is {first.get('input')!r}: {first['msg']}; "
                f"correct include/conf/ or the variable {variable}"
            ) from error

    @property
    def store_root(self) -> str:
        return self.storage.root or (self.home / "store").as_uri()

    @property
    def release_store_url(self) -> str:
        return self.release_store.url or f"sqlite:///{self.home / 'release.db'}"

    @property
    def tracking_uri(self) -> str:
        return self.tracking.uri or f"sqlite:///{self.home / 'mlflow' / 'mlflow.db'}"

    @property
    def admin_token_file(self) -> Path:
        return (
            Path(self.endpoint.admin_token_file)
            if self.endpoint.admin_token_file
            else self.home / "serving" / "admin.token"
        )


def _nested(path: list[str], value: str) -> dict[str, Any]:
    head, *rest = path
    return {head: _nested(rest, value) if rest else value}


def _merge(into: dict[str, Any], other: dict[str, Any]) -> None:
    for key, value in other.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        else:
            into[key] = value
