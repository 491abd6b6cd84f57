"""Play further weeks through the running stack: landed, predicted, labelled, watched, and retrained where decided.

With --policy nothing runs: the product's whole past goes through the monitor's decisions in this process, and each
retraining policy asked for gets its account and its line on one page.
"""

import argparse
from time import monotonic
from typing import Any

from clearway.infra.environment import Environment
from clearway.infra.layout import Layout
from clearway.infra.storage import open_storage
from clearway.launch.arguments import add_product_argument, add_week_arguments, quiet_clients
from clearway.launch.drive import Driver, needed_stack, sigterm_as_interrupt
from clearway.launch.plant import plant_fault
from clearway.launch.policy_table import render_policies
from clearway.launch.report_table import render_account
from clearway.launch.run_view import RunView
from clearway.product_yaml import find_product

# More batches than any replay of a day's clock over years would ask for.
SEARCH_LIMIT = 5000
POLICY_NAMES = ("never", "weekly", "monthly", "drift", "performance", "shipped", "oracle")
ALL = "all"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What to play."""
    add_product_argument(parser)
    add_week_arguments(parser, default="1")
    parser.add_argument(
        "--policy",
        nargs="+",
        choices=(*POLICY_NAMES, ALL),
        metavar="NAME",
        help=f"compare retraining policies over the past instead: {', '.join(POLICY_NAMES)}, or {ALL}",
    )


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Play the next batches; the account of everything that happened so far."""
    quiet_clients()
    begin_s = monotonic()
    env = Environment.load()
    product = find_product(env.products, args.product)
    if args.policy:
        from clearway.launch.backtest.run import backtest  # noqa: PLC0415 - numpy, LightGBM

        names = POLICY_NAMES if ALL in args.policy else tuple(args.policy)
        return backtest(env, product, names=names)
    with sigterm_as_interrupt(), Driver(env, product, needed_stack(env), RunView()) as driver:
        skip = _num_done(driver)
        if args.fault:
            coming = driver.weeks_after_first(skip + 3)[skip:]
            fault = plant_fault(driver.env, product, fault=args.fault, batch_ids=coming)
            driver.view.say(f"A fault will be planted: {fault['fault']}, from the batch of {fault['from']} on.")
        played = driver.play(weeks=1 if args.weeks is None else args.weeks, skip=skip)
        return driver.account(played, total_s=monotonic() - begin_s)


def render(result: dict[str, Any]) -> str:
    """For people."""
    return render_policies(result) if "policies" in result else render_account(result)


def _num_done(driver: Driver) -> int:
    """How many batches in a row were already watched to the end."""
    storage, layout = open_storage(driver.env.store_root), Layout(driver.env.store_root, driver.product.name)
    coming = driver.weeks_after_first(SEARCH_LIMIT)
    return next(i for i, b in enumerate(coming) if not storage.exists(layout.monitor(b, "summary.json")))
