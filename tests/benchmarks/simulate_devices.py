"""100 GPUs and their queue under four policies: utilization, and who waits how long.

    python tests/benchmarks/simulate_devices.py [--seeds 10] [--picture docs/images/devices.svg]

JSON lines on stdout, one per scenario, policy and class of job; means over seeds, waits in minutes. Priorities, starts
and preemptions are the shipping functions of clearway.devices; `pick` is Airflow's pool (tests/plugins/
test_airflow_pools.py holds it equal to the real scheduler). Time moves in steps of 30 s.

    quotas      a pool per team, sized by what it reserves: 40, 30, 20 and 10; highest weight that fits
    fifo        one pool, strictly in order of arrival
    pool        one pool, Airflow alone: highest weight first, then whatever fits
    clearway    the same pool, with the desk: protected first job, backfill, preemption

Scenarios: `week`: four teams that reserve 40/30/20/10 and use 15/8/20/2 on average, jobs of 1 to 8 GPUs for minutes to
hours. `gang`: 60 GPUs busy, 40 free, a 64-GPU production job waits, and 8-GPU jobs of an hour and 4-GPU jobs of half an
hour arrive as fast as all GPUs could serve them. `sweep`: 32 preemptible trials of 3 GPUs for two hours, and the same
production job after half an hour.
"""
# ruff: noqa: T201

import argparse
import json
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from clearway.devices.ledger import Use, faded_usage
from clearway.devices.priority import Factors, priority, share_factor, tier_factor, weight
from clearway.devices.sharing import Ask, Held, Rules, refusal, victims

GPUS, STEP_S, MINUTE_S, HOUR_S = 100, 30.0, 60.0, 3600.0
# Reserved by, and used by, each team.
RESERVED = {"a": 40.0, "b": 30.0, "c": 20.0, "d": 10.0}
USED = {"a": 15.0, "b": 8.0, "c": 20.0, "d": 2.0}
POLICIES = ("quotas", "fifo", "pool", "clearway")
RULES = Rules(slots=GPUS, margin=0.1, min_run_s=600.0, max_yields=3)
RETURN_S = 60.0
# A job that resumes imports torch and loads its checkpoint again; its devices do nothing else meanwhile.
RESUME_S = 60.0
HALF_LIFE_S = 7 * 86_400.0
COLOURS = {"gang": "#c0392b", "hour": "#2e86c1", "half_hour": "#85c1e9", "trial": "#52be80", "batch": "#aeb6bf"}


@dataclass(slots=True, kw_only=True)
class Job:
    """A job and what became of it."""

    name: str
    kind: str
    team: str
    slots: int
    run_s: float
    submit_s: float
    tier: str = "low"
    is_preemptible: bool = False
    is_bounded: bool = True  # says how long it runs at most
    priority: float = 0.0
    left_s: float = 0.0
    start_s: float = -1.0  # first start
    since_s: float = -1.0  # this start
    end_s: float = -1.0
    back_s: float = 0.0  # not offered slots before
    num_yields: int = 0

    def __post_init__(self) -> None:
        self.left_s = self.run_s

    @property
    def ask(self) -> Ask:
        """As the desk sees it."""
        return Ask(
            id=self.name,
            task=("", "", ""),
            product=self.name,
            team=self.team,
            slots=self.slots,
            priority=self.priority,
            asked_s=self.submit_s,
            max_run_s=self.run_s + RESUME_S if self.is_bounded else 0.0,
            is_preemptible=self.is_preemptible,
            num_yields=self.num_yields,
        )

    @property
    def held(self) -> Held:
        """As the desk sees it, once it runs."""
        return Held(ask=self.ask, job_id=self.name, started_s=self.since_s)


@dataclass(slots=True)
class Cluster:
    """What runs, waits and is over."""

    policy: str
    waiting: list[Job] = field(default_factory=list)
    running: list[Job] = field(default_factory=list)
    done: list[Job] = field(default_factory=list)
    leaving: set[str] = field(default_factory=set)
    uses: list[Use] = field(default_factory=list)
    busy: list[dict[str, int]] = field(default_factory=list)  # GPUs per kind of job, per step

    def free(self) -> int:
        return GPUS - sum(job.slots for job in self.running)


def pick(waiting: Sequence[tuple[str, int, int]], *, free: int) -> list[str]:
    """What Airflow's scheduler queues from one pool: highest weight first, and whatever still fits.

    `waiting`: name, slots, weight, in order of arrival.
    """
    picked = []
    for name, slots, _ in sorted(waiting, key=lambda task: -task[2]):
        if slots <= free:
            picked.append(name)
            free -= slots
    return picked


def simulate(policy: str, jobs: Sequence[Job], *, until_s: float) -> Cluster:
    """Run one policy over jobs sorted by arrival."""
    cluster, ahead = Cluster(policy), list(reversed(jobs))
    for step in range(int(until_s / STEP_S)):
        now_s = step * STEP_S
        _end(cluster, now_s)
        while ahead and ahead[-1].submit_s <= now_s:
            job = ahead.pop()
            job.priority = _priority(cluster, job, now_s)
            cluster.waiting.append(job)
        _make_room(cluster, now_s)
        for job in _offered(cluster, now_s):
            _start(cluster, job, now_s)
        busy: dict[str, int] = {}
        for job in cluster.running:
            busy[job.kind] = busy.get(job.kind, 0) + job.slots
        cluster.busy.append(busy)
    return cluster


def _priority(cluster: Cluster, job: Job, now_s: float) -> float:
    usage = faded_usage(
        [*cluster.uses, *(_use(j, now_s) for j in cluster.running)], now_s=now_s, half_life_s=HALF_LIFE_S
    )
    share = share_factor(job.team, usage=usage, shares=RESERVED)
    return priority(Factors(tier=tier_factor(job.tier), urgency=0.0, share=share))


def _use(job: Job, now_s: float) -> Use:
    return Use(team=job.team, product=job.name, job_id=job.name, slots=job.slots, started_s=job.since_s, ended_s=now_s)


def _end(cluster: Cluster, now_s: float) -> None:
    for job in list(cluster.running):
        is_told = job.name in cluster.leaving
        if is_told or now_s - job.since_s >= job.left_s:
            cluster.running.remove(job)
            cluster.uses.append(_use(job, now_s))
            if is_told and now_s - job.since_s < job.left_s:
                job.left_s += RESUME_S - (now_s - job.since_s)
                job.num_yields, job.back_s = job.num_yields + 1, now_s + RETURN_S
                cluster.waiting.append(job)
            else:
                job.end_s = now_s
                cluster.done.append(job)
            cluster.leaving.discard(job.name)


def _make_room(cluster: Cluster, now_s: float) -> None:
    if cluster.policy == "clearway":
        asks, held = [job.ask for job in cluster.waiting], [job.held for job in cluster.running]
        chosen = victims(asks=asks, held=held, leaving=cluster.leaving, rules=RULES, now_s=now_s)
        cluster.leaving |= {job.job_id for job in chosen}


def _offered(cluster: Cluster, now_s: float) -> Iterator[Job]:
    """Jobs that get slots in this step, by policy."""
    waiting = sorted(cluster.waiting, key=lambda job: job.submit_s)
    if cluster.policy == "fifo":
        for job in waiting:
            if job.slots > cluster.free():
                return
            yield job
        return
    pools = {"": GPUS} if cluster.policy != "quotas" else {team: int(slots) for team, slots in RESERVED.items()}
    for team, slots in pools.items():
        free = slots - sum(job.slots for job in cluster.running if team in {"", job.team})
        tasks = {job.name: job for job in waiting if job.back_s <= now_s and team in {"", job.team}}
        offers = pick([(j.name, j.slots, weight(j.priority)) for j in tasks.values()], free=free)
        for name in offers:
            if cluster.policy != "clearway" or _may_start(cluster, tasks[name], now_s):
                yield tasks[name]


def _may_start(cluster: Cluster, job: Job, now_s: float) -> bool:
    others, held = [j.ask for j in cluster.waiting], [j.held for j in cluster.running]
    if refusal(job.ask, asks=others, held=held, leaving=cluster.leaving, rules=RULES, now_s=now_s):
        job.back_s = now_s + RETURN_S
        return False
    return True


def _start(cluster: Cluster, job: Job, now_s: float) -> None:
    cluster.waiting.remove(job)
    cluster.running.append(job)
    job.since_s = now_s
    job.start_s = now_s if job.start_s < 0 else job.start_s


def week_jobs(seed: int) -> list[Job]:
    """Four teams' week: Poisson arrivals, lognormal lengths, offered load as USED says."""
    rng, jobs = np.random.default_rng(seed), []
    sizes, share = np.array([1, 2, 4, 8]), np.array([0.4, 0.3, 0.2, 0.1])
    mean_run_s = 1.5 * HOUR_S
    for team, load in USED.items():
        rate_per_s = load / (mean_run_s * float(sizes @ share))
        at_s = 0.0
        while (at_s := at_s + rng.exponential(1 / rate_per_s)) < 7 * 24 * HOUR_S:
            run_s = float(np.clip(rng.lognormal(np.log(mean_run_s) - 0.5, 1.0), 300, 12 * HOUR_S))
            name, slots = f"{team}{len(jobs)}", int(rng.choice(sizes, p=share))
            jobs.append(Job(name=name, kind=f"team {team}", team=team, slots=slots, run_s=run_s, submit_s=at_s))
    return sorted(jobs, key=lambda job: job.submit_s)


def gang_job(*, submit_s: float) -> Job:
    """The production job: all 64 or none."""
    return Job(name="gang", kind="gang", team="a", slots=64, run_s=2 * HOUR_S, submit_s=submit_s, tier="high")


def gang_jobs(seed: int, *, is_preemptible: bool = False) -> list[Job]:
    """60 of 100 GPUs busy for one to three hours; the gang; and small jobs as fast as 100 GPUs could serve them."""
    rng = np.random.default_rng(seed)
    jobs = [
        Job(
            name=f"batch{i}",
            kind="batch",
            team="b",
            slots=6,
            run_s=rng.uniform(1, 3) * HOUR_S,
            submit_s=0.0,
            is_preemptible=is_preemptible,
        )
        for i in range(10)
    ]
    jobs.append(gang_job(submit_s=1200.0))
    kinds = (("hour", 8, HOUR_S), ("half_hour", 4, HOUR_S / 2))
    for kind, slots, run_s in kinds:
        rate_per_s = GPUS / 2 / (slots * run_s)
        at_s = 1230.0
        while (at_s := at_s + rng.exponential(1 / rate_per_s)) < 10 * HOUR_S:
            extra = {"slots": slots, "run_s": run_s, "submit_s": at_s, "is_preemptible": is_preemptible}
            jobs.append(Job(name=f"{kind}{len(jobs)}", kind=kind, team="c", **extra))
    jobs += [
        Job(
            name=f"first{i}",
            kind="hour",
            team="c",
            slots=8,
            run_s=HOUR_S,
            submit_s=1230.0,
            is_preemptible=is_preemptible,
        )
        for i in range(8)
    ]
    return sorted(jobs, key=lambda job: job.submit_s)


def sweep_jobs(seed: int) -> list[Job]:
    """32 trials of 3 GPUs, two hours give or take a quarter; the gang after half an hour."""
    rng = np.random.default_rng(seed)
    trials = [
        Job(
            name=f"trial{i}",
            kind="trial",
            team="c",
            slots=3,
            run_s=rng.uniform(1.75, 2.25) * HOUR_S,
            submit_s=0.0,
            is_preemptible=True,
        )
        for i in range(32)
    ]
    return [*trials, gang_job(submit_s=HOUR_S / 2)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """What is simulated, and over which time GPUs are counted."""

    jobs: Callable[[int], list[Job]]
    until_s: float
    count_until_s: float


SCENARIOS = {
    "week": Scenario(jobs=week_jobs, until_s=9 * 24 * HOUR_S, count_until_s=7 * 24 * HOUR_S),
    "gang": Scenario(jobs=gang_jobs, until_s=30 * HOUR_S, count_until_s=10 * HOUR_S),
    "gang, preemptible": Scenario(
        jobs=lambda seed: gang_jobs(seed, is_preemptible=True), until_s=30 * HOUR_S, count_until_s=10 * HOUR_S
    ),
    "sweep": Scenario(jobs=sweep_jobs, until_s=12 * HOUR_S, count_until_s=4 * HOUR_S),
}


def report(name: str, policy: str, *, num_seeds: int) -> list[dict[str, Any]]:
    """One line per kind of job."""
    scenario, found = SCENARIOS[name], {}
    utilization = []
    for seed in range(num_seeds):
        cluster = simulate(policy, scenario.jobs(seed), until_s=scenario.until_s)
        counted = cluster.busy[: int(scenario.count_until_s / STEP_S)]
        utilization.append(sum(sum(busy.values()) for busy in counted) / (GPUS * len(counted)))
        for job in [*cluster.done, *cluster.waiting, *cluster.running]:
            found.setdefault(job.kind, []).append(job)
    return [
        {
            "scenario": name,
            "policy": policy,
            "utilization": round(statistics.mean(utilization), 3),
            "kind": kind,
            **_waits(jobs),
        }
        for kind, jobs in sorted(found.items())
    ]


def _waits(jobs: Sequence[Job]) -> dict[str, Any]:
    started = [(job.start_s - job.submit_s) / MINUTE_S for job in jobs if job.start_s >= 0]
    turnaround = [(job.end_s - job.submit_s) / MINUTE_S for job in jobs if job.end_s >= 0]
    return {
        "jobs": len(jobs),
        "never_started": len(jobs) - len(started),
        "wait_mean_min": round(statistics.mean(started), 1) if started else None,
        "wait_p95_min": round(float(np.percentile(started, 95)), 1) if started else None,
        "turnaround_mean_min": round(statistics.mean(turnaround), 1) if turnaround else None,
        "unfinished": sum(job.end_s < 0 for job in jobs),
        "yields": sum(job.num_yields for job in jobs),
    }


def picture(scenario: str, *, hours: float) -> str:
    """GPUs per kind of job over time, one row per policy, as SVG."""
    width, height, top = 640, 90, 46
    rows = []
    for row, policy in enumerate(POLICIES):
        cluster = simulate(policy, SCENARIOS[scenario].jobs(0), until_s=hours * HOUR_S)
        y = top + row * (height + 30)
        rows.append(f'<text x="10" y="{y - 6}" font-weight="bold">{policy}</text>')
        rows.append(f'<rect x="10" y="{y}" width="{width}" height="{height}" fill="#f7f7f7" stroke="#999"/>')
        rows += _areas(cluster, x=10, y=y, width=width, height=height)
    legend = "".join(
        f'<rect x="{10 + 110 * i}" y="12" width="12" height="12" fill="{colour}"/>'
        f'<text x="{26 + 110 * i}" y="22">{kind.replace("_", " ")}</text>'
        for i, (kind, colour) in enumerate(COLOURS.items())
    )
    total = top + len(POLICIES) * (height + 30)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width + 20}" height="{total}" font-family="sans-serif" '
        f'font-size="12"><title>GPUs in use, of {GPUS}, over {hours:g} hours: {scenario}</title>'
        f'<rect width="100%" height="100%" fill="white"/>{legend}{"".join(rows)}</svg>\n'
    )


def _areas(cluster: Cluster, *, x: float, y: float, width: float, height: float) -> list[str]:
    """Stacked areas; one polygon per kind, a point every five minutes."""
    busy = cluster.busy[::10]
    below, areas = np.zeros(len(busy)), []
    xs = x + np.linspace(0, width, len(busy))
    for kind, colour in COLOURS.items():
        level = below + np.array([step.get(kind, 0) for step in busy])
        up = [f"{a:.0f},{y + height * (1 - b / GPUS):.1f}" for a, b in zip(xs, level, strict=True)]
        down = [f"{a:.0f},{y + height * (1 - b / GPUS):.1f}" for a, b in zip(xs, below, strict=True)]
        areas.append(f'<polygon fill="{colour}" points="{" ".join([*up, *reversed(down)])}"/>')
        below = level
    return areas


def main() -> None:
    """All scenarios under all policies."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--picture", type=Path, help="write the gang scenario as SVG here")
    args = parser.parse_args()
    for name in SCENARIOS:
        for policy in POLICIES:
            for line in report(name, policy, num_seeds=args.seeds):
                print(json.dumps(line), flush=True)
    if args.picture:
        args.picture.write_text(picture("gang, preemptible", hours=10), encoding="utf-8")


if __name__ == "__main__":
    main()
