"""The work of the train stage: rows, workers, package."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import torch

from clearway.contracts.errors import IntegrityError
from clearway.contracts.manifest import canonical_json, sha256_of
from clearway.engine.checkpoints import load_newest
from clearway.engine.interrupt import EC2_METADATA
from clearway.infra.clock import Clock
from clearway.infra.datasets import DAY, DatasetDocument, open_dataset
from clearway.infra.environment import Environment, project_root
from clearway.infra.faults import fault
from clearway.infra.layout import Layout
from clearway.infra.storage import Storage, to_path
from clearway.packaging.package import PackageContents, write_package
from clearway.packaging.split import Split
from clearway.product import LoadedProduct, Model
from clearway.tabular.fit import has_fast_bfloat16
from clearway.tabular.training_set import (
    TrainingSet,
    make_training_set,
    settings_of,
    training_rows,
    write_arrays,
)
from clearway.train.contents import base_rate, package_contents
from clearway.train.launch import Group, has_gpu, launch, num_local_processes
from clearway.train.provenance import code_commit, code_digest, environment_facts, git_state, lock_digest
from clearway.train.spec import Inputs, Trained
from clearway.train.worker import ARRAYS, Job, Outcome

LOG = logging.getLogger("clearway.train")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is about to be trained."""

    document: DatasetDocument
    split: Split
    settings: Model
    training_set: TrainingSet
    job: Job
    num_processes: int


def produce(
    inputs: Inputs,
    *,
    product: LoadedProduct,
    env: Environment,
    storage: Storage,
    folder: str,
    clock: Clock,
    can_fork: bool,
) -> Trained:
    """Train to the end and store the package.

    `folder`: where this request keeps its checkpoints; `can_fork` as in `launch`.

    Raises: as `run`.
    """
    started_s, layout = clock.now_s(), Layout(env.store_root, product.name)
    plan = _plan(inputs, product=product, env=env, storage=storage, folder=to_path(folder))
    write_arrays(plan.training_set, Path(plan.job.folder) / ARRAYS)
    LOG.info("training on %d rows, holdout from %s", plan.training_set.num_rows, plan.split.holdout_start)
    outcome = launch(plan.job, num_processes=plan.num_processes, can_fork=can_fork, group=_group(env))
    fault("train.before_package")
    facts = _facts(inputs, plan, outcome)
    ref = write_package(storage, layout, _contents(plan, product, facts), key_folder=env.home / "keys")
    (Path(plan.job.folder) / ARRAYS).unlink(missing_ok=True)
    return Trained(
        model=ref,
        job=plan.job.identity,
        history=outcome.history,
        params=_logged_params(facts),
        started_s=started_s,
        ended_s=clock.now_s(),
        fit_s=outcome.fit_s,
        num_samples=outcome.num_samples,
        paces=_paces(outcome),
    )


def _plan(inputs: Inputs, *, product: LoadedProduct, env: Environment, storage: Storage, folder: Path) -> Plan:
    settings = settings_of(product, inputs.params)
    split = training_rows(storage, inputs.dataset, product=product, env=env)
    training_set = make_training_set(split.train, features=product.spec.features, model=settings)
    num_processes = num_local_processes()
    is_bfloat16 = has_fast_bfloat16(torch.device("cuda" if has_gpu() else "cpu"))
    # A state that any number of processes may go on with is not of one number.
    counted = 0 if env.training.allows_other_world else num_processes
    machine = {"num_threads": env.jobs.num_threads, "num_processes": counted, "is_bfloat16": is_bfloat16}
    identity = _identity(inputs, settings, training_set, machine=machine)
    # A folder of its own per identity: other code or another kind of machine starts afresh instead of mixing states.
    own = folder / identity[:16]
    own.mkdir(parents=True, exist_ok=True)
    job = Job(
        folder=str(own),
        identity=identity,
        num_numeric=len(training_set.encoder.numeric),
        cardinalities=training_set.encoder.cardinalities,
        settings=settings.model_dump(mode="json"),
        num_threads=env.jobs.num_threads,
        is_bfloat16=is_bfloat16,
        collective_timeout_s=env.training.collective_timeout_s,
        allows_other_world=env.training.allows_other_world,
        stop_file=env.training.stop_file,
        metadata_url=EC2_METADATA if env.training.watches_spot else "",
    )
    return Plan(
        document=open_dataset(storage, inputs.dataset),
        split=split,
        settings=settings,
        training_set=training_set,
        job=job,
        num_processes=num_processes,
    )


def _group(env: Environment) -> Group:
    asked = env.training
    return Group(
        min_nodes=asked.min_nodes,
        max_nodes=asked.max_nodes,
        rendezvous=asked.rendezvous,
        max_restarts=asked.max_restarts,
    )


def _identity(inputs: Inputs, settings: Model, training_set: TrainingSet, *, machine: dict[str, int]) -> str:
    """Digest of everything that decides the bits of the result; how often to checkpoint does not."""
    deciding = {
        "dataset": inputs.dataset.digest,
        "settings": settings.model_dump(mode="json", exclude={"checkpoint_s"}),
        "encoder": sha256_of(training_set.encoder.to_json()),
        "num_rows": training_set.num_rows,
        "machine": machine,
        "code": code_digest(),
        "environment": environment_facts(),
    }
    return sha256_of(canonical_json(deciding))


def _facts(inputs: Inputs, plan: Plan, outcome: Outcome) -> dict[str, Any]:
    """Only what follows from the inputs, the code and the kind of machine: no clock, host name or release id may enter
    the package, or training twice would give two digests."""
    train = plan.split.train
    rows = {"num_rows": len(train), "base_rate": base_rate(train)}
    days = {"first_day": str(pc.min(train[DAY]).as_py()), "last_day": str(pc.max(train[DAY]).as_py())}
    return {
        "dataset": {"digest": inputs.dataset.digest, "as_of": plan.document.as_of},
        "train": rows | days,
        "holdout_start": str(plan.split.holdout_start),
        "params": plan.settings.model_dump(mode="json", exclude={"checkpoint_s"}),
        "seed": plan.settings.seed,
        "num_steps": outcome.num_steps,
        "world_size": outcome.world_size,
        "is_bitwise": outcome.is_bitwise,
        "num_threads": plan.job.num_threads,
        "is_bfloat16": plan.job.is_bfloat16,
        "device": outcome.device,
        "job": plan.job.identity,
        "git": {"commit": code_commit(project_root()), "code_digest": code_digest()},
        "lock_digest": lock_digest(),
        "environment": environment_facts(),
    }


def _contents(plan: Plan, product: LoadedProduct, facts: dict[str, Any]) -> PackageContents:
    state = load_newest(Path(plan.job.folder), job=plan.job.identity)
    if state is None:
        raise IntegrityError(f"training in {plan.job.folder} left no checkpoint; train again")
    weights = {n.removeprefix("model."): t.numpy() for n, t in state.tensors.items() if n.startswith("model.")}
    return package_contents(
        plan.split.train,
        product=product.spec,
        encoder=plan.training_set.encoder,
        bins=plan.training_set.bins,
        shape=plan.job.shape,
        weights=weights,
        facts=facts,
    )


def _paces(outcome: Outcome) -> tuple[tuple[float, ...], ...]:
    steps = {round(done): step for step, done, *_ in outcome.history if done == round(done)}
    return tuple((steps[p.epoch], p.samples_per_s, p.wait_share) for p in outcome.paces if p.epoch in steps)


def _logged_params(facts: dict[str, Any]) -> dict[str, str]:
    """Facts flattened to dotted names; the model's own parameters keep their plain ones."""
    flat: dict[str, str] = {}
    for name, value in facts.items():
        inner = value if isinstance(value, dict) else {"": value}
        prefix = "" if name == "params" else name
        flat |= {".".join(part for part in (prefix, key) if part): str(v) for key, v in inner.items()}
    return flat | {f"git.{name}": value for name, value in git_state(project_root()).items()}
