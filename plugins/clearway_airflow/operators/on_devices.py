"""A stage on shared devices: starts when that delays nobody more urgent, and makes room when told to."""

from datetime import UTC, datetime, timedelta
from time import monotonic
from typing import TYPE_CHECKING, Any

from airflow.sdk import Context
from airflow.sdk.exceptions import AirflowRescheduleException

from clearway.devices.want import Want, pool_of
from clearway_airflow.device_priority import DevicePriority
from clearway_airflow.operators.stage import StageOperator

if TYPE_CHECKING:
    from clearway.devices.desk import Desk
    from clearway.devices.sharing import Ask

# ruff: noqa: PLC0415 - see stage.py

# A task in any other state has no use for devices any more; None: Airflow has made the run, and not looked at it yet.
_WAITING = frozenset({None, "scheduled", "queued", "running", "up_for_retry", "up_for_reschedule", "restarting"})


class DeviceStageOperator(StageOperator):
    """Runs one stage on slots of its product's device class.

    Airflow's pool offers slots; the desk says whether the offer may be taken. A job that has to make room is stopped
    with a checkpoint, and its task is rescheduled: that costs it no retry. A preemptible one never defers: whoever
    watches the job is told to make room.
    """

    def __init__(self, *, want: Want, **kwargs: Any) -> None:
        kwargs.setdefault("pool", pool_of(want.device))
        kwargs.setdefault("pool_slots", want.slots)
        kwargs.setdefault("weight_rule", DevicePriority())
        super().__init__(**kwargs)
        self.want = want
        self._next_look_s = 0.0

    def ask_ahead(self, context: Context) -> None:
        """Wait from now on: the stage before this one has passed."""
        self._desk(context).ask(self._ask_id(context), self.want, task=self._task(context))

    def submit_job(self, context: Context) -> Any:
        """Start the job, unless the slots have to be given back."""
        desk = self._desk(context)
        mine = desk.ask(self._ask_id(context), self.want, task=self._task(context))
        if refused := desk.refusal(mine):
            self.log.info("gives its slots back: %s", refused)
            raise self._comes_back()
        external_id = super().submit_job(context)
        desk.hold(mine, external_id["id"])
        return external_id

    def poll_until_complete(self, external_id: Any, context: Context) -> Any:
        """Watch a preemptible job here, whatever `jobs.deferrable` says."""
        if self.want.is_preemptible:
            return self._watch(external_id["id"], context)
        return super().poll_until_complete(external_id, context)

    def _watch(self, job_id: str, context: Context) -> str:
        from clearway.infra.jobs import JobState

        try:
            return super()._watch(job_id, context)
        finally:
            if self._runner().state(job_id) is not JobState.RUNNING:
                self._desk(context).leave(job_id)

    def _stop_if_told(self, job_id: str, context: Context) -> None:
        super()._stop_if_told(job_id, context)
        if not self.want.is_preemptible or monotonic() < self._next_look_s:
            return
        self._next_look_s = monotonic() + self._env.devices.look_s
        if self._desk(context).must_yield(job_id):
            self._make_room(job_id, context)

    def _make_room(self, job_id: str, context: Context) -> None:
        """Checkpoint, stop, wait again; a job that ended just now has its result and simply goes on."""
        from clearway.infra.jobs import JobState

        self.log.warning("makes room for a more urgent job: %s is told to checkpoint and stop", job_id)
        self._runner().cancel(job_id, grace_s=self._env.devices.grace_s)
        if self._runner().state(job_id) is JobState.SUCCEEDED:
            return
        self._desk(context).leave(job_id, will_return=True)
        raise self._comes_back()

    def _comes_back(self) -> AirflowRescheduleException:
        wait = timedelta(seconds=self._env.devices.return_s)
        return AirflowRescheduleException(datetime.now(UTC) + wait)

    def _longest_s(self) -> float:
        longest_s = super()._longest_s()
        return min(longest_s, self.want.max_minutes * 60) if self.want.max_minutes else longest_s

    def _ask_id(self, context: Context) -> str:
        from clearway_airflow.requests import run_name

        return f"{self.stage}-{run_name(context)}"

    def _task(self, context: Context) -> tuple[str, str, str]:
        return context["ti"].dag_id, context["ti"].run_id, self.task_id

    def _desk(self, context: Context) -> "Desk":
        from clearway.devices.desk import Desk
        from clearway.infra.clock import SystemClock
        from clearway.infra.environment import Environment
        from clearway.infra.jobs import JobState, open_jobs

        env = Environment.load()
        jobs = open_jobs(env)

        def is_waiting(ask: "Ask") -> bool:
            dag_id, run_id, task_id = ask.task
            states = context["ti"].get_task_states(dag_id=dag_id, task_ids=[task_id], run_ids=[run_id])
            return states.get(run_id, {}).get(task_id, "gone") in _WAITING

        return Desk(
            env,
            self.want.device,
            clock=SystemClock(),
            is_waiting=is_waiting,
            is_running=lambda job_id: jobs.state(job_id) is JobState.RUNNING,
        )
