"""Training and tuning jobs of SageMaker that run, for tests/moto_server.py.

A training job of N machines is N processes with the same command, each with a folder of its own in place of /opt/ml:
`resourceconfig.json` there, and checkpoints, which are copied to the one place of the job all the time and from it at
the start. Machines are named by addresses of the loopback, 127.0.0.1 first, since SageMaker's names would lead nowhere
here. The job has ended when the last one has, and has failed if one has: nobody is stopped because another one failed,
which SageMaker may do. A spot machine is never taken away.

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
import shutil
import threading
import uuid
from collections.abc import Iterator, Mapping
from contextlib import suppress
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


def asked_count(job: Any) -> int:
    return int(job.resource_config["InstanceCount"])


def hosts_of(count: int) -> list[str]:
    """Names of the machines of a job."""
    return [f"127.0.0.{number}" for number in range(1, count + 1)]


class Cluster:
    """The machines of one training job."""

    def __init__(self, machines: Any, job: Any, asked: Mapping[str, Any], *, variables: Mapping[str, str]) -> None:
        self._machines, self._job, self._asked, self._variables = machines, job, asked, variables
        self._hosts, self._lock = hosts_of(asked_count(job)), threading.Lock()
        self._codes = dict[str, int]()

    def start(self) -> None:
        for number, host in enumerate(self._hosts, 1):
            self._start(number, host)

    def _start(self, number: int, host: str) -> None:
        name, algorithm = self._job.training_job_name, self._asked["AlgorithmSpecification"]
        ml = self._machines.home_of(f"ml/{name}/{host}")
        config = ml / "input" / "config" / "resourceconfig.json"
        config.parent.mkdir(parents=True)
        config.write_text(
            json.dumps({"current_host": host, "hosts": self._hosts, "network_interface_name": "lo"}), encoding="utf-8"
        )
        checkpoints = Copied(
            ml / "checkpoints", self._machines.home_of(self._asked["CheckpointConfig"]["S3Uri"]), name=f"{name}/{host}"
        )

        def on_end(code: int) -> None:
            checkpoints.finish()
            with self._lock:
                self._codes[host] = code
                if len(self._codes) < len(self._hosts):
                    return
            first = next(((one, bad) for one, bad in self._codes.items() if bad), None)  # as they ended
            where = f"{first[0]}: " if first and len(self._hosts) > 1 else ""
            end(self._job, first[1] if first else 0, reason=where)

        self._machines.start(
            f"{name}/{host}",
            [*algorithm["ContainerEntrypoint"], *algorithm["ContainerArguments"]],
            variables={key: value.replace("/opt/ml", str(ml), 1) for key, value in self._variables.items()},
            home=self._machines.home_of(f"home/{name}/{host}"),
            log=(GROUP, f"{name}/algo-{number}"),
            on_end=on_end,
        )


class Copied:
    """A folder of a machine whose files are copied elsewhere as they change, and removed there as they go."""

    def __init__(self, here: Path, there: Path, *, name: str) -> None:
        self._here, self._there = here, there
        self._seen, self._done = dict[Path, tuple[int, int]](), threading.Event()
        there.mkdir(parents=True, exist_ok=True)
        shutil.copytree(there, here)
        self._changed()  # what came from there need not go back
        self._thread = threading.Thread(target=self._follow, name=f"copied-{name}", daemon=True)
        self._thread.start()

    def finish(self) -> None:
        self._done.set()
        self._thread.join()
        self._copy()

    def _follow(self) -> None:
        while not self._done.wait(0.1):
            self._copy()

    def _changed(self) -> tuple[set[Path], set[Path]]:
        """Files that are new or different, and those that are gone, since it was last asked."""
        found = dict[Path, tuple[int, int]]()
        for folder, _, names in os.walk(self._here):
            for path in (Path(folder) / name for name in names):
                with suppress(FileNotFoundError):
                    about = path.stat()
                    found[path] = (about.st_mtime_ns, about.st_size)
        new = {path for path, about in found.items() if self._seen.get(path) != about}
        gone = set(self._seen) - set(found)
        self._seen = found
        return new, gone

    def _copy(self) -> None:
        new, gone = self._changed()
        for path in new:
            to = self._there / path.relative_to(self._here)
            to.parent.mkdir(parents=True, exist_ok=True)
            with suppress(FileNotFoundError):
                to.write_bytes(path.read_bytes())
        for path in gone:
            (self._there / path.relative_to(self._here)).unlink(missing_ok=True)


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
        Cluster(machines, job, asked, variables=self._get_param("Environment")).start()
        return ActionResult({"TrainingJobArn": job.arn})

    def stop_training_job(self: SageMakerResponse) -> ActionResult:
        job = self.sagemaker_backend.training_jobs.get(self._get_param("TrainingJobName"))
        if job is None or job.training_job_status != "InProgress":
            raise ValidationError(message="The request was rejected because the training job is not running")
        job.training_job_status = "Stopping"
        for host in hosts_of(asked_count(job)):
            machines.stop(f"{job.training_job_name}/{host}")
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
