"""Run one stage of the loop on typed inputs, as every job runner does.

The inputs are the JSON form of the stage's Inputs (include/clearway/<stage>/spec.py). Running the same inputs again is
safe: the stage finds its own result.
"""

import argparse
import gc
import json
from pathlib import Path
from typing import Any

from clearway.contracts.codec import from_jsonable, to_jsonable
from clearway.contracts.errors import ClearwayError, ConfigError
from clearway.infra.environment import Environment
from clearway.infra.storage import LocalStorage
from clearway.product_yaml import find_product
from clearway.release import VERBS, run_in_place

ERROR_FILE = "error.json"
# New objects between two collections of cyclic garbage. A job imports hundreds of modules and lives for seconds: with
# the default of 700 the search for garbage took 0.4 to 0.5 of 3 CPU s of importing Great Expectations or Evidently.
GC_OBJECTS = 100_000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Inputs as text or file; outputs to stdout or file."""
    inputs = parser.add_mutually_exclusive_group(required=True)
    inputs.add_argument("--inputs", help="JSON of the stage's Inputs")
    inputs.add_argument("--inputs-file", type=Path, help="file that holds it")
    parser.add_argument(
        "--outputs", "--outputs-file", type=Path, dest="outputs_file", help="where to write the Outputs"
    )


def run(args: argparse.Namespace) -> dict[str, Any] | None:
    """Outputs as a dict; with an outputs file, nothing on stdout and refusals written beside it."""
    gc.set_threshold(GC_OBJECTS, *gc.get_threshold()[1:])
    text = args.inputs if args.inputs is not None else args.inputs_file.read_text(encoding="utf-8")
    if args.outputs_file is None:
        return _run_stage(args.command, text)
    try:
        outputs = _run_stage(args.command, text)
    except ClearwayError as error:
        _write(args.outputs_file.with_name(ERROR_FILE), {"error": type(error).__name__, "text": str(error)})
        raise
    _write(args.outputs_file, outputs)
    return None


def _run_stage(name: str, text: str) -> dict[str, Any]:
    try:
        inputs = from_jsonable(VERBS[name].inputs, json.loads(text))
    except (ValueError, TypeError, KeyError) as error:
        raise ConfigError(f"inputs of {name} are not usable: {error}") from error
    env = Environment.load()
    product = find_product(env.products, inputs.product)
    outputs: dict[str, Any] = to_jsonable(run_in_place(name, inputs, product=product, env=env))
    return outputs


def _write(path: Path, value: dict[str, Any]) -> None:
    LocalStorage().write(path.resolve().as_uri(), json.dumps(value, allow_nan=False).encode())
