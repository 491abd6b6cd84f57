"""Stage jobs: submit under an idempotency key, watch, re-attach, cancel."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from clearway.infra.environment import Environment
from clearway.infra.jobs.usage import Usage


class JobState(StrEnum):
    """What a runner knows of a job."""

    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSpec:
    """One run of one stage: `python -m clearway <stage>` over `inputs_json`.

    Args:
        stage: a stage name.
        inputs_json: JSON text of the stage's Inputs.
        key: idempotency key, hash(run, stage, input digest, attempt epoch); the same key is the same job.
        max_seconds: the job is stopped after this; 0: after `jobs.max_seconds`.
        team: who pays.
    """

    stage: str
    inputs_json: str
    key: str
    max_seconds: int = 0
    team: str = ""


class JobRunner(Protocol):
    """Where stage jobs run."""

    def submit(self, spec: JobSpec) -> str:
        """Start the job and return its id; a key seen before returns the running or succeeded job's id instead."""
        ...

    def state(self, job_id: str) -> JobState:
        """Current state. An unknown id is FAILED."""
        ...

    def result(self, job_id: str) -> str:
        """JSON text of the stage's Outputs. Raises: JobFailed with the end of its log."""
        ...

    def read_log(self, job_id: str, offset: int) -> tuple[str, int]:
        """Log text from byte `offset`, and the next offset."""
        ...

    def attempts(self, key: str) -> tuple[str, ...]:
        """Ids of all attempts under a key, oldest first."""
        ...

    def usage(self, job_id: str) -> Usage | None:
        """What the attempt used; None while it runs, or while its service has not said yet."""
        ...

    def cancel(self, job_id: str, *, grace_s: float = 5.0) -> None:
        """Stop the job and all its children, `grace_s` after asking them to; a finished job is left alone."""
        ...


def open_jobs(env: Environment) -> JobRunner:
    """The runner that `env.jobs.kind` names."""
    # ruff: noqa: PLC0415 - runners import this module
    if env.jobs.kind == "aws":
        from clearway.infra.aws.jobs import AwsJobs

        return AwsJobs(env)
    from clearway.infra.jobs.local import LocalJobs

    return LocalJobs(env)
