"""The work of the train stage: rows, workers, package."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from clearway.contracts.manifest import canonical_json, sha256_of
from clearway.engine.interrupt import EC2_METADATA
from clearway.infra.clock import Clock
from clearway.infra.datasets import open_dataset
from clearway.infra.environment import Environment, project_root
from clearway.infra.faults import fault
from clearway.infra.layout import Layout
from clearway.infra.storage import Storage
from clearway.kinds.kind import Kind, Prepared, kind_named
from clearway.packaging.package import write_package
from clearway.product import LoadedProduct
from clearway.tabular.fit import has_fast_bfloat16
from clearway.train.launch import Group, has_gpu, launch, num_local_processes
from clearway.train.provenance import code_commit, code_digest, environment_facts, git_state, lock_digest
from clearway.train.spec import Inputs, Trained
from clearway.train.worker import Job, Outcome

LOG = logging.getLogger("clearway.train")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is about to be trained."""

    as_of: str
    kind: Kind
    prepared: Prepared
    job: Job
    num_processes: int


def produce(
    inputs: Inputs,
    *,
    product: LoadedProduct,
    env: Environment,
    storage: Storage,
    folder: Path,
    clock: Clock,
    can_fork: bool,
) -> Trained:
    """Train to the end and store the package.

    `folder`: where this request keeps its checkpoints; `can_fork` as in `launch`.

    Raises: as `run`.
    """
    started_s, layout = clock.now_s(), Layout(env.store_root, product.name)
    plan = _plan(inputs, product=product, env=env, storage=storage, folder=folder)
    own = Path(plan.job.folder)
    plan.prepared.write(own)
    rows, start = plan.prepared.train_facts["num_rows"], plan.prepared.holdout_start
    LOG.info("training on %d rows, holdout from %s", rows, start)
    outcome = launch(plan.job, num_processes=plan.num_processes, can_fork=can_fork, group=_group(env))
    fault("train.before_package")
    contents = plan.prepared.contents(own, job=plan.job.identity, facts=_facts(inputs, plan, outcome))
    ref = write_package(storage, layout, contents, key_folder=env.home / "keys")
    plan.prepared.forget(own)
    return Trained(
        model=ref,
        job=plan.job.identity,
        history=outcome.history,
        params=_logged_params(contents.facts),
        started_s=started_s,
        ended_s=clock.now_s(),
        fit_s=outcome.fit_s,
        num_samples=outcome.num_samples,
        paces=_paces(outcome),
    )


def _plan(inputs: Inputs, *, product: LoadedProduct, env: Environment, storage: Storage, folder: Path) -> Plan:
    kind = kind_named(product.spec.model.kind)
    prepared = kind.prepare(inputs.dataset, inputs.params, product=product, env=env, storage=storage)
    num_processes = num_local_processes()
    is_bfloat16 = has_fast_bfloat16(torch.device("cuda" if has_gpu() else "cpu"))
    # A state that any number of processes may go on with is not of one number.
    counted = 0 if env.training.allows_other_world else num_processes
    num_threads = env.jobs.num_threads if kind.uses_threads else 1
    machine = {"num_threads": num_threads, "num_processes": counted, "is_bfloat16": is_bfloat16}
    identity = _identity(inputs, kind, prepared, machine=machine)
    # A folder of its own per identity: other code or another kind of machine starts afresh instead of mixing states.
    own = folder / identity[:16]
    own.mkdir(parents=True, exist_ok=True)
    job = Job(
        folder=str(own),
        identity=identity,
        kind=kind.name,
        sizes=dict(prepared.sizes),
        settings=prepared.settings.model_dump(mode="json"),
        num_threads=num_threads,
        is_bfloat16=is_bfloat16,
        collective_timeout_s=env.training.collective_timeout_s,
        allows_other_world=env.training.allows_other_world,
        stop_file=env.training.stop_file,
        metadata_url=EC2_METADATA if env.training.watches_spot else "",
    )
    as_of = open_dataset(storage, inputs.dataset).as_of
    return Plan(as_of=as_of, kind=kind, prepared=prepared, job=job, num_processes=num_processes)


def _group(env: Environment) -> Group:
    asked = env.training
    return Group(
        min_nodes=asked.min_nodes,
        max_nodes=asked.max_nodes,
        rendezvous=asked.rendezvous,
        max_restarts=asked.max_restarts,
    )


def _identity(inputs: Inputs, kind: Kind, prepared: Prepared, *, machine: dict[str, int]) -> str:
    """Digest of everything that decides the bits of the result; how often to checkpoint does not."""
    deciding = {
        **prepared.deciding,
        "dataset": inputs.dataset.digest,
        "settings": prepared.settings.model_dump(mode="json", exclude={"checkpoint_s"}),
        "machine": machine,
        "code": code_digest(kind.room),
        "environment": environment_facts(),
    }
    return sha256_of(canonical_json(deciding))


def _facts(inputs: Inputs, plan: Plan, outcome: Outcome) -> dict[str, Any]:
    """Only what follows from the inputs, the code and the kind of machine: no clock, host name or release id may enter
    the package, or training twice would give two digests."""
    settings = plan.prepared.settings
    return {
        "dataset": {"digest": inputs.dataset.digest, "as_of": plan.as_of},
        "train": plan.prepared.train_facts,
        "holdout_start": str(plan.prepared.holdout_start),
        "params": settings.model_dump(mode="json", exclude={"checkpoint_s"}),
        "seed": settings.seed,
        "num_steps": outcome.num_steps,
        "world_size": outcome.world_size,
        "is_bitwise": outcome.is_bitwise,
        "num_threads": plan.job.num_threads,
        "is_bfloat16": plan.job.is_bfloat16,
        "device": outcome.device,
        "job": plan.job.identity,
        "git": {
            "commit": code_commit(project_root(), plan.kind.room),
            "code_digest": code_digest(plan.kind.room),
        },
        "lock_digest": lock_digest(),
        "environment": environment_facts(),
    }


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
