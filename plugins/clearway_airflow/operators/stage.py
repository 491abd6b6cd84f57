"""The operator under all stages: a job that outlives its task process."""

from datetime import timedelta
from typing import Any, ClassVar

from airflow.sdk import BaseOperator, Context, ResumableJobMixin, SkipMixin
from airflow.sdk.exceptions import AirflowException

# Core modules are imported inside methods: every task process parses the DAG file, only this task runs the stage.
# ruff: noqa: PLC0415

# A crash of the task process costs one retry; the job it watched goes on meanwhile.
RETRIES = 3
RETRY_DELAY = timedelta(seconds=3)


# Of the task state store: the most tries that the task had when it passed. Whoever clears a task gives it more of them.
PASSED_BELOW = "clearway_passed_below"


class StageOperator(ResumableJobMixin, BaseOperator, SkipMixin):
    """Runs one stage as a job, watches it, and hands its Outputs on.

    The job id is kept in the task state store before the first poll, so a retry after a crash finds the running job. It
    is kept with the job's key, which holds a digest of the Inputs: a task cleared because its inputs changed starts a
    new job, and so does a task cleared after it succeeded (the epoch rises with every success). A try whose success
    Airflow never learned of, since its worker died or was taken for dead, is no such one: the next takes its result.

    Args:
        product: name of the product.
        chain: `release` or `batch`, the chain this task is a step of.
    """

    external_id_key = "clearway_job"
    stage: ClassVar[str]
    ui_color = "#e8f1f8"

    def __init__(self, *, product: str, chain: str, **kwargs: Any) -> None:
        kwargs.setdefault("task_id", self.stage)
        kwargs.setdefault("retries", RETRIES)
        kwargs.setdefault("retry_delay", RETRY_DELAY)
        super().__init__(**kwargs)
        self.product = product
        self.chain = chain
        self._is_told_to_stop = False

    def execute(self, context: Context) -> dict[str, Any] | None:
        """Run the stage; the Outputs are the task's return value."""
        from clearway_airflow.outcomes import conclude, translated

        with translated(self.stage):
            self._prepare(context)
            if refused := self._refusal():
                return conclude(self, context, refused)
            return self._conclude(context, self.execute_resumable(context))

    def execute_after_job(self, context: Context, event: dict[str, Any]) -> dict[str, Any] | None:
        """The same, once the job that the task was deferred for has ended."""
        from clearway_airflow.outcomes import translated

        with translated(self.stage):
            self._prepare(context)
            return self._conclude(context, self._watch(str(event["job_id"]), context))

    def make_inputs(self, context: Context) -> Any:
        """The stage's Inputs, from the request and earlier Outputs."""
        from clearway.release import BATCH, RELEASE, step_of
        from clearway_airflow.handoff import pull_outputs, pull_request

        steps = RELEASE if self.chain == "release" else BATCH
        step = step_of(steps, self.stage)
        return step.build(pull_request(context, first_task=steps[0].name), *pull_outputs(context, step.needs))

    # --- ResumableJobMixin: submit, watch, re-attach

    def submit_job(self, context: Context) -> Any:  # noqa: ARG002 - the mixin names the arguments
        """Start the job, or find the one that runs under the same key."""
        job_id = self._runner().submit(self._spec)
        self.log.info("job %s of %s submitted", job_id, self.stage)
        return {"key": self._spec.key, "id": job_id}

    def get_job_status(self, external_id: Any, context: Context) -> str:  # noqa: ARG002
        """State of the job; FAILED for one of other inputs, so that a new one is started."""
        is_ours = external_id["key"] == self._spec.key
        return str(self._runner().state(external_id["id"])) if is_ours else "failed"

    def is_job_active(self, status: str) -> bool:
        """Whether to re-attach."""
        return status == "running"

    def is_job_succeeded(self, status: str) -> bool:
        """Whether the result is there."""
        return status == "succeeded"

    def poll_until_complete(self, external_id: Any, context: Context) -> Any:
        """Wait until the job ends, here or in the triggerer; returns JSON text of the Outputs."""
        from clearway_airflow.triggers.job_ended import JobEnded

        jobs, job_id = self._env.jobs, external_id["id"]
        if jobs.deferrable:
            trigger = JobEnded(job_id=job_id, poll_s=jobs.poll_s, max_seconds=self._longest_s())
            self.defer(trigger=trigger, method_name="execute_after_job")
        return self._watch(job_id, context)

    def get_job_result(self, external_id: Any, context: Context) -> str:  # noqa: ARG002
        """JSON text of the Outputs."""
        return str(self._runner().result(external_id["id"]))

    def on_kill(self) -> None:
        """Called from a signal handler, for a person's stop and for a shutdown alike: only take note."""
        self._is_told_to_stop = True

    def ask_ahead(self, context: Context) -> None:
        """Called when the stage before this one has passed; for stages that need something reserved."""

    def _longest_s(self) -> float:
        return self._spec.max_seconds or self._env.jobs.max_seconds

    def _refusal(self) -> Any:
        """Why the job may not start, or None; then it has a time limit that the release can pay for."""
        from clearway.infra.clock import SystemClock

        admission = self._purse.admit(self._spec, now_s=SystemClock().now_s())
        self._spec = admission.spec
        return admission.refused

    def _watch(self, job_id: str, context: Context) -> str:
        """Copy the job's log into the task's until the job ends; JSON text of the Outputs."""
        from clearway.infra.clock import SystemClock
        from clearway.infra.jobs.wait import wait_for

        return wait_for(
            self._runner(),
            job_id,
            clock=SystemClock(),
            poll_s=self._env.jobs.poll_s,
            max_seconds=self._longest_s(),
            on_log=lambda line: self.log.info("%s", line),
            on_wait=lambda: self._stop_if_told(job_id, context),
        )

    def _conclude(self, context: Context, text: str) -> dict[str, Any] | None:
        from clearway.release import parse_outputs
        from clearway_airflow.outcomes import advances, conclude

        self._purse.settle(self._spec)
        outputs = parse_outputs(self.stage, text)
        context["task_state_store"].set("clearway_epoch", self._epoch(context) + 1)
        value = conclude(self, context, outputs)
        context["task_state_store"].set(PASSED_BELOW, context["ti"].max_tries)
        for following in self.downstream_list if advances(self.stage, outputs) else ():
            if isinstance(following, StageOperator):
                following.ask_ahead(context)
        return value

    def _stop_if_told(self, job_id: str, context: Context) -> None:
        """End the job if a person ended the task; leave it alone if only this process has to go."""
        if not self._is_told_to_stop:
            return
        ti = context["ti"]
        states = ti.get_task_states(dag_id=ti.dag_id, task_ids=[ti.task_id], run_ids=[ti.run_id])
        if states.get(ti.run_id, {}).get(ti.task_id) == "running":
            raise AirflowException(f"this process has to stop; job {job_id} goes on and the next try re-attaches")
        self._runner().cancel(job_id)
        raise AirflowException(f"task was stopped by a person; job {job_id} was stopped with it")

    def _prepare(self, context: Context) -> None:
        from clearway.infra.environment import Environment
        from clearway.product_yaml import find_product
        from clearway.release import BATCH, RELEASE, job_spec, purse_of

        self._env = Environment.load()
        self._spec = job_spec(self.stage, self.make_inputs(context), epoch=self._epoch(context))
        product, steps = find_product(self._env.products, self.product), RELEASE if self.chain == "release" else BATCH
        self._purse = purse_of(self._env, product, steps, runner=self._runner())

    def _epoch(self, context: Context) -> int:
        store = context["task_state_store"]
        is_a_retry = store.get(PASSED_BELOW, -1) == context["ti"].max_tries
        return int(str(store.get("clearway_epoch", 0))) - int(is_a_retry)

    def _runner(self) -> Any:
        from clearway.infra.jobs import open_jobs

        return open_jobs(self._env)
