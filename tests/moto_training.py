"""Training and tuning jobs of SageMaker that run, for tests/moto_server.py.

A tuning job draws values evenly from its ranges, whatever its strategy, and tries each point of a grid once; so many
trials at once as it may, each a training job whose container is started as SageMaker starts one: by the executable
`train`, with its values in a file. Its metric is the last number its expression finds in the trial's lines.
"""

import copy
import itertools
import json
import math
import os
import random
import re
import threading
import uuid
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from moto.core.responses import ActionResult
from moto.logs.models import logs_backends
from moto.sagemaker.exceptions import ResourceInUseException, ResourceNotFound, ValidationError
from moto.sagemaker.models import SageMakerModelBackend
from moto.sagemaker.responses import SageMakerResponse

GROUP = "/aws/sagemaker/TrainingJobs"
TRAIN = Path(__file__).parents[1] / "include" / "aws" / "train"
PAGE = 1  # trials of a page: fewer than SageMaker's, so that whoever does not turn pages is found out
_create = SageMakerModelBackend.create_training_job


def add(machines: Any) -> None:
    """Have moto's SageMaker run both."""
    _run_training_jobs(machines)
    _run_tuning_jobs(machines)


def made(backend: Any, name: str, asked: Mapping[str, Any], *, tags: Any) -> Any:
    """A training job of moto's that has just begun."""
    job = _create(
        backend,
        training_job_name=name,
        hyper_parameters=None,
        algorithm_specification=copy.deepcopy(asked["AlgorithmSpecification"]),  # moto writes into it
        role_arn=asked["RoleArn"],
        input_data_config=None,
        output_data_config=asked["OutputDataConfig"],
        resource_config=asked["ResourceConfig"],
        vpc_config=None,
        stopping_condition=asked["StoppingCondition"],
        tags=tags,
        enable_network_isolation=False,
        enable_inter_container_traffic_encryption=False,
        enable_managed_spot_training=asked.get("EnableManagedSpotTraining") or False,
        checkpoint_config=asked.get("CheckpointConfig"),
        debug_hook_config=None,
        debug_rule_configurations=None,
        tensor_board_output_config=None,
        experiment_config=None,
    )
    job.training_job_status = "InProgress"
    job.training_start_time, job.training_end_time = datetime.now(UTC), None
    return job


def end(job: Any, code: int, *, reason: str = "") -> None:
    """As its process ended."""
    job.training_end_time = datetime.now(UTC)
    seconds = (job.training_end_time - job.training_start_time).total_seconds()
    job.training_time_in_seconds = max(10, math.ceil(seconds))
    share = 0.3 if job.enable_managed_spot_training else 1.0
    job.billable_time_in_seconds = math.ceil(job.training_time_in_seconds * share)
    if job.training_job_status == "Stopping":
        job.training_job_status = "Stopped"
    elif code:
        job.failure_reason, job.training_job_status = f"AlgorithmError: {reason}exit code {code}", "Failed"
    else:
        job.training_job_status = "Completed"


def _run_training_jobs(machines: Any) -> None:
    """create, describe and stop of training jobs."""
    names = ("AlgorithmSpecification", "RoleArn", "OutputDataConfig", "ResourceConfig", "StoppingCondition")
    more = ("EnableManagedSpotTraining", "CheckpointConfig")

    def create_training_job(self: SageMakerResponse) -> ActionResult:
        name, backend = self._get_param("TrainingJobName"), self.sagemaker_backend
        if name in backend.training_jobs:
            raise ResourceInUseException(message=f"training job {name} exists already")
        asked = {each: self._get_param(each) for each in (*names, *more)}
        job = made(backend, name, asked, tags=self._get_param("Tags"))
        algorithm = asked["AlgorithmSpecification"]
        machines.start(
            name,
            [*algorithm["ContainerEntrypoint"], *algorithm["ContainerArguments"]],
            variables=self._get_param("Environment"),
            home=machines.home_of(asked["CheckpointConfig"]["S3Uri"]),
            log=(GROUP, f"{name}/algo-1"),
            on_end=lambda code: end(job, code),
        )
        return ActionResult({"TrainingJobArn": job.arn})

    def stop_training_job(self: SageMakerResponse) -> ActionResult:
        job = self.sagemaker_backend.training_jobs.get(self._get_param("TrainingJobName"))
        if job is None or job.training_job_status != "InProgress":
            raise ValidationError(message="The request was rejected because the training job is not running")
        job.training_job_status = "Stopping"
        machines.stop(job.training_job_name)
        return ActionResult({})

    SageMakerResponse.create_training_job = create_training_job
    SageMakerResponse.stop_training_job = stop_training_job


class Tuning:
    """One tuning job: makes its trials, and knows how they ended."""

    def __init__(self, machines: Any, backend: Any, job: Any, *, account: str, region: str) -> None:
        self._machines, self._backend, self._account, self._region = machines, backend, account, region
        self.job, self.summaries = job, list[dict[str, Any]]()
        self._stop = threading.Event()
        self._limits = job.hyper_parameter_tuning_job_config["ResourceLimits"]
        job.hyper_parameter_tuning_job_status, job.hyper_parameter_tuning_end_time = "InProgress", None

    def run(self) -> None:
        """Trials until all are done, it is stopped, or its time is up."""
        limits = self._limits
        slots = threading.Semaphore(limits["MaxParallelTrainingJobs"])
        timer = threading.Timer(limits["MaxRuntimeInSeconds"], self.stop)
        timer.daemon = True
        timer.start()
        trials = []
        for number, values in enumerate(self._values(), 1):
            slots.acquire()
            if self._stop.is_set():
                break
            trials.append(self._begin(number, values, slots))
        for done in trials:
            done.wait()
        timer.cancel()
        self.job.hyper_parameter_tuning_end_time = datetime.now(UTC)
        self.job.hyper_parameter_tuning_job_status = "Stopped" if self._stop.is_set() else "Completed"

    def stop(self) -> None:
        self._stop.set()
        self.job.hyper_parameter_tuning_job_status = "Stopping"
        for summary in self.summaries:
            trial = self._backend.training_jobs[summary["TrainingJobName"]]
            if trial.training_job_status == "InProgress":
                trial.training_job_status = "Stopping"
                self._machines.stop(summary["TrainingJobName"])

    def _values(self) -> Iterator[dict[str, str]]:
        config = self.job.hyper_parameter_tuning_job_config
        ranges, rng = config["ParameterRanges"], random.Random(config.get("RandomSeed"))  # noqa: S311 - no secret
        if config["Strategy"] == "Grid":
            listed = ranges["CategoricalParameterRanges"]
            points = itertools.product(*(one["Values"] for one in listed))
            yield from (dict(zip((one["Name"] for one in listed), point, strict=True)) for point in points)
            return
        for _ in range(config["ResourceLimits"]["MaxNumberOfTrainingJobs"]):
            whole = {one["Name"]: str(round(_drawn(one, rng))) for one in ranges["IntegerParameterRanges"]}
            yield whole | {one["Name"]: repr(_drawn(one, rng)) for one in ranges["ContinuousParameterRanges"]}

    def _begin(self, number: int, values: dict[str, str], slots: threading.Semaphore) -> threading.Event:
        asked = self.job.training_job_definition
        name = f"{self.job.hyper_parameter_tuning_job_name}-{number:03d}-{uuid.uuid4().hex[:8]}"
        trial, done = made(self._backend, name, asked, tags=self.job.tags), threading.Event()
        summary = {"TrainingJobName": name, "TrainingJobArn": trial.arn, "TunedHyperParameters": values}
        summary |= {"CreationTime": trial.training_start_time, "TrainingStartTime": trial.training_start_time}
        self.summaries.append(summary)
        home = self._machines.home_of(f"ml/{name}")
        (metric_asked,) = asked["AlgorithmSpecification"]["MetricDefinitions"]
        static = {**asked["StaticHyperParameters"], "_tuning_objective_metric": metric_asked["Name"]}
        file = home / "input" / "config" / "hyperparameters.json"
        file.parent.mkdir(parents=True)
        file.write_text(json.dumps(static | values), encoding="utf-8")

        def on_end(code: int) -> None:
            failure = home / "output" / "failure"
            end(trial, code, reason=f"{failure.read_text()}, " if failure.exists() else "")
            summary["TrainingEndTime"], metric = trial.training_end_time, self._metric(name)
            if metric is not None:
                objective = {"MetricName": metric_asked["Name"], "Value": metric, "Type": "Minimize"}
                summary["FinalHyperParameterTuningJobObjectiveMetric"] = objective
            slots.release()
            done.set()

        self._machines.start(
            name,
            ["sh", str(TRAIN), "--ml", str(home)],
            variables=asked["Environment"] | {"TRAINING_JOB_NAME": name, "PATH": _path()},
            home=home,
            log=(GROUP, f"{name}/algo-1"),
            on_end=on_end,
        )
        if self._stop.is_set():  # it was stopped while this one began
            self.stop()
        return done

    def _metric(self, name: str) -> float | None:
        groups = logs_backends[self._account][self._region].groups
        streams = groups[GROUP].streams if GROUP in groups else {}
        lines = [event.message for event in streams[f"{name}/algo-1"].events] if f"{name}/algo-1" in streams else []
        (asked_for,) = self.job.training_job_definition["AlgorithmSpecification"]["MetricDefinitions"]
        found = [match for line in lines for match in re.findall(asked_for["Regex"], line)]
        return float(found[-1]) if found else None


def _drawn(limits: Mapping[str, str], rng: random.Random) -> float:
    low, high = float(limits["MinValue"]), float(limits["MaxValue"])
    if limits["ScalingType"] == "Logarithmic":
        return min(high, max(low, math.exp(rng.uniform(math.log(low), math.log(high)))))
    return rng.uniform(low, high)


def _path() -> str:
    """With this interpreter first, as the image has it."""
    import sys

    return f"{Path(sys.executable).parent}:{os.environ['PATH']}"


def _run_tuning_jobs(machines: Any) -> None:
    """create, list the trials of, and stop tuning jobs."""
    create, tunings = SageMakerResponse.create_hyper_parameter_tuning_job, dict[str, Tuning]()

    def create_job(self: SageMakerResponse) -> ActionResult:
        answer, backend = create(self), self.sagemaker_backend
        name = self._get_param("HyperParameterTuningJobName")
        tuning = Tuning(
            machines,
            backend,
            backend.hyper_parameter_tuning_jobs[name],
            account=self.current_account,
            region=self.region,
        )
        tunings[name] = tuning
        threading.Thread(target=tuning.run, daemon=True).start()
        return answer

    def known(self: SageMakerResponse) -> Tuning:
        name = self._get_param("HyperParameterTuningJobName")
        if name not in tunings:
            raise ResourceNotFound(message=f"no tuning job {name}")
        return tunings[name]

    def list_trials(self: SageMakerResponse) -> ActionResult:
        found, first = known(self), int(self._get_param("NextToken") or 0)
        page = [
            one | {"TrainingJobStatus": job.training_job_status, "FailureReason": getattr(job, "failure_reason", "")}
            for one in found.summaries[first : first + PAGE]
            for job in [self.sagemaker_backend.training_jobs[one["TrainingJobName"]]]
        ]
        more = {"NextToken": str(first + PAGE)} if first + PAGE < len(found.summaries) else {}
        return ActionResult({"TrainingJobSummaries": page, **more})

    def stop_job(self: SageMakerResponse) -> ActionResult:
        found = known(self)
        if found.job.hyper_parameter_tuning_job_status != "InProgress":
            raise ValidationError(message="The request was rejected because the tuning job is not running")
        found.stop()
        return ActionResult({})

    SageMakerResponse.create_hyper_parameter_tuning_job = create_job
    SageMakerResponse.list_training_jobs_for_hyper_parameter_tuning_job = list_trials
    SageMakerResponse.stop_hyper_parameter_tuning_job = stop_job
