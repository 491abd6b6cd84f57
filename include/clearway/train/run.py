"""The train stage: a validated dataset in, a signed model package out.

Three things are kept as they are reached, each found again by a rerun: checkpoints, the package, the MLflow record.
"""

import json
import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from clearway.contracts.codec import from_jsonable, to_jsonable
from clearway.contracts.errors import IntegrityError
from clearway.contracts.manifest import canonical_json, sha256_of
from clearway.contracts.refs import ModelRef
from clearway.contracts.verdict import Verdict
from clearway.infra.clock import SystemClock
from clearway.infra.environment import Environment
from clearway.infra.faults import fault
from clearway.infra.layout import Layout
from clearway.infra.storage import Storage, join, open_storage, scratch_of
from clearway.product import LoadedProduct
from clearway.train.spec import Inputs, Outputs, Trained

if TYPE_CHECKING:
    from clearway.train.machines import Place

T = TypeVar("T")
LOG = logging.getLogger("clearway.train")
TRAINED, RESULT = "trained.json", "result.json"


def run(inputs: Inputs, *, product: LoadedProduct, env: Environment) -> Outputs:
    """Train, or return what an earlier call with these inputs trained.

    Raises: IntegrityError without a receipt for this dataset; DataError for rows that cannot be trained on; JobFailed
        when the training was interrupted (a rerun resumes); Unavailable when only the MLflow record is missing.
    """
    is_safe = can_fork()  # asked first: reading one file gives pyarrow threads, and importing the trainer loads torch
    from clearway.packaging.receipt import check_receipt  # noqa: PLC0415 - its package imports numpy and pyarrow

    storage, layout = open_storage(env.store_root), Layout(env.store_root, product.name)
    check_receipt(storage, inputs.receipt_uri, inputs.dataset)
    folder = layout.release(inputs.release_id, "train", _request_digest(inputs, product)[:16])
    done = _kept(storage, join(folder, RESULT), Outputs)
    if done is not None and _is_intact(storage, done.model, env):
        return done
    trained = _kept(storage, join(folder, TRAINED), Trained)
    if trained is None or not _is_intact(storage, trained.model, env):
        trained = _produce(inputs, product, env, storage, folder, is_safe=is_safe)
        storage.write(join(folder, TRAINED), canonical_json(to_jsonable(trained)))
    fault("train.before_record")
    outputs = _outputs(inputs, trained, run_id=_record(inputs, trained, product, env))
    storage.write(join(folder, RESULT), canonical_json(to_jsonable(outputs)))
    return outputs


def assist(inputs: Inputs, *, product: LoadedProduct, env: Environment, place: "Place") -> None:
    """What a machine does that is not the first of a training: train with the others, if there is something to train.

    It looks at the same store as the first one, so that both come to the same answer. `env.home` is this machine's own.

    Raises: as `run`, and JobFailed if another machine failed.
    """
    is_safe = can_fork()  # as in `run`
    from clearway.packaging.receipt import check_receipt  # noqa: PLC0415 - as in `run`
    from clearway.train import produce  # noqa: PLC0415 - torch

    storage, layout = open_storage(env.store_root), Layout(env.store_root, product.name)

    def is_done() -> bool:
        check_receipt(storage, inputs.receipt_uri, inputs.dataset)
        folder = layout.release(inputs.release_id, "train", _request_digest(inputs, product)[:16])
        done, trained = _kept(storage, join(folder, RESULT), Outputs), _kept(storage, join(folder, TRAINED), Trained)
        return any(kept is not None and _is_intact(storage, kept.model, env) for kept in (done, trained))

    produce.assist(
        inputs,
        product=product,
        env=env,
        storage=storage,
        folder=env.home / "train",
        place=place,
        can_fork=is_safe,
        is_done=is_done,
    )


def _produce(
    inputs: Inputs, product: LoadedProduct, env: Environment, storage: Storage, folder: str, *, is_safe: bool
) -> Trained:
    from clearway.train.produce import produce  # noqa: PLC0415 - torch, onnx

    return produce(
        inputs,
        product=product,
        env=env,
        storage=storage,
        folder=scratch_of(folder, root=env.store_root, scratch=env.scratch),
        clock=SystemClock(),
        can_fork=is_safe,
    )


def can_fork() -> bool:
    """Whether torch has computed nothing in this process: it is not loaded, or nothing here has a second thread yet."""
    tasks = Path("/proc/self/task")
    return "torch" not in sys.modules or (tasks.exists() and len(list(tasks.iterdir())) == 1)


def _request_digest(inputs: Inputs, product: LoadedProduct) -> str:
    asked = {"dataset": inputs.dataset.digest, "params": inputs.params, "product": product.digest}
    return sha256_of(canonical_json(asked))


def _kept(storage: Storage, uri: str, cls: type[T]) -> T | None:
    return from_jsonable(cls, json.loads(storage.read(uri))) if storage.exists(uri) else None


def _is_intact(storage: Storage, ref: ModelRef, env: Environment) -> bool:
    from clearway.packaging.package import open_package  # noqa: PLC0415 - cryptography, encoder

    try:
        open_package(storage, ref.uri, ref.digest, key_folder=env.home / "keys")
    except IntegrityError as error:
        LOG.warning("earlier package is not usable, training again: %s", error)
        return False
    return True


def _outputs(inputs: Inputs, trained: Trained, *, run_id: str) -> Outputs:
    return Outputs(
        verdict=Verdict.PASS,
        reason=f"trained on dataset {inputs.dataset.digest[:12]}",
        model=trained.model,
        mlflow_run_id=run_id,
        duration_s=trained.ended_s - trained.started_s,
    )


def _record(inputs: Inputs, trained: Trained, product: LoadedProduct, env: Environment) -> str:
    """The run in MLflow; its id."""
    from clearway.infra.tracking import open_tracking  # noqa: PLC0415 - opens MLflow
    from clearway.train.record import run_record  # noqa: PLC0415

    record = run_record(trained, product=product.name, release_id=inputs.release_id)
    return open_tracking(env).log_run(record)
