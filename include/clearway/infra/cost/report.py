"""What releases cost, stage by stage, beside what they were expected to cost; and what a smaller machine would do."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

from clearway.infra.cost.ledger import RELEASE_CHAIN, Begun, Bill, Ledger, StageEstimate
from clearway.infra.cost.prices import FARGATE, Prices, total
from clearway.infra.environment import Environment
from clearway.infra.jobs import JobRunner

# What a machine may be filled to: work is not even, and more than this in memory ends a job sooner or later.
FULL = 0.8
# What Fargate takes: vCPUs, and the least and the most GB that go with them.
FARGATE_SIZES = ((0.25, 0.5, 2.0), (0.5, 1.0, 4.0), (1.0, 2.0, 8.0), (2.0, 4.0, 16.0), (4.0, 8.0, 30.0), (8, 16, 60))
SERVICES_SIZED = {"sagemaker", "batch"}  # what a Spark driver measures says nothing about its executors

# What a table of stages shows, on a page and in a terminal.
HEADS = ("stage", "where", "tries", "billed s", "cost", "spot saved", "expected", "price per hour")


@dataclass(frozen=True, slots=True, kw_only=True)
class StageCost:
    """One stage of one release, over all attempts. `cost`, `full_cost` (without spot): None where a price lacks."""

    stage: str
    service: str
    num_attempts: int
    billed_s: float
    prices: str
    cost: float | None
    full_cost: float | None
    estimate: StageEstimate | None
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunCost:
    """One release or batch run. `unbilled`: jobs that still run, or whose service has not said yet what they cost."""

    begun: Begun
    bills: tuple[Bill, ...]
    unbilled: tuple[str, ...]

    @property
    def stages(self) -> tuple[StageCost, ...]:
        """In the order in which they first ran."""
        names = dict.fromkeys(bill.stage for bill in self.bills)
        return tuple(
            _stage_cost(name, [bill for bill in self.bills if bill.stage == name], self.begun.estimates.get(name))
            for name in names
        )

    @property
    def cost(self) -> float | None:
        return total([bill.cost for bill in self.bills])

    @property
    def full_cost(self) -> float | None:
        return total([bill.full_cost for bill in self.bills])

    @property
    def estimate(self) -> float | None:
        """Of the stages that ran."""
        return total([stage.estimate.cost if stage.estimate else None for stage in self.stages])


def run_cost(ledger: Ledger, release_id: str, *, runner: JobRunner | None = None) -> RunCost | None:
    """What a run cost; None if the ledger does not know it. `runner`: asked for what is not billed yet."""
    begun = ledger.begun(release_id)
    if begun is None:
        return None
    bills = ledger.settle(release_id, runner) if runner else ledger.bills(release_id)
    return RunCost(begun=begun, bills=bills, unbilled=ledger.unbilled(release_id))


def newest_costs(
    ledger: Ledger, *, now_s: float, limit: int, chain: str = RELEASE_CHAIN, runner: JobRunner | None = None
) -> list[RunCost]:
    """The last `limit` runs, newest first."""
    found = (run_cost(ledger, i, runner=runner) for i in islice(ledger.newest(now_s=now_s, chain=chain), limit))
    return [run for run in found if run is not None]


def saved_by_spot(of: StageCost | RunCost) -> str:
    """The share that spot saved; empty where that is not known, or nothing was to be paid."""
    return f"{(of.full_cost - of.cost) / of.full_cost:.0%}" if of.cost is not None and of.full_cost else ""


def _stage_cost(stage: str, bills: Sequence[Bill], estimate: StageEstimate | None) -> StageCost:
    lines = {line.what: line.price for bill in bills for line in bill.lines}
    return StageCost(
        stage=stage,
        service=bills[-1].service,
        num_attempts=len(bills),
        billed_s=sum(bill.billed_s for bill in bills),
        prices=", ".join(f"{what} {'?' if price is None else f'{price:g}'}" for what, price in lines.items()),
        cost=total([bill.cost for bill in bills]),
        full_cost=total([bill.full_cost for bill in bills]),
        estimate=estimate,
        note="; ".join(bill.note for bill in bills if bill.note),
    )


def sizing(bills: Sequence[Bill], *, prices: Prices, env: Environment) -> list[str]:
    """Sentences about machines that are larger than what ran on them, or too small; from what stages measured."""
    seen = [bill for bill in bills if bill.measured is not None and bill.service in SERVICES_SIZED]
    on_machines = [bill for bill in seen if bill.service == "sagemaker"]
    texts = [
        _machine_advice(name, [bill for bill in on_machines if bill.lines and bill.lines[0].what == name], prices)
        for name in dict.fromkeys(bill.lines[0].what for bill in on_machines if bill.lines)
    ]
    texts.append(_container_advice([bill for bill in seen if bill.service == "batch"], prices, env))
    return [text for text in texts if text]


def _needs(bills: Sequence[Bill]) -> tuple[float, float]:
    """vCPUs in the mean of the busiest job, and GB at the peak of the largest."""
    measured = [bill.measured for bill in bills if bill.measured is not None]
    return max(m.cpu_s / max(m.wall_s, 1e-9) for m in measured), max(m.peak_gb for m in measured)


def _machine_advice(name: str, bills: Sequence[Bill], prices: Prices) -> str:
    machine, (vcpus, memory_gb) = prices.machines.get(name), _needs(bills)
    if machine is None or machine.gpus:
        return ""
    stages = ", ".join(dict.fromkeys(bill.stage for bill in bills))
    used = (
        f"{stages} used {vcpus:.1f} of {machine.vcpus:g} vCPU and {memory_gb:.1f} of {machine.memory_gb:g} GB of {name}"
    )
    if memory_gb > FULL * machine.memory_gb:
        return f"{used}: take one with more memory before it is ended for lack of it"
    fits = [
        (other.price, other_name)
        for other_name, other in prices.machines.items()
        if other_name.startswith("ml.") == name.startswith("ml.")
        and not other.gpus
        and other.vcpus * FULL >= vcpus
        and other.memory_gb * FULL >= memory_gb
    ]
    price, best = min(fits, default=(machine.price, name))
    if price >= machine.price:
        return ""
    return (
        f"{used}: {best} would do, at {price:g} instead of {machine.price:g} {prices.currency} per hour "
        f"(CLEARWAY__AWS__TRAINING_INSTANCE={best})"
    )


def _container_advice(bills: Sequence[Bill], prices: Prices, env: Environment) -> str:
    """Containers of Batch have one size for all stages, so the largest need counts."""
    if not bills or env.cost.batch_machine != FARGATE:
        return ""
    now, (vcpus, memory_gb) = (env.aws.batch_vcpus, env.aws.batch_memory_gb), _needs(bills)
    stages = ", ".join(dict.fromkeys(bill.stage for bill in bills))
    used = (
        f"{stages} used at most {vcpus:.1f} of {now[0]:g} vCPU and {memory_gb:.1f} of {now[1]:g} GB of their containers"
    )
    if memory_gb > FULL * now[1]:
        return f"{used}: raise CLEARWAY__AWS__BATCH_MEMORY_GB before one is ended for lack of memory"
    fits = [
        (size, max(least, _whole(memory_gb / FULL)))
        for size, least, most in FARGATE_SIZES
        if size * FULL >= vcpus and most * FULL >= memory_gb
    ]
    best = min(fits, key=lambda fit: _per_hour(fit, prices), default=now)
    if _per_hour(best, prices) >= _per_hour(now, prices):
        return ""
    return (
        f"{used}: {best[0]:g} and {best[1]:g} would do, at {_per_hour(best, prices):.4g} instead of "
        f"{_per_hour(now, prices):.4g} {prices.currency} per hour (CLEARWAY__AWS__BATCH_VCPUS, …BATCH_MEMORY_GB)"
    )


def _per_hour(size: tuple[float, float], prices: Prices) -> float:
    return size[0] * prices.per_hour.get("fargate.vcpu", 0.0) + size[1] * prices.per_hour.get("fargate.gb", 0.0)


def _whole(memory_gb: float) -> float:
    """Fargate counts whole GB, and half of one at the least."""
    return 0.5 if memory_gb <= 0.5 else float(-(-memory_gb // 1))  # noqa: PLR2004 - said above
