"""Check that no feature of a batch knows the future: change what came later and compare, bit by bit.

Lands the batch and its look-back if they are not landed yet. Exit code 2 and the names of the features if one leaks.
"""

import argparse
from typing import Any

from clearway.contracts.codec import to_jsonable
from clearway.contracts.errors import DataError
from clearway.infra.clock import format_instant
from clearway.infra.environment import Environment
from clearway.ingest.run import run as ingest
from clearway.ingest.spec import Inputs
from clearway.product_yaml import find_product

# Each moment costs two computations of an hour of rows.
NUM_MOMENTS = 3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """--product, --batch, --moments."""
    parser.add_argument("--product", required=True, help="name of a product")
    parser.add_argument("--batch", required=True, help="batch id, the date its interval starts at")
    parser.add_argument("--moments", type=int, default=NUM_MOMENTS, help="moments to look at; more find rarer leaks")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """What was compared. Raises: LeakError."""
    from clearway.preprocess.leaks import check_leaks  # noqa: PLC0415 - pyspark

    env = Environment.load()
    product = find_product(env.products, args.product)
    clock = product.spec.batch
    start = clock.start_of(args.batch)
    first = clock.back(start, product.spec.features.lookback_days)
    window = Inputs(
        product=product.name, release_id="leaks", start=format_instant(first), end=format_instant(clock.end_of(start))
    )
    landed = ingest(window, product=product, env=env)
    if landed.raw is None:
        raise DataError(f"batch {args.batch} of {product.name!r} cannot be landed: {landed.reason}")
    report = check_leaks(landed.raw, product=product, env=env, batch_id=args.batch, num_moments=args.moments)
    found: dict[str, Any] = to_jsonable(report)
    return found


def render(result: dict[str, Any]) -> str:
    """One line for people."""
    return (
        f"no leak: {result['num_columns']} features of {result['num_rows']} rows, predicted just before "
        f"{', '.join(result['moments'])}, do not change with what came later"
    )
