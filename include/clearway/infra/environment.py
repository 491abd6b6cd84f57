"""Where this process runs: conf/base.yaml, then conf/<CLEARWAY_ENV>.yaml, then CLEARWAY__SECTION__KEY variables.

`Environment.load()` is the only reader of process environment variables in the core, besides fault points.
"""

import os
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

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

    @pydantic.model_validator(mode="after")
    def _root_is_of_its_kind(self) -> "Storage":
        if self.kind == "s3" and not self.root.startswith("s3://"):
            raise ValueError(f"root {self.root!r} is not in S3; give s3://bucket/prefix as CLEARWAY__STORAGE__ROOT")
        return self


class Spark(Section):
    """`engine`: `sail` needs no Java; `jvm` is stock Spark; `cluster` is the one that started this process (EMR).

    `shuffle_partitions` suits one machine's cores; a cluster has its own.
    """

    engine: Literal["sail", "jvm", "cluster"] = "sail"
    shuffle_partitions: int = pydantic.Field(4, ge=1)


class Jobs(Section):
    """How stage jobs run: `local` child processes, or `aws`; threads per job; poll interval in seconds.

    `deferrable`: tasks wait in the triggerer and hold no worker slot. Off by default: a LocalExecutor of Airflow 3.2
    and 3.3 can fail a deferred task falsely, and a task's log then comes in one piece at its end. `num_tune_workers`:
    processes that share a study, and the threads of the job among them; 0 is one per thread. `price_per_hour`: of this
    machine, in whatever money budgets are written in; 0 is free. Jobs on AWS are told the price of their own machine.
    `scratch`: folder for what a job's next attempt goes on with (checkpoints, a study's journal) where the store is
    elsewhere; empty = <home>/scratch.
    """

    kind: Literal["local", "aws"] = "local"
    num_threads: int = pydantic.Field(2, ge=1)
    deferrable: bool = False
    poll_s: float = pydantic.Field(0.1, gt=0)
    max_seconds: float = pydantic.Field(3600, gt=0)
    num_tune_workers: int = pydantic.Field(0, ge=0)
    price_per_hour: float = pydantic.Field(0.0, ge=0)
    scratch: str = ""


class Services(Section):
    """Where a stage's job runs, by what can run it; all stages that are not named here run on Batch.

    EMR starts Spark, with a role that may write no proofs and models. Machines of SageMaker have one that may write
    what belongs to a model. A tuning job searches studies.
    """

    preprocess: Literal["emr_serverless", "emr_ec2", "emr_eks", "batch"] = "emr_serverless"
    tune: Literal["sagemaker", "sagemaker_tuning", "batch"] = "batch"
    train: Literal["sagemaker", "batch"] = "sagemaker"
    evaluate: Literal["sagemaker", "batch"] = "batch"


class Aws(Section):
    """What the account has, for jobs.kind `aws`.

    `emr_code`: folder in S3 with `clearway_job.py` and `environment.tar.gz`; `emr_max_executors`: of one job. On EC2,
    `emr_machines`: types a cluster may take, of one size; `emr_service_role`, `emr_profile`: of EMR and of the
    machines; `emr_access_group`: security group by which EMR reaches them. On EKS, `emr_virtual_cluster`, and
    `emr_eks_role` for the pods. `emr_release`: of both. `subnets`, `security_groups`: where machines of SageMaker and
    EMR stand, separated by blanks; empty = in SageMaker's own network, which EMR has not. `training_count`: machines
    that the stage train has, all of one size. `training_keep_alive_s`: SageMaker keeps them so long for the next job
    that asks for the same (not on spot); 0 = not. `tuning_parallel`: trials of
    a tuning job at once; `tuning_job`: first part of its name, set for a study by whoever starts it.
    `batch_definitions`: stage → job definition, where it is not `batch_definition`; `batch_vcpus`, `batch_memory_gb`:
    of a container, whatever that says. `batch_nodes_queue`, `batch_nodes_definition`, `batch_nodes_machine`: of a
    training on several machines, a multi-node parallel job, and the type of EC2 that each node is. `batch_share`: on
    whose share of a fair-share queue jobs go; empty = the queue
    is first in, first out. `signing_secret`: name of the secret that holds the key models are signed with; empty = a
    key of this machine's own. `model_registry`: first part of the names of SageMaker's model package groups in which
    answers are mirrored; empty = they are not. `tags`: put on all that is made, besides our own.
    """

    services: Services = Services()
    emr_application: str = ""
    emr_role: str = ""
    emr_code: str = ""
    emr_max_executors: int = pydantic.Field(10, ge=1)
    emr_release: str = "emr-7.11.0"
    emr_machines: str = pydantic.Field("m5.xlarge m5a.xlarge m6i.xlarge m7i.xlarge", pattern=r"^[\w.-]+( [\w.-]+)*$")
    emr_service_role: str = ""
    emr_profile: str = ""
    emr_access_group: str = ""
    emr_virtual_cluster: str = ""
    emr_eks_role: str = ""
    log_group: str = "/clearway/jobs"
    training_image: str = ""
    training_role: str = ""
    training_instance: str = "ml.m7i.2xlarge"
    training_count: int = pydantic.Field(1, ge=1, le=64)
    training_volume_gb: int = pydantic.Field(50, ge=1)
    training_is_spot: bool = True
    training_keep_alive_s: int = pydantic.Field(0, ge=0, le=3600)
    tuning_parallel: int = pydantic.Field(4, ge=1, le=100)
    tuning_job: str = pydantic.Field("", pattern=r"^([a-zA-Z0-9](-*[a-zA-Z0-9]){0,26})?$")
    subnets: str = ""
    security_groups: str = ""
    batch_queue: str = ""
    batch_definition: str = ""
    batch_definitions: dict[str, str] = pydantic.Field(default_factory=dict)
    batch_nodes_queue: str = ""
    batch_nodes_definition: str = ""
    batch_nodes_machine: str = ""
    batch_share: str = ""
    batch_vcpus: float = pydantic.Field(4.0, gt=0)
    batch_memory_gb: float = pydantic.Field(16.0, gt=0)
    signing_secret: str = ""
    model_registry: str = pydantic.Field("", pattern=r"^([a-zA-Z0-9](-*[a-zA-Z0-9]){0,30})?$")
    tags: dict[str, str] = pydantic.Field(default_factory=dict)

    @pydantic.model_validator(mode="after")
    def _spot_machines_are_not_kept(self) -> "Aws":
        if self.training_keep_alive_s and self.training_is_spot:
            raise ValueError(
                f"training_keep_alive_s is {self.training_keep_alive_s}, and SageMaker keeps no spot machines; set "
                "training_is_spot to false, or training_keep_alive_s to 0"
            )
        return self


class Cost(Section):
    """`prices`: file with another price table; empty = infra/cost/prices.yaml.

    `batch_machine`: what containers of Batch run on, `fargate` or a type of EC2 that the table knows.
    """

    prices: str = ""
    batch_machine: str = pydantic.Field("fargate", min_length=1)


class Metrics(Section):
    """Where figures of stages go: into the log, or to CloudWatch under `namespace`; docs/aws.md."""

    kind: Literal["local", "cloudwatch"] = "local"
    namespace: str = pydantic.Field("Clearway", pattern=r"^[A-Za-z0-9._/#-]{1,255}$")


class Notify(Section):
    """`topic`: of SNS, told what a person must know; empty = the log alone."""

    topic: str = ""


class Events(Section):
    """`queue`: address of an SQS queue whose messages ask for releases; empty = none."""

    queue: str = ""


class Training(Section):
    """How the processes of a training find each other and when they give up; see docs/reference/training.md.

    `allows_other_world`: go on with another number of processes, no longer bitwise. `watches_spot`: ask EC2's metadata
    service for notices. `stop_file`: stop when this exists; empty = no file.

    `hosts`: who the machines are that a service started together, each with this stage: the file in which SageMaker
    says it, or `batch` for the variables in which Batch does; set by whoever orders them. They meet at `port` of the
    first, and wait `join_timeout_s` for each other.
    """

    min_nodes: int = pydantic.Field(1, ge=1)
    max_nodes: int = pydantic.Field(1, ge=1)
    rendezvous: str = "localhost:0"
    max_restarts: int = pydantic.Field(2, ge=0)
    collective_timeout_s: float = pydantic.Field(60.0, gt=0)
    allows_other_world: bool = False
    watches_spot: bool = False
    stop_file: str = ""
    hosts: str = ""
    port: int = pydantic.Field(29400, ge=1024, lt=65536)
    join_timeout_s: float = pydantic.Field(900.0, gt=0)

    @pydantic.model_validator(mode="after")
    def _machines_are_said_once(self) -> "Training":
        if self.hosts and self.max_nodes > 1:
            raise ValueError(
                f"hosts {self.hosts!r} says who the machines are; leave max_nodes (now {self.max_nodes}) out"
            )
        return self


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
    """The model servers: `local` is one process per product, `sagemaker` the endpoints that section names.

    `url`: of a local one, `{product}` in it standing for the product's name. `urls`: product → its own, in place of
    `url`. `admin_token_file`: of the local ones; empty = <home>/serving/admin.token.
    """

    kind: Literal["local", "sagemaker"] = "local"
    url: str = "http://127.0.0.1:8890"
    urls: dict[str, str] = pydantic.Field(default_factory=dict)
    admin_token_file: str = ""
    timeout_s: float = pydantic.Field(30.0, gt=0)

    def url_of(self, product: str) -> str:
        """Where this product's server is."""
        return self.urls.get(product, self.url.replace("{product}", product))


class SageMaker(Section):
    """The endpoints of endpoint.kind `sagemaker`; docs/aws.md.

    `endpoint`: name, in which `{product}` stands for the product's, with hyphens for what SageMaker refuses in names.
    `capture_pct`: share of answers kept in the store; without them nothing is known of scores. `metrics_delay_s`:
    minutes of CloudWatch younger than this are not counted yet. `shifting`: how SageMaker itself moves an endpoint to
    another configuration, watched by `alarms` (names, separated by blanks); empty = all at once, unwatched.
    `max_count`: instances of a variant at most, as many as keep each at `calls_per_minute`; 0 = always instance_count.
    `shift_pct`: of the instances, first or each time; `bake_s`: between two shifts and at the end. `requests_at_once`:
    to a container that scores a batch offline. `model_uri`, `model_digest`, `is_offline` (answers are not logged),
    `is_shadow` (it gets copies of requests), `shadow_columns` (a JSON list: whose values name slices of rows): of a
    container, set for it by whoever starts it.
    """

    endpoint: str = "clearway-{product}"
    image: str = ""
    role: str = ""
    instance: str = "ml.m7i.large"
    instance_count: int = pydantic.Field(1, ge=1)
    max_count: int = pydantic.Field(0, ge=0)
    calls_per_minute: float = pydantic.Field(1000.0, gt=0)
    capture_pct: int = pydantic.Field(100, ge=0, le=100)
    update_timeout_s: float = pydantic.Field(1800.0, gt=0)
    poll_s: float = pydantic.Field(10.0, gt=0)
    metrics_delay_s: float = pydantic.Field(180.0, ge=0)
    shifting: Literal["", "all_at_once", "canary", "linear"] = ""
    shift_pct: int = pydantic.Field(10, ge=1, le=100)
    bake_s: int = pydantic.Field(300, ge=0, le=3600)
    alarms: str = ""
    requests_at_once: int = pydantic.Field(4, ge=1, le=50)
    is_offline: bool = False
    is_shadow: bool = False
    shadow_columns: str = ""
    model_uri: str = ""
    model_digest: str = ""

    @pydantic.model_validator(mode="after")
    def _counts_are_in_order(self) -> "SageMaker":
        if 0 < self.max_count < self.instance_count:
            raise ValueError(f"max_count {self.max_count} is below instance_count {self.instance_count}; correct one")
        return self

    def of(self, product: str) -> "SageMaker":
        """With the name of this product's endpoint."""
        return self.model_copy(update={"endpoint": self.endpoint.replace("{product}", product.replace("_", "-"))})


class Containers(Section):
    """What `clearway render` writes for ECS and Kubernetes; docs/aws.md.

    `image`: the Dockerfile's target `serving`, as repository@sha256:…. `min_count`, `max_count`: containers of each
    version, kept at `target_cpu_pct`; `cpu` in vCPUs. `storage_class`: of a volume per pod; empty = the node's own
    disk. `gateway`: namespace/name. `priority`: of the listener's rule, those of versions follow it.
    """

    image: str = ""
    role: str = ""
    min_count: int = pydantic.Field(2, ge=1)
    max_count: int = pydantic.Field(10, ge=1)
    target_cpu_pct: int = pydantic.Field(60, ge=10, le=90)
    cpu: float = pydantic.Field(1.0, ge=0.25, le=16)
    memory_mib: int = pydantic.Field(2048, ge=512)
    disk_gib: int = pydantic.Field(10, ge=1)
    host: str = ""
    namespace: str = pydantic.Field("clearway", pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")
    gateway: str = pydantic.Field("", pattern=r"^([a-z0-9-]{1,63}/[a-z0-9.-]{1,253})?$")
    storage_class: str = ""
    cluster: str = ""
    execution_role: str = ""
    vpc: str = ""
    listener: str = ""
    priority: int = pydantic.Field(100, ge=1, le=1000)

    @pydantic.model_validator(mode="after")
    def _counts_are_in_order(self) -> "Containers":
        if self.min_count > self.max_count:
            raise ValueError(f"min_count {self.min_count} is above max_count {self.max_count}; correct one of them")
        return self


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
    """Of the release documents: a SQLAlchemy URL or `dynamodb://<table>`; empty = SQLite below home."""

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
    aws: Aws = Aws()
    cost: Cost = Cost()
    metrics: Metrics = Metrics()
    notify: Notify = Notify()
    events: Events = Events()
    training: Training = Training()
    devices: Devices = Devices()
    tracking: Tracking = Tracking()
    endpoint: Endpoint = Endpoint()
    sagemaker: SageMaker = SageMaker()
    containers: Containers = Containers()
    serving: Serving = Serving()
    release_store: ReleaseStore = ReleaseStore()
    approve: Approve = Approve()

    @pydantic.field_validator("home", "products")
    @classmethod
    def _is_absolute(cls, value: Path) -> Path:
        if not value.is_absolute():  # jobs run in other folders, and would each have their own
            raise ValueError("not a full path; give one that begins with /")
        if "?" in str(value):  # SQLite's addresses would end there, and two homes share their databases
            raise ValueError("holds '?', which an address of a database cannot; choose another name")
        return value

    @classmethod
    def load(cls, variables: dict[str, str] | None = None) -> "Environment":
        """Raises: ConfigError naming file or variable, value and what was allowed."""
        env = dict(os.environ) if variables is None else variables
        name = env.get("CLEARWAY_ENV", "local")
        merged = {"name": name, **conf_of(name)}
        for key, value in sorted(env.items()):
            _refuse_one_underscore(key)
            if key.startswith(PREFIX):
                _merge(merged, _nested(key.removeprefix(PREFIX).lower().split("__"), value))
        try:
            return cls.model_validate(merged)
        except pydantic.ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(p) for p in first["loc"])
            variable = PREFIX + where.upper().replace(".", "__")
            known = f"; allowed: {_names_beside(first['loc'])}" if first["type"] == "extra_forbidden" else ""
            raise ConfigError(
                f"setting {where!r} is {first.get('input')!r}: {first['msg']}{known}; "
                f"correct include/conf/ or the variable {variable}"
            ) from error

    @property
    def store_root(self) -> str:
        return self.storage.root or (self.home / "store").as_uri()

    @property
    def scratch(self) -> Path:
        return Path(self.jobs.scratch) if self.jobs.scratch else self.home / "scratch"

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


def _refuse_one_underscore(key: str) -> None:
    """Raises: ConfigError for `CLEARWAY_HOME` and the like, which would change nothing and say nothing."""
    rest = key.removeprefix("CLEARWAY_")
    if rest == key or key.startswith(PREFIX):
        return
    known = [name.upper() for name in Environment.model_fields]
    if any(rest == name or rest.startswith(f"{name}_") for name in known):
        raise ConfigError(f"variable {key} sets nothing; settings are {PREFIX}SECTION__KEY, with two underscores")


def _names_beside(loc: tuple[int | str, ...]) -> list[str]:
    """What could have been meant where a setting is unknown."""
    part: Any = Environment
    for piece in loc[:-1]:
        fields = getattr(part, "model_fields", {})
        part = fields[piece].annotation if piece in fields else get_args(part)[-1]  # the values of a mapping
    return sorted(part.model_fields)


def _nested(path: list[str], value: str) -> dict[str, Any]:
    head, *rest = path
    return {head: _nested(rest, value) if rest else value}


def conf_of(name: str) -> dict[str, Any]:
    """What include/conf says of an environment. Raises: ConfigError if it has no file."""
    conf = project_root() / "include" / "conf"
    if not (conf / f"{name}.yaml").exists():
        allowed = sorted(p.stem for p in conf.glob("*.yaml") if p.stem != "base")
        raise ConfigError(f"CLEARWAY_ENV={name!r} has no file conf/{name}.yaml; allowed: {allowed}")
    merged: dict[str, Any] = {}
    for part in ("base", name):
        _merge(merged, read_yaml(conf / f"{part}.yaml").value or {})
    return merged


def _merge(into: dict[str, Any], other: dict[str, Any]) -> None:
    for key, value in other.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        else:
            into[key] = value
