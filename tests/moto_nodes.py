"""Multi-node parallel jobs of Batch that run, for tests/moto_server.py.

A process per node. The main node is started first, the others once it runs; each has the variables that tell a node its
place. The job ends as its main node does, and takes the others with it; a node that ends alone is nobody's business.
All have the address 127.0.0.1. Capacity, placement and images are not modelled.
"""

import threading
from datetime import datetime
from typing import Any

from moto.batch.models import BatchBackend, Job
from moto.batch.responses import BatchResponse

_asked = threading.local()


def add() -> None:
    """Have moto keep what was asked of nodes, and describe jobs and single nodes with it."""
    submit, make, describe_all = BatchResponse.submitjob, Job.__init__, BatchBackend.describe_jobs
    describe = Job.describe

    def submitjob(self: BatchResponse) -> str:
        _asked.nodes = self._get_param("nodeOverrides")
        return submit(self)

    def made(self: Job, *args: Any, **options: Any) -> None:
        make(self, *args, **options)
        self.node_overrides = getattr(_asked, "nodes", None)

    def described(self: Job) -> dict[str, Any]:
        found = describe(self)
        if self.job_definition.type == "multinode":
            found.pop("container", None)  # what a job of several containers has not
            (override,) = self.node_overrides["nodePropertyOverrides"]
            (node,) = found["nodeProperties"]["nodeRangeProperties"]
            merged = {**node, "container": {**node["container"], **override["containerOverrides"]}}
            count = {"numNodes": self.node_overrides["numNodes"], "nodeRangeProperties": [merged]}
            found["nodeProperties"] = {**found["nodeProperties"], **count}
        return found

    def describe_jobs(self: BatchBackend, jobs: list[str] | None) -> list[dict[str, Any]]:
        found = []
        for asked in jobs or ():
            job, _, node = asked.partition("#")
            for one in describe_all(self, [job]):
                stream = f"{self._jobs[job]._stream_name}/{node}"
                found.append(one | {"jobId": asked, "container": {"logStreamName": stream}} if node else one)
        return found

    BatchResponse.submitjob, Job.__init__, Job.describe = submitjob, made, described
    BatchBackend.describe_jobs = describe_jobs


def run(job: Any, machines: Any) -> None:
    """In place of a job's own thread."""
    override, count = (
        job.node_overrides["nodePropertyOverrides"][0]["containerOverrides"],
        job.node_overrides["numNodes"],
    )
    main, done, codes = job.job_definition.node_properties["mainNode"], threading.Event(), dict[int, int]()
    assert job.job_definition.node_properties["nodeRangeProperties"][0]["targetNodes"].endswith(":"), "no open range"

    def start(node: int) -> None:
        own = {
            "AWS_BATCH_JOB_NUM_NODES": count,
            "AWS_BATCH_JOB_MAIN_NODE_INDEX": main,
            "AWS_BATCH_JOB_NODE_INDEX": node,
        }
        if node != main:
            own["AWS_BATCH_JOB_MAIN_NODE_PRIVATE_IPV4_ADDRESS"] = "127.0.0.1"
        given = {each["name"]: each["value"] for each in override["environment"]}
        assert not any(name.startswith("AWS_BATCH") for name in given), "Batch keeps these names for itself"

        def end(code: int) -> None:
            codes[node] = code
            if node == main:
                done.set()

        machines.start(
            f"{job.job_id}#{node}",
            override["command"],
            variables=given | {name: str(value) for name, value in own.items()},
            home=machines.home_of(f"{job.job_id}/{node}"),
            log=(job._log_group, f"{job._stream_name}/{node}"),
            on_end=end,
        )

    job.log_stream_name = f"{job._stream_name}/{main}"
    job.job_started_at, job.status = datetime.now(), "RUNNING"  # noqa: DTZ005 - as moto keeps it
    for node in sorted(range(count), key=lambda number: number != main):
        start(node)
    while not done.wait(0.05):
        if job.stop:
            machines.stop(f"{job.job_id}#{main}")
            done.wait()
    for node in range(count):
        if node not in codes:
            machines.stop(f"{job.job_id}#{node}")
    job.exit_code = codes[main]
    if codes[main] and not job.job_stopped_reason:
        job.job_stopped_reason = f"Essential container in task exited (exit code {codes[main]})"
    job._mark_stopped(success=codes[main] == 0)
