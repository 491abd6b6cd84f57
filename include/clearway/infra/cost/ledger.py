"""The ledger of a product: what every attempt of every job cost, each written once.

    <product>/costs/<release or batch run>/
        begun.json              when it began, and what it was expected to cost; created by its first job
        <job key>.json          a job that was about to start; created before it does
        <job key>.0001.json     the bill of an attempt; created when its service has said what it billed
    <product>/costs/_begun/<chain>/<YYYY-MM>/<time>-<release>.json      which began when, for whoever looks back

A bill is created, never replaced, so a retry, a second look or two lookers at once change nothing. It needs nobody who
waited for the job: whoever comes next asks for all attempts under the keys that are noted here.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from clearway.contracts.codec import from_jsonable, to_jsonable
from clearway.contracts.manifest import canonical_json
from clearway.infra.cost.prices import Line, Prices, lines_of, read_prices, total
from clearway.infra.environment import Environment
from clearway.infra.jobs import JobRunner, JobSpec
from clearway.infra.jobs.usage import EMR_PART, Measured, Usage
from clearway.infra.layout import Layout
from clearway.infra.storage import open_storage, read_if_there
from clearway.infra.watch.metrics import Point, Unit, open_metrics

RELEASE_CHAIN, BATCH_CHAIN = "release", "batch"
LEDGER, LIMIT = "ledger", "limit"  # what an estimate follows from
MONTHS_BACK = 12
_BEGUN, _INDEX = "begun.json", "_begun"


@dataclass(frozen=True, slots=True, kw_only=True)
class StageEstimate:
    """What a stage is expected to cost. `basis`: `ledger`, of `num_releases`; or `limit`, the most it can take.

    Args:
        cost: None where the price table lacks something.
    """

    cost: float | None
    basis: str
    num_releases: int = 0

    @property
    def by(self) -> str:
        """What it follows from, in words."""
        return f"mean of {self.num_releases}" if self.basis == LEDGER else "its limit"


@dataclass(frozen=True, slots=True, kw_only=True)
class Begun:
    """A release, or the treatment of one batch, whose first job was about to start."""

    release_id: str
    chain: str
    at_s: float
    estimates: dict[str, StageEstimate]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bill:
    """What one attempt of a job cost. `prices_as_of`: date of the table, "" where none was needed.

    Args:
        seconds: from begin to end, as its service counts; the lines say what was billed.
    """

    job_id: str
    stage: str
    service: str
    has_succeeded: bool
    begin_s: float
    seconds: float
    lines: tuple[Line, ...]
    currency: str
    prices_as_of: str
    note: str
    measured: Measured | None

    @property
    def cost(self) -> float | None:
        return total([line.cost for line in self.lines])

    @property
    def full_cost(self) -> float | None:
        """Without spot."""
        return total([line.full_cost for line in self.lines])

    @property
    def billed_s(self) -> float:
        """Of machines; of vCPUs where those are billed. What EMR asks for a machine is no machine more."""
        machines = (line for line in self.lines if not line.what.startswith(f"{EMR_PART}."))
        return sum(line.hours for line in machines if not line.what.endswith(".gb")) * 3600


class Ledger:
    """Of one product."""

    def __init__(self, env: Environment, product: str) -> None:
        self._env, self._storage = env, open_storage(env.store_root)
        self._layout = Layout(env.store_root, product)
        self._prices: Prices | None = None

    @property
    def prices(self) -> Prices:
        if self._prices is None:
            self._prices = read_prices(self._env)
        return self._prices

    def begun(self, release_id: str) -> Begun | None:
        """How it began; None if no job of it was ever noted."""
        data = read_if_there(self._storage, self._layout.costs(release_id, _BEGUN))
        return None if data is None else from_jsonable(Begun, json.loads(data))

    def begin(self, begun: Begun) -> Begun:
        """Note it, unless it is noted already; what is noted."""
        at = datetime.fromtimestamp(begun.at_s, tz=UTC)
        month, name = at.strftime("%Y-%m"), f"{at:%Y%m%dT%H%M%SZ}-{begun.release_id}.json"
        # The index first: of a crash in between it is left with a name that leads nowhere.
        self._storage.create(self._layout.costs(_INDEX, begun.chain, month, name), b"{}")
        uri = self._layout.costs(begun.release_id, _BEGUN)
        if self._storage.create(uri, canonical_json(to_jsonable(begun))):
            return begun
        return from_jsonable(Begun, json.loads(self._storage.read(uri)))

    def note(self, release_id: str, spec: JobSpec) -> None:
        """A job is about to start."""
        uri = self._layout.costs(release_id, f"{spec.key}.json")
        self._storage.create(uri, canonical_json({"stage": spec.stage}))

    def settle(self, release_id: str, runner: JobRunner) -> tuple[Bill, ...]:
        """Write the bills that can be written by now; all bills, in the order in which the attempts began."""
        names = self._names(release_id)
        bills = {name: self._bill(release_id, name) for name in names if _is_bill(name)}
        succeeded = {bill.job_id.rpartition(".")[0] for bill in bills.values() if bill.has_succeeded}
        for key in (name for name in names if not _is_bill(name) and name not in succeeded):
            for job_id in runner.attempts(key):
                if job_id not in bills and (usage := runner.usage(job_id)) is not None:
                    bills[job_id] = self._write(release_id, usage)
        return tuple(sorted(bills.values(), key=lambda bill: bill.begin_s))

    def bills(self, release_id: str) -> tuple[Bill, ...]:
        """What is written; nobody is asked."""
        found = [self._bill(release_id, name) for name in self._names(release_id) if _is_bill(name)]
        return tuple(sorted(found, key=lambda bill: bill.begin_s))

    def unbilled(self, release_id: str) -> tuple[str, ...]:
        """Keys of jobs that were noted and have no bill."""
        names = self._names(release_id)
        billed = {name.rpartition(".")[0] for name in names if _is_bill(name)}
        return tuple(name for name in names if not _is_bill(name) and name not in billed)

    def newest(self, *, now_s: float, chain: str = RELEASE_CHAIN) -> Iterator[str]:
        """Ids of releases, or of batch runs, of the last twelve months, newest first."""
        month, seen = datetime.fromtimestamp(now_s, tz=UTC).replace(day=1), set[str]()
        for _ in range(MONTHS_BACK + 1):
            folder = self._layout.costs(_INDEX, chain, month.strftime("%Y-%m"))
            for uri in reversed(self._storage.list(folder)):
                release_id = uri.rpartition("/")[2].removesuffix(".json").partition("-")[2]
                if release_id not in seen:
                    seen.add(release_id)
                    yield release_id
            month = (month - timedelta(days=1)).replace(day=1)

    def _write(self, release_id: str, usage: Usage) -> Bill:
        bill = Bill(
            job_id=usage.job_id,
            stage=stage_of(usage.job_id),
            service=usage.service,
            has_succeeded=usage.has_succeeded,
            begin_s=usage.begin_s,
            seconds=max(0.0, usage.end_s - usage.begin_s),
            lines=lines_of(usage.used, prices=self.prices, env=self._env),
            currency=self.prices.currency,
            prices_as_of=self.prices.as_of.isoformat(),
            note=usage.note,
            measured=usage.measured,
        )
        uri = self._layout.costs(release_id, f"{bill.job_id}.json")
        if self._storage.create(uri, canonical_json(to_jsonable(bill))):
            open_metrics(self._env).put(figures_of(self._layout.product, bill))
            return bill
        return self._bill(release_id, bill.job_id)

    def _bill(self, release_id: str, name: str) -> Bill:
        return from_jsonable(Bill, json.loads(self._storage.read(self._layout.costs(release_id, f"{name}.json"))))

    def _names(self, release_id: str) -> list[str]:
        found = self._storage.list(self._layout.costs(release_id))
        return [name for uri in found if (name := uri.rpartition("/")[2].removesuffix(".json")) != "begun"]


def figures_of(product: str, bill: Bill) -> list[Point]:
    """Seconds and money of a bill that was just written; money over all products too, for an alarm."""
    labels = {"Product": product, "Stage": bill.stage}
    found = [Point(name="StageSeconds", value=bill.seconds, unit=Unit.SECONDS, labels=labels)]
    if bill.cost is not None:
        found += [Point(name="StageCost", value=bill.cost, unit=Unit.NONE, labels=of) for of in (labels, {})]
    return found


def _is_bill(name: str) -> bool:
    """Keys of jobs have no dot, attempts have one."""
    return "." in name


def stage_of(job_id: str) -> str:
    """Keys begin with their stage: `release.job_spec`."""
    return job_id.partition("-")[0]
