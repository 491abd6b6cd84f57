"""AWS as moto knows it, over real HTTP, in a process of its own: `python tests/moto_server.py PORT FOLDER`.

moto answers calls about jobs and runs none. Here a training job, a Spark job and a container each start the command
they were given as a process of this machine, with the variables they were given; its lines go to CloudWatch, and the
job ends as the process ends. Also added, as AWS behaves and moto does not: a training job's name and a Spark job's
token are taken once, training and tuning jobs can be stopped (`moto_training.py`), transform jobs run
(`moto_transform.py`), and all say afterwards what they bill: a training ten seconds at least, three tenths of them on
spot; a Spark job a worker of 4 vCPU and 16 GB for a minute at least; a container of Batch the size it was given. A
cluster of EMR has one machine per unit that its fleets begin with, which live as long as it does; it ends with its
step. Nodes of a multi-node job run side by side (`moto_nodes.py`). Conditional writes are atomic (`moto_turns.py`).
What a container may not see, how a network fails, what a fleet does without spot capacity, and scaling are not
modelled.
"""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
from moto.batch.models import Job
from moto.core.responses import ActionResult
from moto.emr.models import Cluster, ElasticMapReduceBackend
from moto.emr.responses import ElasticMapReduceResponse
from moto.emrcontainers.models import EMRContainersBackend
from moto.emrserverless.models import EMRServerlessBackend
from moto.logs.models import logs_backends
from moto.s3.models import s3_backends
from moto.server import ThreadedMotoServer

import moto_nodes
import moto_stacks
import moto_training
import moto_transform
import moto_turns

ACCOUNT, REGION = "123456789012", "us-east-1"


class Machines:
    """Processes in place of machines."""

    def __init__(self, folder: Path, variables: Mapping[str, str]) -> None:
        self._folder, self._variables = folder, variables
        self._processes: dict[str, subprocess.Popen[str]] = {}

    def start(
        self,
        name: str,
        command: Sequence[str],
        *,
        variables: Mapping[str, str],
        home: Path,
        log: tuple[str, str],
        on_end: Callable[[int], None],
    ) -> None:
        """Run `command` until it ends; `on_end` gets its exit code."""
        home.mkdir(parents=True, exist_ok=True)
        words = [sys.executable if word == "python" else word for word in command]
        env = {**os.environ, **self._variables, **variables, "CLEARWAY__HOME": str(home)}
        process = subprocess.Popen(
            words, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=self._folder
        )
        self._processes[name] = process

        def follow() -> None:
            assert process.stdout is not None
            for line in process.stdout:
                put_line(*log, line.rstrip("\n"))
            on_end(process.wait())

        threading.Thread(target=follow, daemon=True).start()

    def stop(self, name: str) -> None:
        """As a machine goes: with everything on it."""
        if name not in self._processes:
            return
        with suppress(psutil.NoSuchProcess):  # it ends meanwhile
            for process in psutil.Process(self._processes[name].pid).children(recursive=True):
                process.kill()
        self._processes[name].terminate()

    def home_of(self, place: str) -> Path:
        """What a service keeps for a place in S3 comes back to the next job that names it."""
        return self._folder / "kept" / place.removeprefix("s3://").replace("/", "_")


_one_line = threading.Lock()


def put_line(group: str, stream: str, line: str) -> None:
    backend = logs_backends[ACCOUNT][REGION]
    with _one_line:  # machines write at the same time, and the first line makes the group
        if group not in backend.groups:
            backend.create_log_group(group, {})
        if stream not in backend.groups[group].streams:
            backend.create_log_stream(group, stream)
        event = {"timestamp": int(time.time() * 1000), "message": line}
        backend.put_log_events(group, stream, [event])


def fetched(machines: Machines, uri: str) -> Path:
    """A file of S3, as a machine has it."""
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    found = s3_backends[ACCOUNT]["aws"].get_object(bucket, key)
    assert found is not None, uri
    path = machines.home_of(uri)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(found.value)
    return path


def variables_of(properties: Mapping[str, str], prefix: str) -> dict[str, str]:
    """Of a Spark driver; without the interpreter of the archive, which a process of this machine has not."""
    found = {k.removeprefix(prefix): v for k, v in properties.items() if k.startswith(prefix)}
    return {k: v for k, v in found.items() if k not in {"PYSPARK_PYTHON", "PYSPARK_DRIVER_PYTHON"}}


def run_spark_jobs(machines: Machines) -> None:
    """start and cancel of EMR Serverless jobs that run; a token seen before gives the job it started."""
    start, cancel = EMRServerlessBackend.start_job_run, EMRServerlessBackend.cancel_job_run
    lock = threading.Lock()

    def start_job_run(self: Any, application_id: str, client_token: str, **asked: Any) -> Any:
        with lock:
            known = (run for run in self.job_runs.get(application_id, ()) if run.client_token == client_token)
            if (same := next(known, None)) is not None:
                return same
            run = start(self, application_id=application_id, client_token=client_token, **asked)
            run.state, run.billed_resource_utilization = "RUNNING", None
            run.started_at = datetime.now(UTC)
        driver = asked["job_driver"]["sparkSubmit"]
        overrides = asked["configuration_overrides"]
        properties = overrides["applicationConfiguration"][0]["properties"]
        logging = overrides["monitoringConfiguration"]["cloudWatchLoggingConfiguration"]

        def end(code: int) -> None:
            run.ended_at = datetime.now(UTC)
            hours = max(60.0, (run.ended_at - run.started_at).total_seconds()) / 3600
            run.billed_resource_utilization = {"vCPUHour": 4 * hours, "memoryGBHour": 16 * hours, "storageGBHour": 0.0}
            if run.state == "RUNNING":
                run.state, run.state_details = ("FAILED", f"exit code {code}") if code else ("SUCCESS", "")

        machines.start(
            run.id,
            ["python", str(fetched(machines, driver["entryPoint"])), *driver["entryPointArguments"]],
            variables=variables_of(properties, "spark.emr-serverless.driverEnv."),
            home=machines.home_of(run.id),
            log=(logging["logGroupName"], f"{logging['logStreamNamePrefix']}/SPARK_DRIVER/stdout"),
            on_end=end,
        )
        return run

    def cancel_job_run(self: Any, application_id: str, job_run_id: str) -> tuple[str, str]:
        answer = cancel(self, application_id, job_run_id)
        machines.stop(job_run_id)
        return answer

    EMRServerlessBackend.start_job_run = start_job_run
    EMRServerlessBackend.cancel_job_run = cancel_job_run


def run_pods(machines: Machines) -> None:
    """start and cancel of EMR's jobs on EKS that run; a token seen before gives the job it started."""
    start = EMRContainersBackend.start_job_run
    lock = threading.Lock()

    def start_job_run(self: Any, client_token: str, **asked: Any) -> Any:
        with lock:
            known = (run for run in self.job_runs.values() if run.client_token == client_token)
            if (same := next(known, None)) is not None:
                return same
            run = start(self, client_token=client_token, **asked)
            run.created_at, run.finished_at = datetime.now(UTC), None
        driver = asked["job_driver"]["sparkSubmitJobDriver"]
        overrides = asked["configuration_overrides"]
        logging = overrides["monitoringConfiguration"]["cloudWatchMonitoringConfiguration"]

        def end(code: int) -> None:
            run.finished_at = datetime.now(UTC)
            if run.state == "CANCEL_PENDING":
                run.state = "CANCELLED"
            elif code:
                run.state, run.failure_reason, run.state_details = "FAILED", "USER_ERROR", f"exit code {code}"
            else:
                run.state = "COMPLETED"

        machines.start(
            run.id,
            ["python", str(fetched(machines, driver["entryPoint"])), *driver["entryPointArguments"]],
            variables=variables_of(
                overrides["applicationConfiguration"][0]["properties"], "spark.kubernetes.driverEnv."
            ),
            home=machines.home_of(run.id),
            log=(logging["logGroupName"], f"{logging['logStreamNamePrefix']}/{run.id}/spark-driver/stdout"),
            on_end=end,
        )
        return run

    def cancel_job_run(self: Any, job_run_id: str, virtual_cluster_id: str) -> Any:
        run = self.describe_job_run(job_run_id, virtual_cluster_id)
        run.state = "CANCEL_PENDING"
        machines.stop(job_run_id)
        return run

    EMRContainersBackend.start_job_run = start_job_run
    EMRContainersBackend.cancel_job_run = cancel_job_run


def run_clusters(machines: Machines) -> None:
    """Clusters of EMR, each for one step: its driver runs as a process, and the cluster ends with it."""
    answer = ElasticMapReduceResponse.run_job_flow

    def run_job_flow(self: ElasticMapReduceResponse) -> ActionResult:
        answered = answer(self)
        cluster = self.backend.clusters[answered.result["JobFlowId"]]
        cluster.fleets = self._get_param("Instances.InstanceFleets", [])
        configurations = json.loads(self.body)["Configurations"]  # moto's own reading of them changes their keys
        logging = json.loads(self.body)["MonitoringConfiguration"]["CloudWatchLogConfiguration"]
        (step,) = cluster.steps
        place = next(number for number, word in enumerate(step.args) if word.startswith("s3://"))

        def end(code: int) -> None:
            step.end_date_time = datetime.now(UTC)
            if cluster.state == "TERMINATING":
                step.state = "CANCELLED"
            else:
                step.state = "FAILED" if code else "COMPLETED"
                step.last_state_change_reason = f"exit code {code}" if code else None
                cluster.last_state_change_reason = "Shut down as step failed" if code else "Steps completed"
            cluster.terminate()

        machines.start(
            step.id,
            ["python", str(fetched(machines, step.args[place])), *step.args[place + 1 :]],
            variables=variables_of(configurations[0]["Properties"], "spark.yarn.appMasterEnv."),
            home=machines.home_of(step.id),
            log=(logging["LogGroupName"], f"{logging['LogStreamNamePrefix']}/{step.id}/SPARK_DRIVER/stdout"),
            on_end=end,
        )
        return answered

    def terminate_job_flows(self: ElasticMapReduceBackend, job_flow_ids: list[str]) -> None:
        for cluster in (self.clusters[each] for each in job_flow_ids):
            if cluster.state not in {"TERMINATED", "TERMINATING"}:
                cluster.state, cluster.last_state_change_reason = "TERMINATING", "Terminated by user request"
                machines.stop(cluster.steps[0].id)

    def list_instances(self: ElasticMapReduceResponse) -> ActionResult:
        cluster: Cluster = self.backend.clusters[self._get_param("ClusterId")]
        found = [
            {
                "InstanceType": fleet["instance_type_configs"][0]["instance_type"],
                "Market": market,
                "Status": {
                    "State": "TERMINATED" if cluster.end_datetime else "RUNNING",
                    "Timeline": {"CreationDateTime": cluster.creation_datetime, "EndDateTime": cluster.end_datetime},
                },
            }
            for fleet in cluster.fleets
            for market, count in (
                ("ON_DEMAND", fleet.get("target_on_demand_capacity", 0)),
                ("SPOT", fleet.get("target_spot_capacity", 0)),
            )
            for _ in range(int(count))
        ]
        return ActionResult({"Instances": found})

    ElasticMapReduceResponse.run_job_flow = run_job_flow
    ElasticMapReduceResponse.list_instances = list_instances
    ElasticMapReduceBackend.terminate_job_flows = terminate_job_flows


def run_containers(machines: Machines) -> None:
    """Batch jobs that run as a process instead of a container."""

    def run(self: Any) -> None:
        if self.job_definition.type == "multinode":
            moto_nodes.run(self, machines)
            return
        environment = {e["name"]: e["value"] for e in self.container_overrides.get("environment", [])}
        self.log_stream_name = self._stream_name
        self.job_started_at = datetime.now()  # noqa: DTZ005 - as moto keeps it
        self.status = "RUNNING"
        done = threading.Event()
        codes: list[int] = []

        def end(code: int) -> None:
            codes.append(code)
            done.set()

        machines.start(
            self.job_id,
            self.container_overrides["command"],
            variables=environment,
            home=machines.home_of(self.job_id),
            log=(self._log_group, self._stream_name),
            on_end=end,
        )
        while not done.wait(0.05):
            if self.stop:
                machines.stop(self.job_id)
                done.wait()
        self.exit_code = codes[0]
        if codes[0] and not self.job_stopped_reason:
            self.job_stopped_reason = f"Essential container in task exited (exit code {codes[0]})"
        self._mark_stopped(success=codes[0] == 0)

    details = Job._container_details

    def sized(self: Any) -> dict[str, Any]:
        return details(self) | {"resourceRequirements": self.container_overrides.get("resourceRequirements", [])}

    moto_nodes.add()
    Job.run = run
    Job._container_details = sized


def main(port: int, folder: Path) -> None:
    variables = json.loads(os.environ.get("MACHINE_VARIABLES", "{}"))
    machines = Machines(folder, variables)
    moto_training.add(machines)
    moto_transform.add(machines)
    run_spark_jobs(machines)
    run_pods(machines)
    run_clusters(machines)
    run_containers(machines)
    moto_stacks.add()
    moto_turns.add()
    ThreadedMotoServer(ip_address="127.0.0.1", port=port, verbose=False).start()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    threading.Event().wait()


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
