"""`python -m clearway <command> …`: one entry point for people, for Airflow's jobs and for scripts.

Commands are the modules of clearway.launch.commands, found by name and imported only when asked for. Each has
    a docstring                 its first line is the help text
    add_arguments(parser)       argparse arguments
    run(args) -> dict | None    the work; the dict is the command's whole result, JSON values only
    render(result) -> str       (optional) the same for people
    exit_code(result) -> int    (optional) 1 for an answer that says no
Every command takes --json.
Exit codes: 0 done; 1 the answer is no; 2 refused, repeating cannot help; 3 failed, repeating may help; 130 Ctrl-C.
"""

import argparse
import errno
import importlib
import importlib.util
import json
import logging
import pkgutil
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any

from clearway.contracts.errors import ClearwayError

COMMANDS = "clearway.launch.commands"
# The loop's verbs share one module; named here so that `--help` of anything else need not import them.
VERBS = (
    "ingest",
    "preprocess",
    "validate",
    "tune",
    "train",
    "yardsticks",
    "evaluate",
    "approve",
    "deploy",
    "serve",
    "monitor",
    "revert",
)
EXIT_REFUSED, EXIT_FAILED, EXIT_INTERRUPTED = 2, 3, 130
# A full disk, a folder that may not be written, too many open files: nobody looks for that in a traceback.
MACHINE_TROUBLE = frozenset(
    {
        errno.ENOSPC,
        errno.EDQUOT,
        errno.EROFS,
        errno.EACCES,
        errno.EPERM,
        errno.ENOTDIR,
        errno.EMFILE,
        errno.ENFILE,
        errno.EIO,
    }
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in {"-h", "--help"}:
        sys.stdout.write(_overview())
        return 0
    name, rest = words[0], words[1:]
    if name not in _names():
        sys.stderr.write(f"command {name!r} is unknown; allowed: {', '.join(_names())}\n")
        return EXIT_REFUSED
    module = _module(name)
    args = _parser(name, module).parse_args(rest)
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    try:
        result = module.run(args)
    except ClearwayError as error:
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        return EXIT_FAILED if error.is_retryable else EXIT_REFUSED
    except OSError as error:
        if error.errno not in MACHINE_TROUBLE:
            raise
        sys.stderr.write(f"{type(error).__name__}: {error}; mend that on this machine, then run the same again\n")
        return EXIT_FAILED
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    _show(module, args, result)
    return int(module.exit_code(result)) if hasattr(module, "exit_code") else 0


def _names() -> list[str]:
    spec = importlib.util.find_spec(COMMANDS)
    folders = list(spec.submodule_search_locations or []) if spec else []
    found = {m.name.replace("_", "-") for m in pkgutil.iter_modules(folders)} - {"stage"}
    return [*VERBS, *sorted(found)]


def _module(name: str) -> ModuleType:
    return importlib.import_module(f"{COMMANDS}.{'stage' if name in VERBS else name.replace('-', '_')}")


def _parser(name: str, module: ModuleType) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=f"python -m clearway {name}", description=module.__doc__)
    parser.set_defaults(command=name)
    parser.add_argument("--json", action="store_true", help="print the result as one JSON document")
    module.add_arguments(parser)
    return parser


def _overview() -> str:
    lines = ["usage: python -m clearway <command> [--help] …", "", f"the loop's verbs: {', '.join(VERBS)}", ""]
    for name in _names():
        if name not in VERBS:
            lines.append(f"  {name:<12} {(_module(name).__doc__ or '').strip().splitlines()[0]}")
    return "\n".join(lines) + "\n"


def _show(module: ModuleType, args: argparse.Namespace, result: dict[str, Any] | None) -> None:
    if result is None:
        return
    if args.json:
        sys.stdout.write(json.dumps(result, allow_nan=False) + "\n")
    elif hasattr(module, "render"):
        sys.stdout.write(module.render(result).rstrip("\n") + "\n")
    else:
        sys.stdout.write("".join(f"{key}: {value}\n" for key, value in result.items()))


if __name__ == "__main__":
    sys.exit(main())
