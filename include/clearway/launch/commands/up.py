"""Start Airflow, MLflow and the model server on this machine, and watch over them until Ctrl-C.

In the foreground this process is their parent. With --detach a supervisor does it in the background and this command
returns once everything is healthy. A second start finds the first and says so.
"""

import argparse
from typing import Any

from clearway.infra.environment import Environment
from clearway.launch.arguments import add_stack_arguments, quiet_clients, stack_wish
from clearway.launch.stack import check_serves, ensure_stack, running_stack, supervise
from clearway.launch.state import StackState
from clearway.launch.status_view import StatusView
from clearway.launch.summary import render_stack, summarise_stack
from clearway.product_yaml import find_product


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the stack serves and where it listens."""
    add_stack_arguments(parser)
    parser.add_argument("--detach", action="store_true", help="leave the stack running in the background")


def run(args: argparse.Namespace) -> dict[str, Any] | None:
    """Start, or find what runs. Raises: ConfigError for a product that is not there, or not served by what runs."""
    quiet_clients()
    env, wish = Environment.load(), stack_wish(args)
    find_product(env.products, wish.product)
    with StatusView() as view:
        if args.detach:
            state, is_new = ensure_stack(env, wish, on_change=view.show)
            return summarise_stack(state, is_new=is_new)
        announce = _Announcer(view)
        if supervise(env, wish, on_change=announce) is not None:
            return None
    found = running_stack(env)
    if found:
        check_serves(found, wish.product)
    return summarise_stack(found, is_new=False) if found else None


def render(result: dict[str, Any]) -> str:
    """For people."""
    return render_stack(result)


class _Announcer:
    """Shows states, and once the addresses when all is healthy."""

    def __init__(self, view: StatusView) -> None:
        self._view = view
        self._is_announced = False

    def __call__(self, state: StackState) -> None:
        self._view.show(state)
        if state.ready_after_s and not self._is_announced:
            self._is_announced = True
            self._view.say(render_stack(summarise_stack(state, is_new=True)) + "\nCtrl-C stops everything.")
