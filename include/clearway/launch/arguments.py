"""Arguments that several sub-commands share."""

import argparse
import logging

from clearway.launch.ports import Ports
from clearway.launch.stack import StackWish

DEFAULT_PRODUCT = "flights"


def add_product_argument(parser: argparse.ArgumentParser) -> None:
    """Which product a command is about."""
    parser.add_argument("--product", default=DEFAULT_PRODUCT, help=f"product name (default {DEFAULT_PRODUCT})")


def add_stack_arguments(parser: argparse.ArgumentParser) -> None:
    """What a stack serves and which ports it tries first."""
    add_product_argument(parser)
    wanted = Ports()
    for name in ("airflow", "mlflow", "endpoint"):
        port = getattr(wanted, name)
        parser.add_argument(
            f"--{name}-port", type=int, default=port, metavar="PORT", help=f"first choice on 127.0.0.1 (default {port})"
        )


def stack_wish(args: argparse.Namespace) -> StackWish:
    """The wish those arguments express."""
    ports = Ports(airflow=args.airflow_port, mlflow=args.mlflow_port, endpoint=args.endpoint_port)
    return StackWish(product=args.product, ports=ports)


def quiet_clients() -> None:
    """HTTP clients log every request at INFO; polling would bury what people read."""
    for name in ("httpx", "httpcore"):
        logging.getLogger(name).setLevel(logging.WARNING)


def add_week_arguments(parser: argparse.ArgumentParser, *, default: str) -> None:
    """How much to play, and what to plant."""
    parser.add_argument("--weeks", type=int, metavar="N", help=f"number of batches to play (default: {default})")
    parser.add_argument("--fault", metavar="NAME", help="plant an abrupt, announced fault after two clean batches")
