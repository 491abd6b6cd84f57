"""Stage jobs on AWS. What belongs to a job lies in the store, so whoever retries finds it without asking AWS.

    <store>/jobs/<key>/                one job (the idempotency key)
        checkpoints/                   of a training, shared by its attempts
        0001/                          one attempt; a new one only after the last one ended without a result
            inputs.json                what the stage was asked; created once, by whoever starts the attempt
            started.json               service and id, once the service has taken the order
            measured.json, error.json, outputs.json   what the stage left

An attempt has a name that follows from its key, and services take a name once, so that a submitter who dies between
the order and `started.json` costs nothing: the next one gives the same order again and is handed the same job.
"""

import json
from collections.abc import Callable, Mapping
from typing import Any

from clearway.contracts.errors import JobFailed
from clearway.contracts.manifest import sha256_of
from clearway.infra.aws.client import client, excused, explained
from clearway.infra.aws.emr import EmrOnEks, EmrServerless
from clearway.infra.aws.emr_cluster import EmrOnEc2
from clearway.infra.aws.services import Batch, Order, SageMakerTraining, Seen, Service
from clearway.infra.aws.tags import tags_of
from clearway.infra.aws.tuning import SageMakerTuning
from clearway.infra.cost.prices import rate_of, read_prices, service_of
from clearway.infra.environment import Aws, Environment
from clearway.infra.faults import fault
from clearway.infra.jobs import JobSpec, JobState
from clearway.infra.jobs.outcome import (
    ERROR,
    INPUTS,
    MEASURED,
    OUTPUTS,
    attempt_name,
    check_key,
    id_of,
    key_and_attempt,
    recorded_error,
    recorded_measure,
)
from clearway.infra.jobs.processes import cloud_variables
from clearway.infra.jobs.usage import Usage
from clearway.infra.storage import join, open_storage, read_if_there

STARTED = "started.json"
CLEARWAY = ("python", "-m", "clearway")
JOBS = "jobs"
SERVICES: dict[str, Callable[[Aws], Service]] = {
    "sagemaker": SageMakerTraining,
    "sagemaker_tuning": SageMakerTuning,
    "emr_serverless": EmrServerless,
    "emr_ec2": EmrOnEc2,
    "emr_eks": EmrOnEks,
    "batch": Batch,
}
_MAX_EVENTS = 1_000
_LOG_LINES = 40  # shown of a job that failed


class AwsJobs:
    """A JobRunner over the services that `env.aws.services` names by stage."""

    def __init__(self, env: Environment, *, command: tuple[str, ...] = CLEARWAY) -> None:
        self._env = env
        self._command = command
        self._storage = open_storage(env.store_root)
        self._root = join(env.store_root, JOBS)

    def submit(self, spec: JobSpec) -> str:
        """Start the job, or return the id of the attempt that runs or succeeded under the same key."""
        check_key(spec.key)
        last = self._last_attempt(spec.key)
        if last:
            job = id_of(spec.key, attempt_name(last))
            if self._started(job) is None:
                return self._start(spec, last)  # its submitter died, or is just doing the same
            if self.state(job) is not JobState.FAILED:
                return job
        self._storage.create(join(self._root, spec.key, attempt_name(last + 1), INPUTS), spec.inputs_json.encode())
        fault("aws_jobs.before_order")
        return self._start(spec, last + 1)

    def state(self, job_id: str) -> JobState:
        """Current state; an id nobody started is FAILED."""
        # Asked before the outcome is read: a job that ends in between is seen as running once more, never as lost.
        is_running = self._look(job_id).is_running
        if self._storage.exists(join(self._folder(job_id), OUTPUTS)):
            return JobState.SUCCEEDED
        return JobState.RUNNING if is_running else JobState.FAILED

    def result(self, job_id: str) -> str:
        """JSON text of the stage's Outputs.

        Raises: the ClearwayError the stage itself raised, if it could still write it down; JobFailed otherwise.
        """
        folder = self._folder(job_id)
        if (outputs := read_if_there(self._storage, join(folder, OUTPUTS))) is not None:
            return outputs.decode()
        seen = self._look(job_id)
        if seen.is_running:
            raise JobFailed(f"job {job_id} still runs; wait for it before asking for its result")
        if (error := read_if_there(self._storage, join(folder, ERROR))) is not None:
            raise recorded_error(error)
        lines = self.read_log(job_id, 0)[0].splitlines()[-_LOG_LINES:]
        raise JobFailed(
            f"job {job_id} ended without a result ({seen.reason}); run the task again. End of its log:\n"
            + "\n".join(lines)
        )

    def read_log(self, job_id: str, offset: int) -> tuple[str, int]:
        """Log lines from time `offset` (ms since 1970) on, and where to go on: CloudWatch knows no positions."""
        started = self._started(job_id)
        place = self._service(started["service"]).log_of(started["id"]) if started else None
        if place is None:
            return "", offset
        events = _events(*place, since_ms=offset)
        text = "".join(f"{event['message'].rstrip()}\n" for event in events)
        return text, int(events[-1]["timestamp"]) + 1 if events else offset

    def attempts(self, key: str) -> tuple[str, ...]:
        """Ids of all attempts under a key, oldest first."""
        return tuple(id_of(key, attempt_name(number)) for number in range(1, self._last_attempt(key) + 1))

    def usage(self, job_id: str) -> Usage | None:
        """What its service billed; None while it runs, or while the service has not said yet."""
        if (started := self._started(job_id)) is None:
            return None
        seen = self._service(started["service"]).look(started["id"])
        if seen.is_running or seen.used is None:
            return None
        folder = self._folder(job_id)
        return Usage(
            job_id=job_id,
            service=started["service"],
            has_succeeded=self._storage.exists(join(folder, OUTPUTS)),
            begin_s=seen.begin_s,
            end_s=seen.end_s,
            used=seen.used,
            note="" if seen.begin_s else f"nothing was billed: {seen.reason}",
            measured=recorded_measure(read_if_there(self._storage, join(folder, MEASURED))),
        )

    def cancel(self, job_id: str, *, grace_s: float = 5.0) -> None:  # noqa: ARG002 - the services have their own
        """Stop the job; a finished one is left alone."""
        started = self._started(job_id)
        if started is not None:
            self._service(started["service"]).stop(started["id"])

    def _start(self, spec: JobSpec, attempt: int) -> str:
        folder = join(self._root, spec.key, attempt_name(attempt))
        files = ("--inputs-file", join(folder, INPUTS), "--outputs-file", join(folder, OUTPUTS))
        name = service_of(self._env.aws, spec.stage)
        asked = json.loads(spec.inputs_json)
        order = Order(
            name=f"clearway-{spec.stage}-{sha256_of(folder.encode())[:20]}",
            command=(*self._command, spec.stage, *files),
            variables=cloud_variables(self._of_the_job(spec.stage)),
            folder=folder,
            stage=spec.stage,
            max_seconds=spec.max_seconds or int(self._env.jobs.max_seconds),
            tags=tags_of(
                self._env,
                team=spec.team,
                product=asked.get("product", ""),
                release=asked.get("release_id", ""),
                stage=spec.stage,
                job=spec.key,
            ),
        )
        job = self._service(name).start(order)
        fault("aws_jobs.before_note")
        self._storage.write(join(folder, STARTED), json.dumps({"service": name, "id": job}).encode())
        return id_of(spec.key, attempt_name(attempt))

    def _of_the_job(self, stage: str) -> Environment:
        """What the job is told of its machine: its price, by which a study keeps its own budget, and an engine of
        Spark that is there."""
        env, price = self._env, rate_of(self._env, read_prices(self._env), stage)
        if env.spark.engine == "cluster" and not service_of(env.aws, stage).startswith("emr_"):
            env = env.model_copy(update={"spark": env.spark.model_copy(update={"engine": "sail"})})
        if price is None:
            return env
        return env.model_copy(update={"jobs": env.jobs.model_copy(update={"price_per_hour": price})})

    def _look(self, job_id: str) -> Seen:
        started = self._started(job_id)
        if started is None:
            return Seen(is_running=False, reason="it was never started")
        return self._service(started["service"]).look(started["id"])

    def _started(self, job_id: str) -> Mapping[str, str] | None:
        data = read_if_there(self._storage, join(self._folder(job_id), STARTED))
        return None if data is None else json.loads(data)

    def _last_attempt(self, key: str) -> int:
        prefix = join(self._root, key)
        found = (uri.removeprefix(prefix).strip("/").partition("/")[0] for uri in self._storage.list(prefix))
        return max((int(name) for name in found if name.isdigit()), default=0)

    def _folder(self, job_id: str) -> str:
        return join(self._root, *key_and_attempt(job_id))

    def _service(self, name: str) -> Service:
        return SERVICES[name](self._env.aws)


def _events(group: str, prefix: str, *, since_ms: int) -> list[dict[str, Any]]:
    """Newer lines of all streams of a job, oldest first; none while CloudWatch has no such group."""
    logs, events = client("logs"), list[dict[str, Any]]()
    with explained(f"log group {group}"), excused("ResourceNotFoundException"):
        streams = logs.describe_log_streams(logGroupName=group, logStreamNamePrefix=prefix)["logStreams"]
        names = [stream["logStreamName"] for stream in streams]
        pages = logs.get_paginator("filter_log_events").paginate(
            logGroupName=group,
            logStreamNames=names,
            startTime=since_ms,
            PaginationConfig={"MaxItems": _MAX_EVENTS},
        )
        events = [event for page in pages for event in page["events"]] if names else []
    return sorted(events, key=lambda event: int(event["timestamp"]))
