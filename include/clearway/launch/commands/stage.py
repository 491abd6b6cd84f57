"""Run one stage of the loop on typed inputs, as every job runner does.

The inputs are the JSON form of the stage's Inputs (include/clearway/<stage>/spec.py). Running the same inputs again is
safe: the stage finds its own result.
"""

import argparse
import gc
import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clearway.contracts.codec import from_jsonable, to_jsonable
from clearway.contracts.errors import ClearwayError, ConfigError
from clearway.infra.environment import Environment
from clearway.infra.jobs.outcome import ERROR, MEASURED
from clearway.infra.jobs.usage import Gauge
from clearway.infra.storage import join, open_storage
from clearway.product_yaml import find_product
from clearway.release import VERBS, run_in_place

if TYPE_CHECKING:
    from clearway.train.machines import Place

# New objects between two collections of cyclic garbage. A job imports hundreds of modules and lives for seconds: with
# the default of 700 the search for garbage took 0.4 to 0.5 of 3 CPU s of importing Great Expectations or Evidently.
GC_OBJECTS = 100_000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Inputs as text or file; outputs to stdout or file."""
    inputs = parser.add_mutually_exclusive_group(required=True)
    inputs.add_argument("--inputs", help="JSON of the stage's Inputs")
    inputs.add_argument("--inputs-file", type=_uri, help="file that holds it; a path or s3://…")
    parser.add_argument(
        "--outputs",
        "--outputs-file",
        type=_uri,
        dest="outputs_file",
        help="where to write the Outputs; a path or s3://…",
    )


def run(args: argparse.Namespace) -> dict[str, Any] | None:
    """Outputs as a dict; with an outputs file, nothing on stdout and refusals written beside it."""
    gc.set_threshold(GC_OBJECTS, *gc.get_threshold()[1:])
    text = args.inputs if args.inputs is not None else _read(args.inputs_file)
    if args.command == "train" and (place := _other_place()) is not None:
        _assist(text, place)
        return None
    if args.outputs_file is None:
        return _run_stage(args.command, text)
    gauge, beside = Gauge(), args.outputs_file.rpartition("/")[0]
    try:
        outputs = _run_stage(args.command, text)
    except ClearwayError as error:
        _write(join(beside, MEASURED), to_jsonable(gauge.read()))
        _write(join(beside, ERROR), {"error": type(error).__name__, "text": str(error)})
        raise
    _write(join(beside, MEASURED), to_jsonable(gauge.read()))  # first: with the Outputs the job has ended
    _write(args.outputs_file, outputs)
    return None


def _other_place() -> "Place | None":
    """Where this machine stands among those of a training, if it is not the first of them."""
    training = Environment.load().training
    if not training.hosts:
        return None
    from clearway.train.machines import place_of  # noqa: PLC0415 - only there

    place = place_of(training)
    return None if place is None or place.is_first else place


def _assist(text: str, place: "Place") -> None:
    """A further machine of a training: what it has is gone with it, and what came of it the first one says."""
    from clearway.train.run import assist  # noqa: PLC0415 - only there

    inputs, env = _inputs("train", text), Environment.load()
    with tempfile.TemporaryDirectory(prefix="clearway-train-", ignore_cleanup_errors=True) as home:
        env = env.model_copy(update={"home": Path(home)})
        if env.aws.signing_secret:
            _bring_signing_key(env)
        assist(inputs, product=find_product(env.products, inputs.product), env=env, place=place)


def _inputs(name: str, text: str) -> Any:
    try:
        return from_jsonable(VERBS[name].inputs, json.loads(text))
    except (ValueError, TypeError, KeyError) as error:
        raise ConfigError(f"inputs of {name} are not usable: {error}") from error


def _run_stage(name: str, text: str) -> dict[str, Any]:
    inputs, env = _inputs(name, text), Environment.load()
    if env.aws.signing_secret:
        _bring_signing_key(env)
    product = find_product(env.products, inputs.product)
    outputs: dict[str, Any] = to_jsonable(run_in_place(name, inputs, product=product, env=env))
    return outputs


def _bring_signing_key(env: Environment) -> None:
    """On a machine that lives for one job, and trusts what the others of this account sign."""
    from clearway.infra.aws.secrets import binary_secret  # noqa: PLC0415 - only there
    from clearway.packaging.signing import install  # noqa: PLC0415

    install(binary_secret(env.aws.signing_secret), key_folder=env.home / "keys")


def _uri(text: str) -> str:
    return text if "://" in text else Path(text).resolve().as_uri()


def _read(uri: str) -> str:
    try:
        return open_storage(uri).read(uri).decode()
    except FileNotFoundError as error:
        raise ConfigError(f"--inputs-file {uri} does not exist; name a file with the JSON of the Inputs") from error


def _write(uri: str, value: dict[str, Any]) -> None:
    open_storage(uri).write(uri, json.dumps(value, allow_nan=False).encode())
