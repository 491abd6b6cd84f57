"""Release a model on the newest landed data (or --as-of an earlier moment), through the release DAG."""

import argparse
from datetime import UTC, datetime
from time import monotonic
from typing import Any

from clearway.contracts.errors import ConfigError
from clearway.infra.clock import SystemClock, format_instant, parse_instant
from clearway.infra.environment import Environment
from clearway.launch.arguments import add_product_argument, quiet_clients
from clearway.launch.drive import Driver, needed_stack, sigterm_as_interrupt
from clearway.launch.report_table import render_account
from clearway.launch.run_view import RunView
from clearway.product_yaml import find_product


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which data counts."""
    add_product_argument(parser)
    parser.add_argument("--as-of", help="what was known then, ISO 8601 UTC (default: end of the newest landed batch)")
    parser.add_argument("--run-id", help="name of the run; the same name again finds that run (default: a new one)")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Start the release and wait for its end."""
    quiet_clients()
    begin_s = monotonic()
    env = Environment.load()
    product = find_product(env.products, args.product)
    as_of = _instant(args.as_of) if args.as_of else None
    now = format_instant(datetime.fromtimestamp(SystemClock().now_s(), tz=UTC))
    run_id = args.run_id or f"manual-{now}".replace(":", "")
    with sigterm_as_interrupt(), Driver(env, product, needed_stack(env), RunView()) as driver:
        known = f"everything known on {as_of:%d %B %Y}" if as_of else "all landed batches"
        driver.view.say(f"Release of {product.name}: {known} ({run_id})")
        driver.loop.release(run_id, as_of=as_of, note="by `python -m clearway release`")
        return driver.account([], total_s=monotonic() - begin_s)


def render(result: dict[str, Any]) -> str:
    """For people."""
    return render_account(result)


def _instant(text: str) -> datetime:
    try:
        return parse_instant(text)
    except ValueError as error:
        raise ConfigError(f"--as-of {text!r} is no date; allowed: YYYY-MM-DD or ISO 8601") from error
