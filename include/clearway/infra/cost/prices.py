"""Prices as a person wrote them down, and what hours cost by them."""

from dataclasses import dataclass
from datetime import date
from pathlib import Path

import pydantic

from clearway.contracts.errors import ConfigError
from clearway.infra.environment import Aws, Environment
from clearway.infra.jobs.usage import (
    BATCH_GB,
    BATCH_VCPU,
    EKS_GB,
    EKS_VCPU,
    EMR_GB,
    EMR_PART,
    EMR_VCPU,
    EMR_WORKER_GB,
    EMR_WORKER_VCPUS,
    LOCAL,
    Used,
)
from clearway.strict_yaml import read_yaml

FARGATE = "fargate"


class _Closed(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)


class Machine(_Closed):
    """An instance type. `price`: per hour."""

    price: float = pydantic.Field(ge=0)
    vcpus: float = pydantic.Field(gt=0)
    memory_gb: float = pydantic.Field(gt=0)
    gpus: int = pydantic.Field(0, ge=0)


class Prices(_Closed):
    """A table of one region at one date."""

    region: str
    currency: str
    as_of: date
    sources: tuple[str, ...]
    per_hour: dict[str, float]
    machines: dict[str, Machine]


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A line of a bill. `price`: per hour; None if the table has none."""

    what: str
    hours: float
    full_hours: float
    price: float | None

    @property
    def cost(self) -> float | None:
        return None if self.price is None else self.price * self.hours

    @property
    def full_cost(self) -> float | None:
        return None if self.price is None else self.price * self.full_hours


def read_prices(env: Environment) -> Prices:
    """The table of this environment. Raises: ConfigError naming file and entry."""
    path = Path(env.cost.prices) if env.cost.prices else Path(__file__).with_name("prices.yaml")
    if not path.is_file():
        raise ConfigError(f"price table {path} does not exist; correct CLEARWAY__COST__PRICES")
    try:
        return Prices.model_validate(read_yaml(path).value)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ConfigError(f"price table {path}: {where!r} is {first.get('input')!r}: {first['msg']}") from error


def lines_of(used: tuple[Used, ...], *, prices: Prices, env: Environment) -> tuple[Line, ...]:
    """Hours with their prices; what a container on a machine of EC2 used is its share of that machine."""
    found, batch = [], {}
    for one in used:
        if one.what in {BATCH_VCPU, BATCH_GB}:
            batch[one.what] = one
        else:
            found.append(_line(one.what, one.hours, one.full_hours, prices, env))
    if not batch:
        return tuple(found)
    vcpu, memory, host = batch[BATCH_VCPU], batch[BATCH_GB], env.cost.batch_machine
    if host == FARGATE:
        found += [
            _line(f"{FARGATE}.{unit}", one.hours, one.full_hours, prices, env)
            for unit, one in (("vcpu", vcpu), ("gb", memory))
        ]
    elif (machine := prices.machines.get(host)) is None:
        found.append(Line(what=host, hours=vcpu.hours, full_hours=vcpu.full_hours, price=None))
    else:
        hours = max(vcpu.hours / machine.vcpus, memory.hours / machine.memory_gb)
        found.append(Line(what=host, hours=hours, full_hours=hours, price=machine.price))
    return tuple(found)


def _line(what: str, hours: float, full_hours: float, prices: Prices, env: Environment) -> Line:
    if what == LOCAL:
        price: float | None = env.jobs.price_per_hour
    elif what in prices.machines:
        price = prices.machines[what].price
    else:
        price = prices.per_hour.get(what)
    return Line(what=what, hours=hours, full_hours=full_hours, price=price)


def most_per_hour(env: Environment, stage: str) -> tuple[Used, ...]:
    """What a job of this stage can use in an hour, where it runs by the settings."""
    if env.jobs.kind == LOCAL:
        return (_hour(LOCAL, 1.0),)
    aws, workers = env.aws, 1 + env.aws.emr_max_executors
    service = service_of(aws, stage)
    if service == "sagemaker":
        return (_hour(aws.training_instance, machines_of(aws, stage)),)
    if service == "emr_serverless":
        return _hour(EMR_VCPU, workers * EMR_WORKER_VCPUS), _hour(EMR_GB, workers * EMR_WORKER_GB)
    if service == "emr_eks":
        return _hour(EKS_VCPU, workers * EMR_WORKER_VCPUS), _hour(EKS_GB, workers * EMR_WORKER_GB)
    if service == "emr_ec2":  # a fleet may be of any of its types; the first is taken for all
        machine, most = aws.emr_machines.split()[0], 1 + max(2, aws.emr_max_executors)
        return _hour(machine, most), _hour(f"{EMR_PART}.{machine}", most)
    if service == "batch" and machines_of(aws, stage) > 1:
        return (_hour(aws.batch_nodes_machine, machines_of(aws, stage)),)
    container = _hour(BATCH_VCPU, aws.batch_vcpus), _hour(BATCH_GB, aws.batch_memory_gb)
    trials = (_hour(aws.training_instance, aws.tuning_parallel),) if service == "sagemaker_tuning" else ()
    return container + trials


def service_of(aws: Aws, stage: str) -> str:
    """The service that runs a stage."""
    chosen: dict[str, str] = aws.services.model_dump()
    return chosen.get(stage, "batch")


def machines_of(aws: Aws, stage: str) -> int:
    """Machines that a job of this stage is started on, all at once."""
    return aws.training_count if stage == "train" else 1


def rate_of(env: Environment, prices: Prices, stage: str) -> float | None:
    """The most that an hour of this stage costs; None where the table lacks a price."""
    return total([line.cost for line in lines_of(most_per_hour(env, stage), prices=prices, env=env)])


def total(costs: list[float | None]) -> float | None:
    """Their sum; None as soon as one of them is not known."""
    known = [cost for cost in costs if cost is not None]
    return sum(known) if len(known) == len(costs) else None


def _hour(what: str, amount: float) -> Used:
    return Used(what=what, hours=amount, full_hours=amount)
