"""Tuning jobs of SageMaker, for a study that leaves its search to one: ordered, found again, read, ended.

A study's jobs are called `<stem>-1`, `<stem>-2`, … A name is taken for ever, so whoever comes after a crash gives the
same order again and is handed the same job; the next number is taken only after the last job failed or was stopped.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from clearway.contracts.errors import ConfigError, JobFailed
from clearway.contracts.manifest import sha256_of
from clearway.infra.aws.client import client, complete, excused, explained
from clearway.infra.aws.services import (
    UNKNOWN_TO_SAGEMAKER,
    Batch,
    Order,
    Seen,
    check_settings,
    instant_s,
    key_values,
    network_of,
    trained,
)
from clearway.infra.environment import PREFIX, Aws
from clearway.infra.jobs.usage import Used

METRIC = "loss"
# What a trial prints, and what SageMaker finds in its lines.
LINE, PATTERN = f"clearway {METRIC}={{value:.17g}};", rf"clearway {METRIC}=([-+0-9.eE]+);"
# Limits of the service: ResourceLimits and HyperParameterTrainingJobEnvironmentMap in its model.
MIN_SECONDS, MAX_VARIABLES = 120, 48
_NO_GOOD = {"Failed", "Stopped"}
_ENDED = {"Completed", *_NO_GOOD}


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """What a tuning job is asked.

    Args:
        strategy, ranges: as SageMaker calls them; `ranges` has its three lists.
        max_trials: 0 for a grid, whose points count themselves.
        max_seconds: of the whole job, waiting for machines included.
        study: folder with what a trial is given, in S3.
    """

    strategy: str
    ranges: Mapping[str, Sequence[Mapping[str, Any]]]
    max_trials: int
    max_seconds: int
    seed: int
    study: str
    variables: Mapping[str, str]
    tags: Mapping[str, str]


class Ending(StrEnum):
    """How a trial ended."""

    JUDGED = "judged"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialSeen:
    """A trial that ended. `params`: as SageMaker wrote them; `value`: of the metric, if judged; `reason`: if not."""

    name: str
    params: Mapping[str, str]
    ending: Ending
    value: float
    reason: str
    begin_s: float
    end_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TuningSeen:
    """A tuning job. `has_run_out`: it was ended by its own limit of time, which is no failure."""

    status: str
    reason: str
    created_s: float
    has_run_out: bool

    @property
    def is_running(self) -> bool:
        return self.status in {"InProgress", "Stopping", "Deleting"}


class TuningJobs:
    """The tuning jobs of one study. Raises of every call: Unavailable, ConfigError."""

    def __init__(self, aws: Aws, *, stem: str) -> None:
        self._aws, self._stem = aws, stem

    def start(self, search: Search) -> str:
        """Order the search, or find the job that runs or has ended well; its name."""
        number = 1
        while (seen := self.look(name := f"{self._stem}-{number}")) is not None:
            if seen.status not in _NO_GOOD or seen.has_run_out:
                return name
            number += 1
        self._create(name, search)
        return name

    def names(self) -> list[str]:
        """Of all there are, oldest first."""
        found: list[str] = []
        while self.look(name := f"{self._stem}-{len(found) + 1}") is not None:
            found.append(name)
        return found

    def look(self, name: str) -> TuningSeen | None:
        """None for one that SageMaker does not know."""
        found: dict[str, Any] | None = None
        with explained(f"tuning job {name}"), excused(*UNKNOWN_TO_SAGEMAKER):
            found = complete(
                client("sagemaker").describe_hyper_parameter_tuning_job,
                "HyperParameterTuningJobStatus",
                HyperParameterTuningJobName=name,
            )
        if found is None:
            return None
        limit_s = found["HyperParameterTuningJobConfig"]["ResourceLimits"].get("MaxRuntimeInSeconds", math.inf)
        created_s = instant_s(found["CreationTime"])
        lasted_s = instant_s(found.get("HyperParameterTuningEndTime")) - created_s
        return TuningSeen(
            status=found["HyperParameterTuningJobStatus"],
            reason=str(found.get("FailureReason") or "no reason given"),
            created_s=created_s,
            has_run_out=found["HyperParameterTuningJobStatus"] == "Stopped" and lasted_s >= limit_s,
        )

    def trials(self, name: str) -> list[TrialSeen]:
        """Those that ended, in the order in which they were made."""
        return [_trial_of(found) for found in self._summaries(name) if found["TrainingJobStatus"] in _ENDED]

    def used(self, name: str) -> tuple[Used, ...] | None:
        """What its trials are billed; None while SageMaker has not said."""
        hours, full_hours = 0.0, 0.0
        for found in self._summaries(name):
            with explained(f"training job {found['TrainingJobName']}"):
                job = client("sagemaker").describe_training_job(TrainingJobName=found["TrainingJobName"])
            if (bill := trained(job)) is None:
                return None
            hours, full_hours = hours + sum(u.hours for u in bill), full_hours + sum(u.full_hours for u in bill)
        return (Used(what=self._aws.training_instance, hours=hours, full_hours=full_hours),) if full_hours else ()

    def stop(self, name: str) -> None:
        """One that has ended is left alone."""
        from botocore import exceptions as botocore  # noqa: PLC0415

        seen = self.look(name)
        if seen is None or seen.status != "InProgress":
            return
        with explained(f"tuning job {name}"):
            try:
                client("sagemaker").stop_hyper_parameter_tuning_job(HyperParameterTuningJobName=name)
            except botocore.ClientError:
                if (seen := self.look(name)) is not None and seen.status == "InProgress":
                    raise

    def _summaries(self, name: str) -> list[dict[str, Any]]:
        """All of them, oldest first."""
        found, more = list[dict[str, Any]](), dict[str, str]()
        while True:
            with explained(f"trials of tuning job {name}"):
                page = complete(
                    client("sagemaker").list_training_jobs_for_hyper_parameter_tuning_job,
                    "TrainingJobSummaries",
                    HyperParameterTuningJobName=name,
                    MaxResults=100,
                    SortBy="CreationTime",
                    SortOrder="Ascending",
                    **more,
                )
            found += page["TrainingJobSummaries"]
            if not page.get("NextToken"):
                return sorted(found, key=lambda one: (one["CreationTime"], one["TrainingJobName"]))
            more = {"NextToken": page["NextToken"]}

    def _create(self, name: str, search: Search) -> None:
        check_settings(self._aws, "training_image", "training_role")
        if search.max_seconds < MIN_SECONDS:
            raise ConfigError(
                f"tuning job {name} may take {search.max_seconds} s; SageMaker takes {MIN_SECONDS} at least. Raise "
                "tune.max_seconds, tune.max_money or resources.max_money, or take CLEARWAY__AWS__SERVICES__TUNE=batch"
            )
        with explained(f"tuning job {name}"), excused("ResourceInUse"):
            client("sagemaker").create_hyper_parameter_tuning_job(**request(self._aws, name, search))


def request(aws: Aws, name: str, search: Search) -> dict[str, Any]:
    """The order of a tuning job. Raises: ConfigError for more variables than a trial takes."""
    if len(search.variables) > MAX_VARIABLES:
        raise ConfigError(f"a trial gets {len(search.variables)} variables; SageMaker takes {MAX_VARIABLES} at most")
    limits = {"MaxParallelTrainingJobs": aws.tuning_parallel, "MaxRuntimeInSeconds": search.max_seconds}
    if search.max_trials:
        limits["MaxNumberOfTrainingJobs"] = search.max_trials
    stopping = {"MaxRuntimeInSeconds": search.max_seconds}
    if aws.training_is_spot:  # how long it may wait for a machine and run, together
        stopping["MaxWaitTimeInSeconds"] = 2 * search.max_seconds
    return {
        "HyperParameterTuningJobName": name,
        "HyperParameterTuningJobConfig": {
            "Strategy": search.strategy,
            "HyperParameterTuningJobObjective": {"Type": "Minimize", "MetricName": METRIC},
            "ResourceLimits": limits,
            "ParameterRanges": search.ranges,
            "TrainingJobEarlyStoppingType": "Off",
            "RandomSeed": search.seed,
        },
        "TrainingJobDefinition": {
            "StaticHyperParameters": {"study": search.study},
            "AlgorithmSpecification": {
                "TrainingImage": aws.training_image,
                "TrainingInputMode": "File",
                "MetricDefinitions": [{"Name": METRIC, "Regex": PATTERN}],
            },
            "RoleArn": aws.training_role,
            "OutputDataConfig": {"S3OutputPath": f"{search.study}/output"},
            "ResourceConfig": {
                "InstanceType": aws.training_instance,
                "InstanceCount": 1,
                "VolumeSizeInGB": aws.training_volume_gb,
            },
            "StoppingCondition": stopping,
            "EnableManagedSpotTraining": aws.training_is_spot,
            "Environment": dict(search.variables),
            **network_of(aws),
        },
        "Tags": key_values(search.tags, "Key", "Value"),
    }


def _trial_of(found: Mapping[str, Any]) -> TrialSeen:
    metric = found.get("FinalHyperParameterTuningJobObjectiveMetric")
    is_judged = found["TrainingJobStatus"] == "Completed" and metric is not None
    status = found["TrainingJobStatus"]
    reason = found.get("FailureReason") or ("it said no loss" if status == "Completed" else "no reason given")
    return TrialSeen(
        name=found["TrainingJobName"],
        params=found["TunedHyperParameters"],
        ending=Ending.JUDGED if is_judged else Ending.FAILED,
        value=float(metric["Value"]) if is_judged and metric else math.nan,
        reason="" if is_judged else f"{status}: {reason}",
        begin_s=instant_s(found.get("TrainingStartTime")),
        end_s=instant_s(found.get("TrainingEndTime")),
    )


def stem_of(folder: str) -> str:
    """First part of the names of a job's tuning jobs, the same for all attempts. `folder`: of one of them."""
    return f"clearway-tune-{sha256_of(folder.rpartition('/')[0].encode())[:12]}"


class SageMakerTuning(Batch):
    """A container of Batch that leaves its study's trials to a tuning job, and who stops the container stops that too.

    A container that dies leaves the tuning job alone: the next attempt goes on with it.
    """

    def start(self, order: Order) -> str:
        check_settings(self._aws, "training_image", "training_role")
        stem = stem_of(order.folder)
        more = {f"{PREFIX}AWS__TUNING_JOB": stem, f"{PREFIX}JOBS__MAX_SECONDS": str(order.max_seconds)}
        container = super().start(replace(order, variables={**order.variables, **more}))
        return f"{container}/{stem}"

    def look(self, job_id: str) -> Seen:
        container, _, stem = job_id.partition("/")
        seen = super().look(container)
        if seen.is_running or not seen.begin_s or not stem:
            return seen
        return replace(seen, used=self._billed(stem, seen))

    def stop(self, job_id: str) -> None:
        """First the container, which could order another one."""
        container, _, stem = job_id.partition("/")
        super().stop(container)
        jobs = TuningJobs(self._aws, stem=stem)
        for name in jobs.names() if stem else ():
            jobs.stop(name)

    def log_of(self, job_id: str) -> tuple[str, str] | None:
        return super().log_of(job_id.partition("/")[0])

    def _billed(self, stem: str, seen: Seen) -> tuple[Used, ...] | None:
        """With the trials of the tuning jobs that this container ordered; one it only found is on another bill."""
        jobs, found = TuningJobs(self._aws, stem=stem), list(seen.used or ())
        for name in jobs.names():
            job = jobs.look(name)
            if job is None or not seen.begin_s <= job.created_s <= seen.end_s:
                continue
            used = None if job.is_running else jobs.used(name)
            if used is None:
                return None
            found += used
        return tuple(found)


def ended_well(name: str, seen: TuningSeen | None) -> bool:
    """Whether its trials are all there will be. Raises: JobFailed for one that failed or was stopped by somebody."""
    if seen is None:
        raise JobFailed(f"tuning job {name} is gone; run the stage again, which orders another one")
    if seen.is_running:
        return False
    if seen.status == "Completed" or seen.has_run_out:
        return True
    raise JobFailed(
        f"tuning job {name} is {seen.status} ({seen.reason}); run the stage again, which orders another one"
    )
