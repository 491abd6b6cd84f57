"""Who may start and who makes room: pure functions over what waits and what runs on one device class.

Airflow's pool hands out slots: highest weight first, and whatever fits. A job that needs many slots can therefore wait
for ever behind small ones that fit beside each other. Two rules answer that. The job that comes first is protected: a
job behind it starts only if that cannot delay it (EASY backfill: Lifka 1995; Mu'alem and Feitelson 2001). And jobs
that allow it make room for one that is clearly more urgent, all that are needed or none.
"""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """A job that wants devices.

    Args:
        id: one name per run and stage, the same when it comes back after making room.
        task: the orchestrator's names of the task that waits: DAG, run, task.
        slots: all of them, or none.
        priority: [0, 1], read once, when it first asks.
        asked_s: Unix seconds.
        max_run_s: it ends within this, or is stopped; 0: nobody knows.
        num_yields: how often it has made room already.
    """

    id: str
    task: tuple[str, str, str]
    product: str
    team: str
    slots: int
    priority: float
    asked_s: float
    max_run_s: float = 0.0
    is_preemptible: bool = False
    num_yields: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """A job on its devices since `started_s`."""

    ask: Ask
    job_id: str
    started_s: float

    @property
    def last_s(self) -> float:
        """When it has ended at the latest."""
        return self.started_s + self.ask.max_run_s if self.ask.max_run_s else math.inf


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """How one device class is shared.

    Args:
        slots: how many there are, as in Airflow's pool.
        margin: a job makes room only for one that is at least this much more urgent, so that two never take turns.
        min_run_s: nobody is asked before it ran this long: start-up and checkpoint must be worth it.
        max_yields: after making room this often, a job stays to its end.
    """

    slots: int
    margin: float
    min_run_s: float
    max_yields: int


def rank(ask: Ask) -> tuple[float, float, str]:
    """Order of service: priority, then who asked first."""
    return -ask.priority, ask.asked_s, ask.id


def free_slots(held: Sequence[Held], rules: Rules) -> int:
    """Slots that nobody holds."""
    return rules.slots - sum(h.ask.slots for h in held)


def refusal(
    mine: Ask, *, asks: Sequence[Ask], held: Sequence[Held], leaving: Collection[str], rules: Rules, now_s: float
) -> str:
    """Why `mine`, which Airflow has just offered slots, has to give them back; empty if it may start.

    Args:
        asks: what waits, with or without `mine`.
        leaving: ids of the jobs that were asked to make room.
    """
    free = free_slots(held, rules)
    if mine.slots > free:
        return f"{mine.slots} slots asked for, {free} free"
    first = min([mine, *asks], key=rank)
    if first.id == mine.id or first.slots + mine.slots <= free:
        return ""
    start_s, spare = reservation(first, held=held, leaving=leaving, rules=rules, now_s=now_s)
    if math.isfinite(start_s) and (mine.slots <= spare or (mine.max_run_s and now_s + mine.max_run_s <= start_s)):
        return ""
    return f"{mine.slots} slots would delay {first.id}, which waits for {first.slots} at priority {first.priority:.2f}"


def reservation(
    first: Ask, *, held: Sequence[Held], leaving: Collection[str], rules: Rules, now_s: float
) -> tuple[float, int]:
    """When `first` can start at the latest, and how many slots are free beside it then; infinity if nobody knows."""
    free = free_slots(held, rules)
    if free >= first.slots:
        return now_s, free - first.slots
    ends = sorted((now_s if h.job_id in leaving else max(now_s, h.last_s), h.job_id, h.ask.slots) for h in held)
    for end_s, _, slots in ends:
        free += slots
        if free >= first.slots:
            return end_s, free - first.slots
    return math.inf, 0


def victims(
    *, asks: Sequence[Ask], held: Sequence[Held], leaving: Collection[str], rules: Rules, now_s: float
) -> tuple[Held, ...]:
    """Jobs that make room now for the job that comes first: all that are needed, or none.

    The least urgent goes first, then whoever started last. Jobs already leaving count as gone, so that nobody is asked
    in their place, and none of them is asked twice.
    """
    if not asks:
        return ()
    first = min(asks, key=rank)
    staying = [h for h in held if h.job_id not in leaving]
    missing = first.slots - free_slots(staying, rules)
    chosen: list[Held] = []
    for job in sorted(staying, key=lambda h: (h.ask.priority, -h.started_s, h.job_id)):
        if missing > 0 and _can_yield(job, first, rules, now_s):
            chosen.append(job)
            missing -= job.ask.slots
    if missing > 0:
        return ()
    for job in reversed(list(chosen)):  # spare the most urgent of those that turn out not to be needed
        if missing + job.ask.slots <= 0:
            chosen.remove(job)
            missing += job.ask.slots
    return tuple(chosen)


def _can_yield(job: Held, first: Ask, rules: Rules, now_s: float) -> bool:
    return (
        job.ask.is_preemptible
        and job.ask.priority + rules.margin <= first.priority
        and now_s - job.started_s >= rules.min_run_s
        and job.ask.num_yields < rules.max_yields
    )
