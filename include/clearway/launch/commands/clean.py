"""Stop the stack and remove its home folder: data, models, predictions, logs, databases."""

import argparse
import shutil
import sys
from pathlib import Path
from typing import Any

from clearway.contracts.errors import ConfigError
from clearway.infra.environment import Environment, project_root
from clearway.launch.arguments import quiet_clients
from clearway.launch.stack import stack_paths, stop_stack
from clearway.launch.status_view import StatusView


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Whether to ask."""
    parser.add_argument("--yes", action="store_true", help="do not ask")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Stop, then remove."""
    quiet_clients()
    env = Environment.load()
    home = stack_paths(env).home
    refuse_strange_home(home)
    if not home.exists():
        return {"home": str(home), "removed": False, "was_running": False}
    if not args.yes and sys.stdin.isatty() and not _agreed(home):
        return {"home": str(home), "removed": False, "was_running": False}
    with StatusView() as view:
        was_running = stop_stack(env, on_change=view.show)
    shutil.rmtree(home)
    return {"home": str(home), "removed": True, "was_running": was_running}


def render(result: dict[str, Any]) -> str:
    """For people."""
    return f"Removed {result['home']}." if result["removed"] else f"Nothing removed ({result['home']})."


def refuse_strange_home(home: Path) -> None:
    """Raises: ConfigError if `home` is not a folder this project made: a mistyped CLEARWAY__HOME must not cost data."""
    is_parent = home in (project_root(), *project_root().parents, Path.home(), *Path.home().parents)
    if is_parent or (home.exists() and any(home.iterdir()) and not (home / "run").is_dir()):
        raise ConfigError(f"{home} does not look like a folder of this stack (no run/ in it); remove it yourself")


def _agreed(home: Path) -> bool:
    sys.stderr.write(f"Remove {home} with all data, models and logs in it? [y/N] ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in {"y", "yes"}
