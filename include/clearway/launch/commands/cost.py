"""Show what releases cost, stage by stage, beside what they were expected to cost."""

import argparse
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import takewhile
from typing import Any

from rich.markup import escape
from rich.table import Table

from clearway.contracts.codec import to_jsonable
from clearway.contracts.errors import ConfigError
from clearway.infra.aws.cost_explorer import spent
from clearway.infra.clock import SystemClock
from clearway.infra.cost.ledger import BATCH_CHAIN, RELEASE_CHAIN, Bill, Ledger
from clearway.infra.cost.prices import read_prices, total
from clearway.infra.cost.report import HEADS, RunCost, StageCost, newest_costs, run_cost, saved_by_spot, sizing
from clearway.infra.environment import Environment
from clearway.infra.jobs import open_jobs
from clearway.launch.report_table import MIN_WIDTH, new_console, new_table, text_of
from clearway.product_yaml import find_product, list_products

S_PER_DAY = 86_400.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which product and release; all products and their newest releases unless told otherwise."""
    parser.add_argument("--product", default="", help="one product instead of all")
    parser.add_argument("--release", default="", help="one release or batch run, by its id; needs --product")
    parser.add_argument("--last", type=int, default=3, help="how many releases of each product (3)")
    parser.add_argument("--batches", action="store_true", help="runs of the monitor in place of releases")
    parser.add_argument("--aws", action="store_true", help="the ledger beside what Cost Explorer says; a cent per call")
    parser.add_argument("--days", type=int, default=30, help="of --aws: how far back, whole days (30)")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """The ledgers; bills that nobody has written yet are written first."""
    env = Environment.load()
    if args.release and not args.product:
        raise ConfigError(f"release {args.release!r} of which product? Name it with --product")
    prices = read_prices(env)
    names = [args.product] if args.product else list_products(env.products)
    if args.aws:
        return _beside_aws(env, names, args.days)
    return {
        "region": prices.region,
        "currency": prices.currency,
        "prices_as_of": prices.as_of.isoformat(),
        "products": [_product(env, name, args) for name in names],
        "standing": _standing(env),
    }


def _beside_aws(env: Environment, names: Sequence[str], days: int) -> dict[str, Any]:
    """What began in these days by the ledger, and what AWS billed in them, by product and stage.

    Raises: ConfigError for days that there are none of, or without the right to ask.
    """
    if days < 1:
        raise ConfigError(f"--days {days} are no days; give 1 or more")
    now_s = SystemClock().now_s()
    end = datetime.fromtimestamp(now_s, tz=UTC).date()
    first = end - timedelta(days=days)
    rows: dict[tuple[str, str], dict[str, float | None]] = {}
    for name in names:
        for bill in _bills_since(env, name, now_s=now_s, days=days):
            row = rows.setdefault((name, bill.stage), {"ledger": 0.0, "aws": 0.0})
            row["ledger"] = total([row["ledger"], bill.cost])
    for found in spent(first=first, end=end, environment=env.name):
        if found.product in names or not found.product:
            row = rows.setdefault((found.product, found.stage), {"ledger": 0.0, "aws": 0.0})
            row["aws"] = total([row["aws"], found.cost])
    return {
        "first": first.isoformat(),
        "end": end.isoformat(),
        "currency": read_prices(env).currency,
        "rows": [{"product": product, "stage": stage, **row} for (product, stage), row in sorted(rows.items())],
    }


def _bills_since(env: Environment, product: str, *, now_s: float, days: int) -> list[Bill]:
    """Of releases and batch runs that began in the last `days`."""
    ledger, since_s = Ledger(env, product), now_s - days * S_PER_DAY
    ids = [i for chain in (RELEASE_CHAIN, BATCH_CHAIN) for i in _ids_since(ledger, chain, now_s=now_s, since_s=since_s)]
    return [bill for release_id in ids for bill in ledger.bills(release_id)]


def _ids_since(ledger: Ledger, chain: str, *, now_s: float, since_s: float) -> list[str]:
    begun = ((i, ledger.begun(i)) for i in ledger.newest(now_s=now_s, chain=chain))
    return [i for i, each in takewhile(lambda pair: pair[1] is None or pair[1].at_s >= since_s, begun) if each]


def _product(env: Environment, name: str, args: argparse.Namespace) -> dict[str, Any]:
    ledger, runner = Ledger(env, name), open_jobs(env)
    budget = find_product(env.products, name).spec.resources.max_money
    if args.release:
        found = run_cost(ledger, args.release, runner=runner)
        if found is None:
            raise ConfigError(
                f"the ledger of {name!r} knows no release {args.release!r}; leave --release out to see all"
            )
        runs = [found]
    else:
        chain = BATCH_CHAIN if args.batches else RELEASE_CHAIN
        runs = newest_costs(ledger, now_s=SystemClock().now_s(), limit=args.last, chain=chain, runner=runner)
    advice = sizing([bill for run in runs for bill in run.bills], prices=ledger.prices, env=env)
    return {"product": name, "budget": budget, "runs": [_run(found) for found in runs], "advice": advice}


def _run(found: RunCost) -> dict[str, Any]:
    return {
        "release_id": found.begun.release_id,
        "chain": found.begun.chain,
        "at_s": found.begun.at_s,
        "stages": [_stage(stage) for stage in found.stages],
        "unbilled": found.unbilled,
        "cost": found.cost,
        "full_cost": found.full_cost,
        "saved_by_spot": saved_by_spot(found),
        "estimate": found.estimate,
    }


def _stage(stage: StageCost) -> dict[str, Any]:
    own: dict[str, Any] = to_jsonable(stage)
    own["saved_by_spot"] = saved_by_spot(stage)
    if stage.estimate is not None:
        own["estimate"]["by"] = stage.estimate.by
    return own


def _standing(env: Environment) -> dict[str, Any] | None:
    """What an endpoint costs while it stands, whoever releases; None without one."""
    if env.endpoint.kind != "sagemaker":
        return None
    machine = read_prices(env).machines.get(env.sagemaker.instance)
    count = env.sagemaker.instance_count
    return {
        "endpoint": env.sagemaker.endpoint,
        "instance": env.sagemaker.instance,
        "instances_per_version": count,
        "per_hour_and_version": None if machine is None else machine.price * count,
    }


def render(result: dict[str, Any]) -> str:
    """For people."""
    if "rows" in result:
        return _beside(result)
    console = new_console(MIN_WIDTH)

    def say(text: str) -> None:
        console.print(text, markup=False, soft_wrap=True)

    say(f"{result['currency']}, prices of {result['region']} as of {result['prices_as_of']}")
    for product in result["products"]:
        budget = f", at most {product['budget']:g} per release" if product["budget"] else ""
        say(f"\n{product['product']}{budget}")
        for found in product["runs"]:
            console.print(_table(found))
            if found["unbilled"]:
                say(f"not billed yet: {', '.join(found['unbilled'])}")
        if not product["runs"]:
            say("nothing was billed yet")
        for text in product["advice"]:
            say(f"! {text}")
    if (standing := result["standing"]) is not None:
        say(f"\nendpoint {standing['endpoint']}: {_money(standing['per_hour_and_version'])} per hour and version")
    return text_of(console)


def _beside(result: dict[str, Any]) -> str:
    console = new_console(MIN_WIDTH)
    table = new_table(
        f"{result['currency']} from {result['first']} until {result['end']}, by ledger and by Cost Explorer"
    )
    for head in ("product", "stage", "ledger", "AWS"):
        table.add_column(head)
    for row in result["rows"]:
        named = [escape(row[key]) or "(no tag)" for key in ("product", "stage")]
        table.add_row(*named, _money(row["ledger"]), _money(row["aws"]))
    console.print(table)
    return text_of(console)


def _table(found: dict[str, Any]) -> Table:
    at = datetime.fromtimestamp(found["at_s"], tz=UTC).strftime("%Y-%m-%d %H:%M")
    table = new_table(escape(f"{found['release_id']}, begun {at}"))
    for head in HEADS:
        table.add_column(head)
    for stage in found["stages"]:
        table.add_row(
            stage["stage"],
            stage["service"],
            str(stage["num_attempts"]),
            f"{stage['billed_s']:.0f}",
            _money(stage["cost"]),
            stage["saved_by_spot"],
            _expected(stage["estimate"]),
            stage["prices"],
        )
    table.add_row("all", "", "", "", _money(found["cost"]), found["saved_by_spot"], _money(found["estimate"]), "")
    return table


def _money(cost: float | None) -> str:
    return "no price" if cost is None else f"{cost:.4f}"


def _expected(estimate: dict[str, Any] | None) -> str:
    return "" if estimate is None else f"{_money(estimate['cost'])} ({estimate['by']})"
