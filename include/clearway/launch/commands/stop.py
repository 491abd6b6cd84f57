"""Stop everything that `run` or `up` started, and wait until the last process is gone."""

import argparse
from typing import Any

from clearway.infra.environment import Environment
from clearway.launch.arguments import quiet_clients
from clearway.launch.stack import stop_stack
from clearway.launch.status_view import StatusView


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """None of its own."""


def run(args: argparse.Namespace) -> dict[str, Any]:  # noqa: ARG001  (the command interface)
    """Stop the stack of this home."""
    quiet_clients()
    with StatusView() as view:
        was_running = stop_stack(Environment.load(), on_change=view.show)
    return {"was_running": was_running}


def render(result: dict[str, Any]) -> str:
    """For people."""
    return "Stopped; nothing is left running." if result["was_running"] else "Nothing was running."
