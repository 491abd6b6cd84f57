"""Bring the previous champion back. Talks to the model server and the release document only: Airflow may be down."""

import argparse
from time import monotonic
from typing import Any
from uuid import uuid4

from clearway.contracts.codec import to_jsonable
from clearway.contracts.verdict import Verdict
from clearway.deploy.spec import RollbackInputs
from clearway.infra.environment import Environment
from clearway.launch.arguments import add_product_argument, quiet_clients
from clearway.launch.stack import connected_if_running
from clearway.product_yaml import find_product


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which product, and why."""
    add_product_argument(parser)
    parser.add_argument("--reason", default="asked for on the command line", help="kept in the release document")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Roll back now."""
    from clearway.deploy.run import rollback  # noqa: PLC0415  (only this command needs it)

    quiet_clients()
    env = connected_if_running(Environment.load())
    product = find_product(env.products, args.product)
    # Every order by hand is a new one: an order that has ended is never carried out again.
    order = f"rollback-by-hand-{uuid4().hex[:8]}"
    inputs = RollbackInputs(product=product.name, release_id=order, reason=args.reason)
    begin_s = monotonic()
    outputs = rollback(inputs, product=product, env=env)
    return {"seconds": round(monotonic() - begin_s, 3), **to_jsonable(outputs)}


def render(result: dict[str, Any]) -> str:
    """For people."""
    if result["verdict"] != Verdict.PASS or result["status"] is None:
        return f"Not rolled back: {result['reason']}"
    return f"{result['status']['digest'][:8]} serves again after {result['seconds']:.2f} s. {result['reason']}"
