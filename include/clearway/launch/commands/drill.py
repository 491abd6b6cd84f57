"""Release sabotaged copies of the champion to live traffic, and see each go back by itself: a fire drill."""

import argparse
from typing import Any

from clearway.contracts.codec import to_jsonable
from clearway.contracts.errors import JobFailed
from clearway.infra.environment import Environment
from clearway.launch.arguments import add_product_argument, quiet_clients
from clearway.launch.drill import drill
from clearway.launch.run_view import RunView
from clearway.launch.sabotage import Defect
from clearway.launch.stack import connected_if_running
from clearway.product_yaml import find_product


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which product, and what is wrong with the copy."""
    add_product_argument(parser)
    parser.add_argument("--defect", choices=[d.value for d in Defect], help="one of them; default: one after the other")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Drill. Raises: JobFailed if a bad copy took the traffic."""
    quiet_clients()
    env = connected_if_running(Environment.load())
    product = find_product(env.products, args.product)
    defects = [Defect(args.defect)] if args.defect else list(Defect)
    drilled = [drill(env, product, defect, say=RunView().say) for defect in defects]
    result = {"drills": to_jsonable(drilled)}
    if not all(d.is_safe for d in drilled):
        raise JobFailed(f"a bad copy was not taken back:\n{render(result)}")
    return result


def render(result: dict[str, Any]) -> str:
    """For people."""
    return "\n".join(
        f"{d['defect']:9} {'went back' if d['is_safe'] else 'STAYED'} after {d['num_requests']} requests, "
        f"{d['seconds']:.1f} s: {d['reason']}"
        for d in result["drills"]
    )
