"""Make what Clearway needs in an AWS account, look whether it is all there, or remove it.

`up` ends with the variables to set: eval "$(python -m clearway aws up)". Progress goes to stderr.
"""

import argparse
import dataclasses
import re
import shlex
from typing import Any

from clearway.contracts.errors import ConfigError
from clearway.infra.aws.doctor import examine
from clearway.infra.aws.installation import DEFAULT_TAGS, Installation
from clearway.infra.aws.stacks import OPTIONS
from clearway.infra.clock import SystemClock
from clearway.infra.environment import Environment

DEFAULT_NAME = "clearway"
# What a bucket, a role and a queue may all be called, with room for what is appended.
_NAME = re.compile(r"[a-z][a-z0-9-]{1,18}[a-z0-9]", re.ASCII)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """`up`, `down`, `doctor`."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="up|down|doctor")
    up = actions.add_parser("up", help="make or update everything; prints the variables to set; safe to repeat")
    down = actions.add_parser("down", help="remove everything")
    doctor = actions.add_parser(
        "doctor", help="look at each thing that CLEARWAY_ENV=aws needs; exit code 1 if one fails"
    )
    for action in (up, down):
        action.add_argument("--name", default=DEFAULT_NAME, help=f"of the installation (default {DEFAULT_NAME})")
    for tag, default in DEFAULT_TAGS.items():
        up.add_argument(f"--{tag}", help=f"for the bill (default {default}, or what it was)")
    up.add_argument(
        "--with", action="append", default=[], dest="options", choices=OPTIONS, help="an option; kept from then on"
    )
    up.add_argument(
        "--set",
        action="append",
        default=[],
        dest="parameters",
        metavar="PARAMETER=VALUE",
        help="a parameter of the templates in include/aws, e.g. ImageTag=2",
    )
    down.add_argument("--with-data", action="store_true", help="even if bucket or table hold data, which is lost")
    for action in (up, down, doctor):  # accepted before and after the action alike
        action.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS)


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Variables, checks, or what was removed. Raises: ConfigError; Unavailable."""
    if args.action == "doctor":
        return {"checks": [dataclasses.asdict(check) for check in examine(Environment.load())]}
    if not _NAME.fullmatch(args.name):
        raise ConfigError(f"name {args.name!r} is not allowed; give 3 to 20 small letters, digits and hyphens")
    installation = Installation(args.name, clock=SystemClock())
    if args.action == "down":
        return {"removed": installation.down(with_data=args.with_data)}
    tags = {tag: value for tag in DEFAULT_TAGS if (value := getattr(args, tag))}
    share = "".join(letter for letter in args.team or "" if letter.isalnum())  # all that Batch takes for a name
    given = {**({"Team": share} if share else {}), **_parameters(args.parameters)}
    return {"settings": installation.up(given, tags=tags, wanted=args.options)}


def render(result: dict[str, Any]) -> str:
    """For people, and of `up` for a shell."""
    if "settings" in result:
        return "\n".join(f"export {name}={shlex.quote(value)}" for name, value in result["settings"].items())
    if "removed" in result:
        return f"removed: {', '.join(result['removed']) or 'nothing was there'}"
    lines = []
    for check in result["checks"]:
        lines.append(f"{'ok  ' if check['is_good'] else 'FAIL'} {check['about']}: {check['found']}")
        if not check["is_good"]:
            lines += [f"       allowed: {check['allowed']}", f"       next: {check['todo']}"]
    return "\n".join(lines)


def exit_code(result: dict[str, Any]) -> int:
    """1 if a check failed."""
    return int(not all(check["is_good"] for check in result.get("checks", ())))


def _parameters(words: list[str]) -> dict[str, str]:
    found = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not name or not equals:
            raise ConfigError(f"--set {word!r} is not PARAMETER=VALUE, e.g. --set ImageTag=2")
        found[name] = value
    return found
