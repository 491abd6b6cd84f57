"""Wait for a job, handing its log on line by line."""

import logging
from collections.abc import Callable

from clearway.contracts.errors import JobFailed
from clearway.infra.clock import Clock
from clearway.infra.jobs import JobRunner, JobState

LOG = logging.getLogger("clearway.jobs")


def wait_for(
    runner: JobRunner,
    job_id: str,
    *,
    clock: Clock,
    poll_s: float,
    max_seconds: float,
    on_log: Callable[[str], None],
    on_wait: Callable[[], None] = lambda: None,
) -> str:
    """JSON text of the stage's Outputs.

    Args:
        max_seconds: longest wait; then the job is cancelled and the wait fails, so that a hung job cannot hold a slot.
        on_log: receives each log line as it appears.
        on_wait: called between two looks at the job; may raise to stop waiting.

    Raises: JobFailed, or whatever error the stage recorded.
    """
    offset, end_s = 0, clock.now_s() + max_seconds
    while runner.state(job_id) is JobState.RUNNING:
        offset = _hand_on(runner, job_id, offset, on_log)
        if clock.now_s() > end_s:
            runner.cancel(job_id)
            raise JobFailed(f"job {job_id} ran longer than {max_seconds:.0f} s and was stopped; raise jobs.max_seconds")
        on_wait()
        clock.sleep(poll_s)
    _hand_on(runner, job_id, offset, on_log)
    return runner.result(job_id)


def _hand_on(runner: JobRunner, job_id: str, offset: int, on_log: Callable[[str], None]) -> int:
    text, offset = runner.read_log(job_id, offset)
    for line in text.splitlines():
        on_log(line)
    return offset
