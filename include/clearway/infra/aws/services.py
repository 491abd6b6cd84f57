"""The services of AWS that run a stage as a job: how each starts, watches and stops one.

All start `python -m clearway <stage> --inputs-file s3://… --outputs-file s3://…`. What the stage made lies in the
store, so a service is only asked whether its machine still runs. SageMaker and Batch are here, EMR is in `emr.py` and
`emr_cluster.py`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from clearway.contracts.errors import ConfigError, Unavailable
from clearway.infra.aws.client import MAX_ATTEMPTS, REFUSED, client, excused, explained, whole
from clearway.infra.cost.prices import machines_of
from clearway.infra.environment import Aws, Section
from clearway.infra.jobs.usage import BATCH_GB, BATCH_VCPU, S_PER_HOUR, Used

# Where a job may write on its machine.
HOME = "/tmp/clearway"  # noqa: S108 - inside a container that serves one job
# What SageMaker copies to the store while a training runs, and brings back to the next attempt: no place for keys.
SAGEMAKER_SCRATCH = "/opt/ml/checkpoints"
SAGEMAKER_HOSTS = "/opt/ml/input/config/resourceconfig.json"
BATCH_HOSTS = "batch"  # in variables of its own
_MIN_BILLED_S = 60.0  # of a container
UNKNOWN_TO_SAGEMAKER = (REFUSED, "ResourceNotFound")  # of a job, by what is asked about it
_MS_PER_S, _MIB_PER_GB = 1000, 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """One job to start.

    Args:
        name: unique in the account and the same whenever this attempt is started again.
        command: what the machine starts.
        variables: of the process; `home` is added by the service.
        folder: address in the store that belongs to this attempt alone.
        stage: what the command does.
        max_seconds: the service ends the job after this long.
    """

    name: str
    command: tuple[str, ...]
    variables: Mapping[str, str]
    folder: str
    stage: str
    max_seconds: int
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What a service says of a job. `reason`: in its own words, when it failed.

    Args:
        begin_s, end_s: of its machine, Unix seconds; 0 if it never had one.
        used: what is billed for it; None if the service has not said yet.
    """

    is_running: bool
    has_succeeded: bool = False
    reason: str = ""
    begin_s: float = 0.0
    end_s: float = 0.0
    used: tuple[Used, ...] | None = ()


class Service(Protocol):
    """Where jobs run; every implementation passes one suite."""

    def start(self, order: Order) -> str:
        """Start the job, or find the one that this order has started before; its id."""
        ...

    def look(self, job_id: str) -> Seen:
        """What became of it. An id that the service does not know has failed."""
        ...

    def stop(self, job_id: str) -> None:
        """End it; one that has ended is left alone."""
        ...

    def log_of(self, job_id: str) -> tuple[str, str] | None:
        """CloudWatch group and prefix of its streams; None until it has one."""
        ...


class SageMakerTraining:
    """Training jobs, on spot machines if the settings say so. A name is taken for ever, so it names the attempt."""

    GROUP = "/aws/sagemaker/TrainingJobs"

    def __init__(self, aws: Aws) -> None:
        self._aws = aws

    def start(self, order: Order) -> str:
        aws = self._aws
        check_settings(aws, "training_image", "training_role")
        count = machines_of(aws, order.stage)
        own = {"CLEARWAY__HOME": HOME, "CLEARWAY__JOBS__SCRATCH": SAGEMAKER_SCRATCH}
        if count > 1:  # SageMaker starts the command on each
            own["CLEARWAY__TRAINING__HOSTS"] = SAGEMAKER_HOSTS
        asked: dict[str, Any] = {
            "TrainingJobName": order.name,
            "RoleArn": aws.training_role,
            "AlgorithmSpecification": {
                "TrainingImage": aws.training_image,
                "TrainingInputMode": "File",
                "ContainerEntrypoint": list(order.command[:1]),
                "ContainerArguments": list(order.command[1:]),
            },
            "OutputDataConfig": {"S3OutputPath": f"{order.folder}/output"},
            "CheckpointConfig": {"S3Uri": _checkpoints_of(order), "LocalPath": SAGEMAKER_SCRATCH},
            "ResourceConfig": {
                "InstanceType": aws.training_instance,
                "InstanceCount": count,
                "VolumeSizeInGB": aws.training_volume_gb,
                **({"KeepAlivePeriodInSeconds": aws.training_keep_alive_s} if aws.training_keep_alive_s else {}),
            },
            "StoppingCondition": {"MaxRuntimeInSeconds": order.max_seconds},
            "EnableManagedSpotTraining": aws.training_is_spot,
            "Environment": {**order.variables, **own},
            "Tags": key_values(order.tags, "Key", "Value"),
            **network_of(aws),
        }
        if aws.training_is_spot:  # how long it may wait for a machine and run, together
            asked["StoppingCondition"]["MaxWaitTimeInSeconds"] = 2 * order.max_seconds
        with explained(f"training job {order.name}"), excused("ResourceInUse"):
            client("sagemaker").create_training_job(**asked)
        return order.name

    def look(self, job_id: str) -> Seen:
        found = self._described(job_id)
        if found is None:
            return Seen(is_running=False, reason="SageMaker knows no such training job")
        status = found["TrainingJobStatus"]
        return Seen(
            is_running=status in {"InProgress", "Stopping"},
            has_succeeded=status == "Completed",
            reason=f"{status}: {found.get('FailureReason', 'no reason given')}" if status != "Completed" else "",
            begin_s=instant_s(found.get("TrainingStartTime")),
            end_s=instant_s(found.get("TrainingEndTime")),
            used=trained(found),
        )

    def stop(self, job_id: str) -> None:
        if self.look(job_id).is_running:
            with explained(f"training job {job_id}"), excused(REFUSED):  # it is being stopped already
                client("sagemaker").stop_training_job(TrainingJobName=job_id)

    def log_of(self, job_id: str) -> tuple[str, str] | None:
        return self.GROUP, f"{job_id}/"

    def _described(self, job_id: str) -> dict[str, Any] | None:
        with explained(f"training job {job_id}"), excused(*UNKNOWN_TO_SAGEMAKER):
            found: dict[str, Any] = client("sagemaker").describe_training_job(TrainingJobName=job_id)
            return found
        return None


class Batch:
    """Containers of AWS Batch. It has no token, so jobs of the same name are looked for before one is made.

    A training on several machines is a multi-node parallel job: a container with a machine of EC2 for itself on each,
    which fails and succeeds as its first one does.
    """

    GROUP = "/aws/batch/job"

    def __init__(self, aws: Aws) -> None:
        self._aws = aws

    def start(self, order: Order) -> str:
        aws = self._aws
        if machines_of(aws, order.stage) > 1:
            check_settings(aws, "batch_nodes_queue", "batch_nodes_definition", "batch_nodes_machine")
            queue = aws.batch_nodes_queue
        else:
            check_settings(aws, "batch_queue", "batch_definition")
            queue = aws.batch_queue
        return started_once(
            f"queue {queue}", find=lambda: self._named(order.name, queue), submit=lambda: self._submit(order, queue)
        )

    def _named(self, name: str, queue: str) -> str:
        filters = [{"name": "JOB_NAME", "values": [name]}]
        found: list[dict[str, Any]] = whole(
            client("batch").list_jobs, "jobSummaryList", jobQueue=queue, filters=filters
        )
        return str(min(found, key=lambda job: job.get("createdAt", 0))["jobId"]) if found else ""

    def _submit(self, order: Order, queue: str) -> None:
        """Sent once: after an answer that was lost, the next thing to do is to look."""
        aws, count = self._aws, machines_of(self._aws, order.stage)
        variables = {**order.variables, "CLEARWAY__HOME": HOME}
        if count > 1:
            variables["CLEARWAY__TRAINING__HOSTS"] = BATCH_HOSTS
        container: dict[str, Any] = {
            "command": list(order.command),
            "environment": key_values(variables, "name", "value"),
            "resourceRequirements": [
                {"type": "VCPU", "value": f"{aws.batch_vcpus:g}"},
                {"type": "MEMORY", "value": f"{aws.batch_memory_gb * _MIB_PER_GB:.0f}"},
            ],
        }
        if count > 1:
            node = {"targetNodes": "0:", "containerOverrides": container | {"instanceType": aws.batch_nodes_machine}}
            definition = aws.batch_nodes_definition
            what: dict[str, Any] = {"nodeOverrides": {"numNodes": count, "nodePropertyOverrides": [node]}}
        else:
            definition = aws.batch_definitions.get(order.stage, aws.batch_definition)
            what = {"containerOverrides": container}
        client("batch", max_attempts=1).submit_job(
            jobName=order.name,
            jobQueue=queue,
            jobDefinition=definition,
            **({"shareIdentifier": aws.batch_share} if aws.batch_share else {}),
            **what,
            timeout={"attemptDurationSeconds": order.max_seconds},
            tags=dict(order.tags),
        )

    def look(self, job_id: str) -> Seen:
        job = self._described(job_id)
        if job is None:
            return Seen(is_running=False, reason="Batch knows no such job")
        status = job["status"]
        reason = job.get("statusReason") or job.get("container", {}).get("reason") or "no reason given"
        return Seen(
            is_running=status not in {"SUCCEEDED", "FAILED"},
            has_succeeded=status == "SUCCEEDED",
            reason="" if status == "SUCCEEDED" else f"{status}: {reason}",
            begin_s=job.get("startedAt", 0) / _MS_PER_S,
            end_s=job.get("stoppedAt", 0) / _MS_PER_S,
            used=_of_nodes(job, self._aws) if "nodeProperties" in job else _contained(job),
        )

    def stop(self, job_id: str) -> None:
        if self.look(job_id).is_running:
            with explained(f"job {job_id}"):
                client("batch").terminate_job(jobId=job_id, reason="stopped by Clearway")

    def log_of(self, job_id: str) -> tuple[str, str] | None:
        job = self._described(job_id) or {}
        if "nodeProperties" in job:  # lines of the first node; the others have streams of their own
            job = self._described(f"{job_id}#{job['nodeProperties']['mainNode']}") or {}
        stream = job.get("container", {}).get("logStreamName")
        return (self.GROUP, str(stream)) if stream else None

    def _described(self, job_id: str) -> dict[str, Any] | None:
        with explained(f"job {job_id}"):
            jobs: Sequence[dict[str, Any]] = whole(client("batch").describe_jobs, "jobs", jobs=[job_id])
        return jobs[0] if jobs else None


def started_once(where: str, *, find: Callable[[], str], submit: Callable[[], None]) -> str:
    """Id of a job whose service has no token: `find` looks for it ("" if there is none), `submit` orders it, once.

    Raises: Unavailable; ConfigError.
    """
    for attempt in range(1, MAX_ATTEMPTS + 1):
        with explained(where):
            found = find()
        if found:
            return found
        try:
            with explained(where):
                submit()
        except Unavailable:
            if attempt == MAX_ATTEMPTS:
                raise
    raise Unavailable(f"{where}: the order was taken and is not listed; try again")


def network_of(aws: Aws) -> dict[str, Any]:
    """Where machines of SageMaker stand; empty for its own network."""
    if not aws.subnets:
        return {}
    return {"VpcConfig": {"Subnets": aws.subnets.split(), "SecurityGroupIds": aws.security_groups.split()}}


def check_settings(settings: Section, *names: str, section: str = "aws") -> None:
    """Raises: ConfigError naming those that are empty."""
    absent = [name for name in names if not getattr(settings, name)]
    if absent:
        raise ConfigError(
            f"settings {', '.join(f'{section}.{name}' for name in absent)} are empty; fill them in conf/aws.yaml with "
            "what the account has"
        )


def _checkpoints_of(order: Order) -> str:
    """Shared by all attempts of a key: the next one goes on where the last one stopped."""
    return f"{order.folder.rsplit('/', 1)[0]}/checkpoints"


def key_values(values: Mapping[str, str], key: str, value: str) -> list[dict[str, str]]:
    """A mapping as the list of pairs that some services take."""
    return [{key: name, value: text} for name, text in values.items()]


def trained(found: Mapping[str, Any]) -> tuple[Used, ...] | None:
    """Billable seconds at the price on demand are what spot costs: SageMaker counts the discount in seconds.

    Of machines that are kept for the next job, it says what that cost once nobody can take them any more.
    """
    if "TrainingStartTime" not in found:
        return ()
    pool = found.get("WarmPoolStatus", {})
    if "BillableTimeInSeconds" not in found or pool.get("Status") in {"InUse", "Available"}:
        return None
    machines, count = found["ResourceConfig"]["InstanceType"], found["ResourceConfig"]["InstanceCount"]
    kept_s = pool.get("ResourceRetainedBillableTimeInSeconds", 0)
    billed_s = found["BillableTimeInSeconds"]
    full_s = max(billed_s, found.get("TrainingTimeInSeconds", 0))
    hours, full_hours = ((seconds + kept_s) * count / S_PER_HOUR for seconds in (billed_s, full_s))
    return (Used(what=machines, hours=hours, full_hours=full_hours),)


def _contained(job: Mapping[str, Any]) -> tuple[Used, ...]:
    """By the minute at least, of the size that the container had."""
    if not job.get("startedAt"):
        return ()
    container = job.get("container", {})
    sizes = {one["type"]: float(one["value"]) for one in container.get("resourceRequirements", ())}
    vcpus = sizes.get("VCPU", float(container.get("vcpus", 0)))
    memory_gb = sizes.get("MEMORY", float(container.get("memory", 0))) / _MIB_PER_GB
    seconds = max(_MIN_BILLED_S, (job.get("stoppedAt", 0) - job["startedAt"]) / _MS_PER_S)
    hours = {BATCH_VCPU: vcpus * seconds / S_PER_HOUR, BATCH_GB: memory_gb * seconds / S_PER_HOUR}
    return tuple(Used(what=what, hours=value, full_hours=value) for what, value in hours.items())


def _of_nodes(job: Mapping[str, Any], aws: Aws) -> tuple[Used, ...]:
    """Each node has a machine for itself, from the first one's begin to its end; EC2 bills a minute at least."""
    if not job.get("startedAt"):
        return ()
    nodes = job["nodeProperties"]
    kinds = [one.get("container", {}).get("instanceType") for one in nodes["nodeRangeProperties"]]
    machine = next((kind for kind in kinds if kind), aws.batch_nodes_machine)
    seconds = max(_MIN_BILLED_S, (job.get("stoppedAt", 0) - job["startedAt"]) / _MS_PER_S)
    hours = nodes["numNodes"] * seconds / S_PER_HOUR
    return (Used(what=machine, hours=hours, full_hours=hours),)


def instant_s(at: Any) -> float:
    """Unix seconds of a time that a service names; 0 for none."""
    return float(at.timestamp()) if at is not None else 0.0
