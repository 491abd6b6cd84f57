"""Import the heavy libraries once and fork stage jobs from that; part of the one-machine stack.

Jobs of the same home folder find it by themselves, and start without it where it is missing or does not fit.
"""

import argparse
import os
import sys
from typing import NoReturn

from clearway.infra.environment import Environment
from clearway.infra.jobs.local import jobs_folder
from clearway.infra.jobs.processes import child_variables
from clearway.infra.jobs.warm_worker import placeholder

# What the stages import, costliest first: 10 CPU seconds together. Not onnxruntime: its import starts a thread.
LIBRARIES = (
    "great_expectations",
    "evidently",
    "evidently.presets",
    "torch",
    "torch.distributed.launcher.api",
    "mlflow",
    "pyspark.sql",
    "pyspark.sql.connect.session",
    "pysail.spark",
    "sklearn",
    "lightgbm",
    "optuna",
    "onnx",
    "pyarrow.dataset",
    "safetensors.torch",
    "sqlalchemy",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """None of its own."""


def run(args: argparse.Namespace) -> NoReturn:  # noqa: ARG001  (the command interface)
    """Become the worker: a new interpreter, so that its environment is a job's from the first instruction on."""
    env = Environment.load()
    folder = jobs_folder(env)
    folder.mkdir(parents=True, exist_ok=True)
    command = (sys.executable, "-m", "clearway.infra.jobs.warm_worker", str(folder), *LIBRARIES)
    os.execve(sys.executable, command, child_variables(env, placeholder()))  # noqa: S606 - our own module
