"""Ask the model server as callers would, whenever a canary waits for evidence; part of the one-machine stack."""

import argparse
import itertools
from typing import Any

from clearway.infra.endpoint import open_endpoint
from clearway.infra.environment import Environment
from clearway.infra.release_store import open_release_store
from clearway.launch.arguments import add_product_argument, quiet_clients
from clearway.launch.callers import Callers
from clearway.product_yaml import check_name


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which product."""
    add_product_argument(parser)


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Until SIGTERM or Ctrl-C. Raises: ConfigError for a product that is not there, for which no canary ever waits."""
    quiet_clients()
    env = Environment.load()
    check_name(env.products, args.product)
    callers = Callers(open_release_store(env), open_endpoint(env), url=env.endpoint.url, product=args.product)
    return {"num_answered": callers.run(should_stop=itertools.repeat(False))}
