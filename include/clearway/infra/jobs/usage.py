"""What an attempt of a job used: hours of things that have a price, and what the stage measured of itself."""

import os
import resource
import time
from dataclasses import dataclass

S_PER_HOUR = 3600.0
# What a price is asked for, besides names of machines (`ml.m7i.large`).
LOCAL = "local"
EMR_VCPU, EMR_GB = "emr_serverless.vcpu", "emr_serverless.gb"
EKS_VCPU, EKS_GB = "emr_eks.vcpu", "emr_eks.gb"
EMR_PART = "emr"  # as in `emr.m5.xlarge`: what EMR asks for, beside the machine itself
BATCH_VCPU, BATCH_GB = "batch.vcpu", "batch.gb"

# A worker of EMR Serverless as Spark asks for it unless told otherwise: 4 vCPU, 14 GB and a tenth, rounded up.
EMR_WORKER_VCPUS, EMR_WORKER_GB = 4, 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Used:
    """Hours of one thing: as billed, and as they would have been billed without spot."""

    what: str
    hours: float
    full_hours: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What the process of a stage and its children took of their machine. `peak_gb`: of the process plus its largest
    child; what executors on other machines took is not in it."""

    wall_s: float
    cpu_s: float
    num_cpus: int
    peak_gb: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Of one attempt that has ended.

    Args:
        used: empty if it never ran, or if nothing is known any more; then `note` says so.
    """

    job_id: str
    service: str
    has_succeeded: bool
    begin_s: float
    end_s: float
    used: tuple[Used, ...]
    note: str = ""
    measured: Measured | None = None


class Gauge:
    """Measures this process and its children from here on."""

    def __init__(self) -> None:
        self._begin_s, self._begin_cpu_s = time.monotonic(), _cpu_s()

    def read(self) -> Measured:
        """Until now."""
        own, children = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
        return Measured(
            wall_s=time.monotonic() - self._begin_s,
            cpu_s=_cpu_s() - self._begin_cpu_s,
            num_cpus=len(os.sched_getaffinity(0)),
            peak_gb=(own.ru_maxrss + children.ru_maxrss) / 2**20,  # Linux counts them in KiB
        )


def _cpu_s() -> float:
    spent = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(used.ru_utime + used.ru_stime for used in spent)
