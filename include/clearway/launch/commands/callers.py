"""Ask the model server as callers would, whenever a canary waits for evidence; part of the one-machine stack."""

import argparse
import itertools
from typing import Any

from clearway.infra.endpoint import open_endpoint
from clearway.infra.environment import Environment
from clearway.infra.release_store import open_release_store
from clearway.launch.arguments import quiet_clients
from clearway.launch.callers import Callers, ask_all
from clearway.product_yaml import check_name


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which products."""
    text = "whose model server is asked; may be given several times"
    parser.add_argument("--product", action="append", required=True, dest="products", metavar="NAME", help=text)


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Until SIGTERM or Ctrl-C. Raises: ConfigError for a product that is not there, for which no canary ever waits."""
    quiet_clients()
    env = Environment.load()
    for name in args.products:
        check_name(env.products, name)
    store = open_release_store(env)
    callers = [
        Callers(store, open_endpoint(env, product=name), url=env.endpoint.url_of(name), product=name)
        for name in args.products
    ]
    return {"num_answered": ask_all(callers, should_stop=itertools.repeat(False))}
