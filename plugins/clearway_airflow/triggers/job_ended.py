"""Wait for a job in the triggerer, so that its task holds no worker slot meanwhile."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

# Core modules are imported inside methods: the triggerer serves other triggers too.
# ruff: noqa: PLC0415


class JobEnded(BaseTrigger):
    """Fires once a job is no longer running, or after its longest time; the task then reads its result.

    Args:
        poll_s: seconds between two looks.
        max_seconds: longest wait; then the job is cancelled, so that a hung one cannot wait for ever.
    """

    def __init__(self, *, job_id: str, poll_s: float, max_seconds: float) -> None:
        super().__init__()
        self.job_id, self.poll_s, self.max_seconds = job_id, poll_s, max_seconds

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """What another triggerer needs to go on."""
        values = {"job_id": self.job_id, "poll_s": self.poll_s, "max_seconds": self.max_seconds}
        return f"{type(self).__module__}.{type(self).__qualname__}", values

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """One event, naming the job."""
        from clearway.infra.jobs import JobState

        runner = await asyncio.to_thread(_runner)
        waited_s = 0.0
        while await asyncio.to_thread(runner.state, self.job_id) is JobState.RUNNING:
            if waited_s > self.max_seconds:
                await self.on_kill()
                break
            await asyncio.sleep(self.poll_s)
            waited_s += self.poll_s
        yield TriggerEvent({"job_id": self.job_id})

    async def on_kill(self) -> None:
        """A person ended the task: the job ends with it. A triggerer that only restarts never comes here."""
        runner = await asyncio.to_thread(_runner)
        await asyncio.to_thread(runner.cancel, self.job_id)


def _runner() -> Any:
    from clearway.infra.environment import Environment
    from clearway.infra.jobs import open_jobs

    return open_jobs(Environment.load())
