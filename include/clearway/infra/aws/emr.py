"""EMR as a place to run Spark jobs: serverless, or in the pods of a cluster of EKS.

All of EMR starts the same file with the same environment, `clearway_job.py` and `environment.tar.gz` of `aws.emr_code`.
"""

from collections.abc import Mapping

from clearway.infra.aws.client import client, excused, explained, whole
from clearway.infra.aws.services import HOME, Order, Seen, check_settings, instant_s
from clearway.infra.environment import Aws
from clearway.infra.jobs.usage import (
    EKS_GB,
    EKS_VCPU,
    EMR_GB,
    EMR_VCPU,
    EMR_WORKER_GB,
    EMR_WORKER_VCPUS,
    S_PER_HOUR,
    Used,
)

# Read by clearway_job.py, which ends its process then: only EMR Serverless stops a job by itself.
MAX_SECONDS = "CLEARWAY_MAX_SECONDS"
_MIN_MINUTES = 5
_LAUNCHER_WORDS = 3  # python -m clearway, in whose place EMR starts a file
_PYTHON = "./environment/bin/python"
_OVERHEAD_GB = 2  # of a worker, beside Spark's own memory: a tenth at least, in whole GB


class EmrServerless:
    """Spark jobs of an application that stands ready. The token of an order makes its start idempotent."""

    def __init__(self, aws: Aws) -> None:
        self._aws = aws

    def start(self, order: Order) -> str:
        aws = self._aws
        check_settings(aws, "emr_application", "emr_role", "emr_code")
        variables = {**order.variables, "CLEARWAY__HOME": HOME}
        properties = spark_properties(aws, variables, driver="spark.emr-serverless.driverEnv")
        with explained(f"EMR application {aws.emr_application}"):
            run = whole(
                client("emr-serverless").start_job_run,
                "jobRunId",
                applicationId=aws.emr_application,
                clientToken=order.name,
                name=order.name,
                executionRoleArn=aws.emr_role,
                jobDriver={
                    "sparkSubmit": {
                        "entryPoint": entry_point(aws),
                        "entryPointArguments": arguments_of(order),
                    }
                },
                configurationOverrides={
                    "applicationConfiguration": [{"classification": "spark-defaults", "properties": properties}],
                    "monitoringConfiguration": {
                        "cloudWatchLoggingConfiguration": {
                            "enabled": True,
                            "logGroupName": aws.log_group,
                            "logStreamNamePrefix": order.name,
                        }
                    },
                },
                executionTimeoutMinutes=max(_MIN_MINUTES, -(-order.max_seconds // 60)),
                tags=dict(order.tags),
            )
        return f"{run}/{order.name}"

    def look(self, job_id: str) -> Seen:
        run, _, _ = job_id.partition("/")
        found = None
        with explained(f"job run {run}"), excused("ResourceNotFoundException"):
            get, application = client("emr-serverless").get_job_run, self._aws.emr_application
            found = whole(get, "jobRun", applicationId=application, jobRunId=run)
        if found is None:
            return Seen(is_running=False, reason="EMR Serverless knows no such job run")
        state, details = found["state"], found.get("stateDetails", "")
        return Seen(
            is_running=state not in {"SUCCESS", "FAILED", "CANCELLED"},
            has_succeeded=state == "SUCCESS",
            reason="" if state == "SUCCESS" else f"{state}: {details or 'no reason given'}",
            begin_s=instant_s(found.get("startedAt", found["createdAt"])),
            end_s=instant_s(found.get("endedAt", found["updatedAt"])),
            used=_computed(found.get("billedResourceUtilization")),
        )

    def stop(self, job_id: str) -> None:
        if self.look(job_id).is_running:
            run, _, _ = job_id.partition("/")
            with explained(f"job run {run}"):
                client("emr-serverless").cancel_job_run(applicationId=self._aws.emr_application, jobRunId=run)

    def log_of(self, job_id: str) -> tuple[str, str] | None:
        return self._aws.log_group, job_id.partition("/")[2]


class EmrOnEks:
    """The same jobs as pods, in the namespace of a virtual cluster. Its machines are the cluster's and on its bill."""

    def __init__(self, aws: Aws) -> None:
        self._aws = aws

    def start(self, order: Order) -> str:
        aws = self._aws
        check_settings(aws, "emr_virtual_cluster", "emr_eks_role", "emr_code")
        emr = client("emr-containers")
        variables = variables_of(order, emr.meta.region_name)
        with explained(f"virtual cluster {aws.emr_virtual_cluster}"):
            run = whole(
                emr.start_job_run,
                "id",
                virtualClusterId=aws.emr_virtual_cluster,
                clientToken=order.name,
                name=order.name,
                executionRoleArn=aws.emr_eks_role,
                releaseLabel=f"{aws.emr_release}-latest",
                jobDriver={
                    "sparkSubmitJobDriver": {
                        "entryPoint": entry_point(aws),
                        "entryPointArguments": arguments_of(order),
                        "sparkSubmitParameters": _pods(),
                    }
                },
                configurationOverrides={
                    "applicationConfiguration": [
                        {
                            "classification": "spark-defaults",
                            "properties": spark_properties(aws, variables, driver="spark.kubernetes.driverEnv"),
                        }
                    ],
                    "monitoringConfiguration": {
                        "cloudWatchMonitoringConfiguration": {
                            "logGroupName": aws.log_group,
                            "logStreamNamePrefix": order.name,
                        }
                    },
                },
                tags=dict(order.tags),
            )
        return f"{run}/{order.name}"

    def look(self, job_id: str) -> Seen:
        run, _, _ = job_id.partition("/")
        found = None
        with explained(f"job run {run}"), excused("ResourceNotFoundException", "ValidationException"):
            describe, cluster = client("emr-containers").describe_job_run, self._aws.emr_virtual_cluster
            found = whole(describe, "jobRun", virtualClusterId=cluster, id=run)
        if found is None:
            return Seen(is_running=False, reason="EMR on EKS knows no such job run")
        state, is_done = found["state"], found["state"] == "COMPLETED"
        words = [str(found[key]) for key in ("failureReason", "stateDetails") if found.get(key)]
        begin_s, end_s = instant_s(found["createdAt"]), instant_s(found.get("finishedAt"))
        return Seen(
            is_running=state not in {"COMPLETED", "FAILED", "CANCELLED"},
            has_succeeded=is_done,
            reason="" if is_done else f"{state}: {', '.join(words) or 'no reason given'}",
            begin_s=begin_s,
            end_s=end_s,
            used=self._at_most(begin_s, end_s) if end_s else None,
        )

    def stop(self, job_id: str) -> None:
        if self.look(job_id).is_running:
            run, _, _ = job_id.partition("/")
            with explained(f"job run {run}"):
                client("emr-containers").cancel_job_run(virtualClusterId=self._aws.emr_virtual_cluster, id=run)

    def log_of(self, job_id: str) -> tuple[str, str] | None:
        return self._aws.log_group, job_id.partition("/")[2]

    def _at_most(self, begin_s: float, end_s: float) -> tuple[Used, ...]:
        """No call says how many executors there were, so all that there may be count."""
        hours = (1 + self._aws.emr_max_executors) * (end_s - begin_s) / S_PER_HOUR
        sizes = {EKS_VCPU: EMR_WORKER_VCPUS * hours, EKS_GB: EMR_WORKER_GB * hours}
        return tuple(Used(what=what, hours=value, full_hours=value) for what, value in sizes.items())


def entry_point(aws: Aws) -> str:
    """The file that EMR starts."""
    return f"{aws.emr_code}/clearway_job.py"


def arguments_of(order: Order) -> list[str]:
    """Of that file: what follows `python -m clearway`."""
    return list(order.command[_LAUNCHER_WORDS:])


def variables_of(order: Order, region: str) -> dict[str, str]:
    """Of a driver that is told neither its region nor its time by EMR."""
    own = {"CLEARWAY__HOME": HOME, MAX_SECONDS: str(order.max_seconds), "AWS_DEFAULT_REGION": region}
    return {**order.variables, **own}


def spark_properties(aws: Aws, variables: Mapping[str, str], *, driver: str) -> dict[str, str]:
    """The project's own interpreter and libraries, on driver and executors, of which there is a most.

    `driver`: what names of its variables begin with. They are for it alone: executors run no Python of ours, and a job
    may have 100 properties.
    """
    own = {**variables, "PYSPARK_PYTHON": _PYTHON, "PYSPARK_DRIVER_PYTHON": _PYTHON}
    return {f"{driver}.{name}": value for name, value in own.items()} | {
        "spark.dynamicAllocation.maxExecutors": str(aws.emr_max_executors),
        "spark.archives": f"{aws.emr_code}/environment.tar.gz#environment",
        "spark.executorEnv.PYSPARK_PYTHON": _PYTHON,
    }


def _pods() -> str:
    """Sizes that the bill counts by. Shuffled data lie on executors here, which must not go while they are read."""
    cores, memory = str(EMR_WORKER_VCPUS), f"{EMR_WORKER_GB - _OVERHEAD_GB}g"
    asked = {
        "spark.driver.cores": cores,
        "spark.driver.memory": memory,
        "spark.executor.cores": cores,
        "spark.executor.memory": memory,
        "spark.dynamicAllocation.enabled": "true",
        "spark.dynamicAllocation.shuffleTracking.enabled": "true",
        "spark.sql.adaptive.enabled": "true",
    }
    return " ".join(f"--conf {name}={value}" for name, value in asked.items())


def _computed(billed: Mapping[str, float] | None) -> tuple[Used, ...] | None:
    if billed is None:
        return None
    hours = {EMR_VCPU: billed.get("vCPUHour", 0.0), EMR_GB: billed.get("memoryGBHour", 0.0)}
    return tuple(Used(what=what, hours=value, full_hours=value) for what, value in hours.items())
