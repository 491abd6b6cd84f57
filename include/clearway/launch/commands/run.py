"""The whole loop: start the stack, release the first model, play weeks of live traffic, retrain when the data drifts.

Safe to run again: what is done is found, not repeated. The stack keeps running afterwards (`stop` ends it); Ctrl-C
during the run stops what this command started.
"""

import argparse
import logging
from time import monotonic
from typing import Any

from clearway.contracts.errors import ConfigError, JobFailed
from clearway.devices.fits import check_fits
from clearway.infra.environment import Environment
from clearway.launch.arguments import add_stack_arguments, add_week_arguments, quiet_clients, stack_wish
from clearway.launch.drive import Driver, sigterm_as_interrupt
from clearway.launch.plant import plant_fault
from clearway.launch.report_table import render_account
from clearway.launch.run_view import RunView
from clearway.launch.stack import ensure_stack, stop_stack
from clearway.launch.status_view import StatusView
from clearway.launch.summary import render_stack, summarise_stack
from clearway.product_yaml import find_product

logger = logging.getLogger("clearway.launch")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What to play, and where the stack listens."""
    add_stack_arguments(parser)
    add_week_arguments(parser, default="until the first retrained champion has served two more, at most 12")
    parser.add_argument(
        "--no-drill", dest="drill", action="store_false", help="skip the bad models that are planted at the end"
    )


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Play the loop; the account of everything that happened."""
    quiet_clients()
    begin_s = monotonic()
    env = Environment.load()
    product = find_product(env.products, args.product)
    check_fits(product.spec.resources, env.devices.classes)
    is_new = False
    with sigterm_as_interrupt():
        try:
            with StatusView() as status:
                state, is_new = ensure_stack(env, stack_wish(args), on_change=status.show)
            view = RunView()
            view.say(render_stack(summarise_stack(state, is_new=is_new)))
            with Driver(env, product, state, view) as driver:
                return _drive(driver, args, begin_s=begin_s)
        except KeyboardInterrupt:
            _stop_if_ours(env, is_new=is_new)
            raise


def render(result: dict[str, Any]) -> str:
    """For people."""
    return render_account(result)


def _drive(driver: Driver, args: argparse.Namespace, *, begin_s: float) -> dict[str, Any]:
    if args.weeks is not None and args.weeks < 0:
        raise ConfigError(f"--weeks {args.weeks} is negative; allowed: 0 or more")
    if driver.env.approve.mode == "auto":
        driver.view.say("Approvals answer themselves here (approve.mode: auto) and say so on record.")
    if args.fault:
        fault = plant_fault(driver.env, driver.product, fault=args.fault, batch_ids=driver.weeks_after_first(3))
        driver.view.say(f"A fault will be planted: {fault['fault']}, from the batch of {fault['from']} on.")
    if not driver.first_release():
        account = driver.account([], total_s=monotonic() - begin_s)
        first = account["releases"][0] if account["releases"] else {"outcome": "missing", "reason": ""}
        raise JobFailed(f"no model serves after the first release: {first['outcome']}: {first['reason']}")
    played = driver.play(weeks=args.weeks)
    driver.check_serving()
    drilled = driver.drill() if args.drill else []
    driver.check_serving()
    return driver.account(played, drilled=drilled, total_s=monotonic() - begin_s)


def _stop_if_ours(env: Environment, *, is_new: bool) -> None:
    if is_new:
        logger.warning("interrupted; stopping what this command started")
        with StatusView() as status:
            stop_stack(env, on_change=status.show)
