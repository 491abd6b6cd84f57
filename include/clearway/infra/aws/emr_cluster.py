"""EMR on machines of EC2: a cluster for every job, which ends with it.

RunJobFlow has no token, so clusters of the same name are looked for before one is made. A primary and a core machine
stand on demand, and the driver runs on the core; what grows is task machines on spot.
"""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from clearway.infra.aws.client import client, complete, excused, explained, whole
from clearway.infra.aws.emr import arguments_of, entry_point, spark_properties, variables_of
from clearway.infra.aws.services import Order, Seen, check_settings, instant_s, key_values, started_once
from clearway.infra.clock import SystemClock
from clearway.infra.environment import Aws
from clearway.infra.jobs.usage import EMR_PART, S_PER_HOUR, Used

# How far back an order of the same name is looked for: whoever retries later than this starts another job.
LOOK_BACK = timedelta(days=7)
SPOT_PATIENCE_MINUTES = 10  # before the first task machine is asked for on demand
IDLE_S = 600  # should a cluster ever stand without a step
# AWS's own policy for the service's role lets it touch nothing without this tag.
FOR_SERVICE = {"for-use-with-amazon-emr-managed-policies": "true"}
_MIN_BILLED_S = 60.0
_STEP_RUNS = {"PENDING", "RUNNING", "CANCEL_PENDING"}
_CLUSTER_ENDED = {"TERMINATED", "TERMINATED_WITH_ERRORS"}


class EmrOnEc2:
    """Spark jobs on a cluster each; the job's id is the cluster's, and the name that its lines are found by."""

    def __init__(self, aws: Aws) -> None:
        self._aws = aws

    def start(self, order: Order) -> str:
        aws = self._aws
        check_settings(aws, "emr_service_role", "emr_profile", "emr_code", "emr_access_group", "subnets")
        check_settings(aws, "security_groups")
        cluster = started_once(
            f"EMR cluster {order.name}", find=lambda: _named(order.name), submit=lambda: self._run(order)
        )
        return f"{cluster}/{order.name}"

    def _run(self, order: Order) -> None:
        """Sent once: after an answer that was lost, the next thing to do is to look."""
        aws, emr = self._aws, client("emr", max_attempts=1)
        own, *more = aws.security_groups.split()
        emr.run_job_flow(
            Name=order.name,
            ReleaseLabel=aws.emr_release,
            Applications=[{"Name": "Spark"}, {"Name": "AmazonCloudWatchAgent"}],
            ServiceRole=aws.emr_service_role,
            JobFlowRole=aws.emr_profile,
            LogUri=f"{order.folder}/logs/",
            Instances={
                "InstanceFleets": _fleets(aws),
                "Ec2SubnetIds": aws.subnets.split(),
                "EmrManagedMasterSecurityGroup": own,
                "EmrManagedSlaveSecurityGroup": own,
                "ServiceAccessSecurityGroup": aws.emr_access_group,
                "AdditionalMasterSecurityGroups": more,
                "AdditionalSlaveSecurityGroups": more,
                "KeepJobFlowAliveWhenNoSteps": False,
                "TerminationProtected": False,
            },
            ManagedScalingPolicy={"ComputeLimits": _limits(aws)},
            AutoTerminationPolicy={"IdleTimeout": IDLE_S},
            Configurations=_configurations(aws, variables_of(order, emr.meta.region_name)),
            Steps=[
                {
                    "Name": order.name,
                    "ActionOnFailure": "TERMINATE_CLUSTER",
                    "HadoopJarStep": {
                        "Jar": "command-runner.jar",
                        "Args": ["spark-submit", "--deploy-mode", "cluster", entry_point(aws), *arguments_of(order)],
                    },
                }
            ],
            MonitoringConfiguration={
                "CloudWatchLogConfiguration": {
                    "Enabled": True,
                    "LogGroupName": aws.log_group,
                    "LogStreamNamePrefix": order.name,
                    "LogTypes": {"SPARK_DRIVER": ["STDOUT", "STDERR"]},
                }
            },
            Tags=key_values({**order.tags, **FOR_SERVICE}, "Key", "Value"),
        )

    def look(self, job_id: str) -> Seen:
        cluster, _, _ = job_id.partition("/")
        emr, status = client("emr"), None
        with explained(f"EMR cluster {cluster}"):
            with excused("InvalidRequestException", "ResourceNotFoundException"):
                status = whole(emr.describe_cluster, "Cluster", ClusterId=cluster)["Status"]
            if status is None:
                return Seen(is_running=False, reason="EMR knows no such cluster")
            steps = whole(emr.list_steps, "Steps", ClusterId=cluster)
            has_ended = status["State"] in _CLUSTER_ENDED
            used = _used(cluster, status["Timeline"]) if has_ended else None
        step = steps[0]["Status"] if steps else {}
        state, is_done = step.get("State", "PENDING"), step.get("State") == "COMPLETED"
        return Seen(
            is_running=state in _STEP_RUNS and not has_ended,
            has_succeeded=is_done,
            reason="" if is_done else _reason(state, step, status),
            begin_s=instant_s(status["Timeline"].get("CreationDateTime")) if used != () else 0.0,
            end_s=instant_s(status["Timeline"].get("EndDateTime")) if used != () else 0.0,
            used=used,
        )

    def stop(self, job_id: str) -> None:
        if self.look(job_id).is_running:
            cluster, _, _ = job_id.partition("/")
            with explained(f"EMR cluster {cluster}"):
                client("emr").terminate_job_flows(JobFlowIds=[cluster])

    def log_of(self, job_id: str) -> tuple[str, str] | None:
        return self._aws.log_group, job_id.partition("/")[2]


def _named(name: str) -> str:
    """The oldest cluster of this name; "" if there is none."""
    since = datetime.fromtimestamp(SystemClock().now_s(), tz=UTC) - LOOK_BACK
    found = [one for one in _pages("list_clusters", "Clusters", CreatedAfter=since) if one["Name"] == name]
    return str(min(found, key=lambda one: one["Status"]["Timeline"]["CreationDateTime"])["Id"]) if found else ""


def _pages(call: str, key: str, **asked: Any) -> Iterator[dict[str, Any]]:
    marker: dict[str, str] = {}
    while True:
        answer = complete(getattr(client("emr"), call), key, **asked, **marker)
        yield from answer[key]
        if not answer.get("Marker"):
            return
        marker = {"Marker": answer["Marker"]}


def _fleets(aws: Aws) -> list[dict[str, Any]]:
    """Each machine counts one, so the types that a fleet may take should be of one size."""
    kinds = [{"InstanceType": kind, "WeightedCapacity": 1} for kind in aws.emr_machines.split()]
    on_demand = {"OnDemandSpecification": {"AllocationStrategy": "lowest-price"}}
    spot = {
        "SpotSpecification": {
            "TimeoutDurationMinutes": SPOT_PATIENCE_MINUTES,
            "TimeoutAction": "SWITCH_TO_ON_DEMAND",
            "AllocationStrategy": "price-capacity-optimized",
        }
    }
    standing = [
        {
            "InstanceFleetType": part,
            "TargetOnDemandCapacity": 1,
            "InstanceTypeConfigs": kinds,
            "LaunchSpecifications": on_demand,
        }
        for part in ("MASTER", "CORE")
    ]
    growing = {
        "InstanceFleetType": "TASK",
        "TargetSpotCapacity": 1,
        "InstanceTypeConfigs": kinds,
        "LaunchSpecifications": spot | on_demand,
        "ResizeSpecifications": {"SpotResizeSpecification": {"TimeoutDurationMinutes": SPOT_PATIENCE_MINUTES}},
    }
    return [*standing, growing]


def _limits(aws: Aws) -> dict[str, Any]:
    """Of core and task machines together; what is above the core is spot. A machine holds one executor at least."""
    most = max(2, aws.emr_max_executors)
    return {
        "UnitType": "InstanceFleetUnits",
        "MinimumCapacityUnits": 1,
        "MaximumCapacityUnits": most,
        "MaximumOnDemandCapacityUnits": 1,
        "MaximumCoreCapacityUnits": 1,
    }


def _configurations(aws: Aws, variables: Mapping[str, str]) -> list[dict[str, Any]]:
    spark = spark_properties(aws, variables, driver="spark.yarn.appMasterEnv") | {
        "spark.dynamicAllocation.enabled": "true",
        "spark.sql.adaptive.enabled": "true",
        "spark.sql.adaptive.coalescePartitions.enabled": "true",
        "spark.sql.adaptive.skewJoin.enabled": "true",
        "spark.yarn.maxAppAttempts": "1",  # the task that waits for the job decides about another
    }
    # A spot machine may be taken away at any time, and the driver with it.
    labels = {"yarn.node-labels.enabled": "true", "yarn.node-labels.am.default-node-label-expression": "CORE"}
    return [
        {"Classification": "spark-defaults", "Properties": spark},
        {"Classification": "yarn-site", "Properties": labels},
    ]


def _reason(state: str, step: Mapping[str, Any], cluster: Mapping[str, Any]) -> str:
    """In EMR's words: of the step, and of the cluster where that says more."""
    failure, changed = step.get("FailureDetails", {}), step.get("StateChangeReason", {})
    words = [failure.get("Reason"), failure.get("Message"), changed.get("Message")]
    told = [str(word) for word in words if word] or ["no reason given"]
    of_cluster = cluster.get("StateChangeReason", {})
    about = [str(of_cluster[key]) for key in ("Code", "Message") if of_cluster.get(key)]
    return f"{state}: {', '.join(told)}; cluster {cluster['State']}: {', '.join(about) or 'no reason given'}"


def _used(cluster: str, lived: Mapping[str, Any]) -> tuple[Used, ...]:
    """Machine-hours by type, and EMR's own price of each. Spot counts in full: no call of EMR says what it cost."""
    hours: dict[str, float] = {}
    for machine in _pages("list_instances", "Instances", ClusterId=cluster):
        line = machine["Status"]["Timeline"]
        begin_s, end_s = instant_s(line.get("CreationDateTime")), instant_s(line.get("EndDateTime"))
        seconds = (end_s or instant_s(lived.get("EndDateTime"))) - begin_s
        kind = machine["InstanceType"]
        hours[kind] = hours.get(kind, 0.0) + max(_MIN_BILLED_S, seconds) / S_PER_HOUR
    parts = [(kind, value) for kind, value in sorted(hours.items())]
    both = [*parts, *((f"{EMR_PART}.{kind}", value) for kind, value in parts)]
    return tuple(Used(what=what, hours=value, full_hours=value) for what, value in both)
