"""Which weeks to play next and when to stop: pure functions; and the loop that plays them through the DAGs."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from time import monotonic, sleep

from clearway.contracts.errors import JobFailed, Unavailable
from clearway.infra.clock import format_instant
from clearway.launch.airflow_api import AirflowApi, OnTasks, Run
from clearway.product import Batch

logger = logging.getLogger("clearway.launch")

# After a retrained model was promoted, its labels need a week to arrive and one more to be judged.
WEEKS_AFTER_RETRAINING = 2
# Without `--weeks` the replay ends here at the latest: nothing else would where no retrained model is promoted, as
# while a feed is silent. On flights the first retraining is decided after six weeks.
MAX_DEFAULT_WEEKS = 12
# A source that delivers nothing this often in a row has ended (or is broken, which a person should look at).
MAX_REFUSED_IN_A_ROW = 3
RELEASE_TIMEOUT_S = 1800.0
BATCH_TIMEOUT_S = 600.0
# The scheduler turns an asset event into a run within a second or two; a queue before it may add a whole run.
CREATED_TIMEOUT_S = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Played:
    """One batch: what became of it.

    Args:
        is_landed: False when ingest refused it (quarantine) or the source has no more.
        seconds: from asking for ingest to the end of monitor, by Airflow's own clock.
        retrain: whether monitor asked for a retraining.
        released: run id of the release that followed, or "".
        is_promoted: whether that release's model took the traffic.
        closed_s: seconds from asking for ingest to the end of that release; None unless it was promoted.
    """

    batch_id: str
    is_landed: bool
    seconds: float
    retrain: bool = False
    released: str = ""
    is_promoted: bool = False
    closed_s: float | None = None


def batch_ids(batch: Batch, *, first_end: datetime) -> Iterator[str]:
    """Batches after the first release's data, without end."""
    start = first_end
    while True:
        yield batch.batch_id(start)
        start = batch.end_of(start)


def is_enough(played: list[Played], *, weeks: int | None) -> bool:
    """Whether to stop: after `weeks` batches, or by default once a retrained model has served WEEKS_AFTER_RETRAINING,
    at the latest after MAX_DEFAULT_WEEKS.

    Stops in any case when the source refused MAX_REFUSED_IN_A_ROW batches in a row.
    """
    last = played[-MAX_REFUSED_IN_A_ROW:]
    if len(last) == MAX_REFUSED_IN_A_ROW and not any(p.is_landed for p in last):
        return True
    if weeks is not None:
        return len(played) >= weeks
    if len(played) >= MAX_DEFAULT_WEEKS:
        return True
    promoted = [i for i, p in enumerate(played) if p.is_promoted]
    return bool(promoted) and sum(p.is_landed for p in played[promoted[0] + 1 :]) >= WEEKS_AFTER_RETRAINING


class Loop:
    """Drives one product's DAGs as the clock of a live system would."""

    def __init__(self, api: AirflowApi, product: str, *, on_tasks: OnTasks) -> None:
        self._api, self._product, self._on_tasks = api, product, on_tasks

    def release(self, run_id: str, *, as_of: datetime | None, note: str) -> Run:
        """A release by hand, to its end. Raises: JobFailed if the run fails."""
        conf = {"as_of": format_instant(as_of)} if as_of else {}
        return self._play(self._dag("release"), run_id, conf=conf, note=note, timeout_s=RELEASE_TIMEOUT_S)

    def batch(self, batch_id: str) -> Played:
        """Land one batch and follow what it causes: monitoring, and a release if retraining was decided."""
        ingest = self._play(
            self._dag("ingest"),
            f"replay-{batch_id}",
            conf={"batch_id": batch_id},
            note="replayed by `python -m clearway replay`",
            timeout_s=BATCH_TIMEOUT_S,
        )
        monitors = self._follow(ingest, self._dag("monitor"))
        seconds = _span_s(ingest, *monitors)
        if not monitors:
            return Played(batch_id=batch_id, is_landed=False, seconds=seconds)
        releases = [r for m in monitors for r in self._follow(m, self._dag("release"))]
        released = releases[-1] if releases else None
        is_promoted = released is not None and self.is_promoted(released)
        return Played(
            batch_id=batch_id,
            is_landed=True,
            seconds=seconds,
            retrain=bool(releases),
            released=released.run_id if released else "",
            is_promoted=is_promoted,
            closed_s=_span_s(ingest, *monitors, *releases) if is_promoted else None,
        )

    def is_promoted(self, release: Run) -> bool:
        """Whether a release ended with its model in the traffic."""
        outputs = self._api.outputs(release.dag_id, release.run_id, "deploy")
        return outputs is not None and outputs.get("verdict") == "pass"

    def _dag(self, verb: str) -> str:
        return f"{self._product}_{verb}"

    def _play(self, dag_id: str, run_id: str, *, conf: dict[str, str], note: str, timeout_s: float) -> Run:
        run = self._api.trigger(dag_id, run_id, conf=conf, note=note)
        if run.state == "success":
            return run
        if run.state == "failed":
            logger.info("run %s of %s failed before; its failed tasks run again", run_id, dag_id)
            self._api.clear_failed(dag_id, run_id)
            run = self._api.run(dag_id, run_id)
        return self._ended(run, timeout_s=timeout_s)

    def _ended(self, run: Run, *, timeout_s: float) -> Run:
        ended = self._api.wait(run, on_tasks=self._on_tasks, timeout_s=timeout_s)
        if ended.state != "success":
            failed = [t.task_id for t in self._api.tasks(run.dag_id, run.run_id) if t.state == "failed"]
            raise JobFailed(
                f"run {run.run_id!r} of {run.dag_id!r} failed in {failed or 'no task'}; its log is in the Airflow UI;"
                " the same command again repeats only what failed"
            )
        return ended

    def _follow(self, run: Run, dag_id: str) -> list[Run]:
        """Runs of `dag_id` that the asset events of `run` started, each to its end."""
        deadline = monotonic() + CREATED_TIMEOUT_S
        while True:
            wanted = [e for e in self._api.events_of(run.dag_id, run.run_id) if e.asset_name in self._causes(dag_id)]
            created = {r for e in wanted for d, r in e.created if d == dag_id}
            if not wanted or created:
                break
            if monotonic() > deadline:
                raise Unavailable(f"no run of {dag_id!r} followed {run.run_id!r} in {CREATED_TIMEOUT_S:.0f} s")
            sleep(0.3)
        followers = [self._api.run(dag_id, r) for r in sorted(created)]
        return [f if f.state == "success" else self._ended(f, timeout_s=RELEASE_TIMEOUT_S) for f in followers]

    def _causes(self, dag_id: str) -> set[str]:
        asset = {"monitor": "batches", "release": "retrain"}[dag_id.removeprefix(f"{self._product}_")]
        return {f"{self._product}_{asset}"}


def _span_s(first: Run, *others: Run) -> float:
    begin = first.queued or first.started
    ends = [r.ended for r in (first, *others) if r.ended]
    return (max(ends) - begin).total_seconds() if begin and ends else 0.0
