"""Score a landed batch by the released model with a transform job of SageMaker, beside the endpoint."""

import argparse
from typing import Any

from clearway.contracts.codec import to_jsonable
from clearway.infra.clock import SystemClock
from clearway.infra.environment import Environment
from clearway.launch.arguments import add_product_argument
from clearway.product_yaml import find_product


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which batch, and whether to end what runs."""
    add_product_argument(parser)
    parser.add_argument("--batch", required=True, metavar="ID", help="batch that has landed, as in 2013-05-06")
    parser.add_argument("--stop", action="store_true", help="stop the job that scores it")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Wait for the scores. Ctrl-C leaves the job alone; the same command finds it again."""
    from clearway.infra.aws.transform import SageMakerTransform  # noqa: PLC0415  (only this command needs them)
    from clearway.serve.offline import Offline  # noqa: PLC0415

    env = Environment.load()
    product = find_product(env.products, args.product)
    batch = Offline(args.batch, product=product, env=env, service=SageMakerTransform(env), clock=SystemClock())
    return {"stopped": batch.stop()} if args.stop else dict(to_jsonable(batch.score()))


def render(result: dict[str, Any]) -> str:
    """For people."""
    if "stopped" in result:
        return f"{result['stopped']} is told to stop" if result["stopped"] else "nothing runs"
    cost = "no price known" if result["cost"] is None else f"${result['cost']:.4f}"
    return f"{result['num_rows']} rows by {result['digest'][:12]}, {result['hours']:.3f} h, {cost}\n{result['uri']}"
