"""The work of the train stage: rows, workers, package."""

import logging
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from clearway.contracts.errors import ConfigError
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
from clearway.train import launch as agent
from clearway.train.launch import Group, has_gpu, launch, num_local_processes
from clearway.train.machines import Meeting, Place, follow, lead, place_of
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
    place = place_of(env.training)
    with ExitStack() as until_trained:
        # Opened first: whoever waits on another machine hears at once if this one cannot even begin.
        first = None if place is None else until_trained.enter_context(lead(place, env.training))
        plan = _plan(inputs, product=product, env=env, storage=storage, folder=folder, place=place)
        own = Path(plan.job.folder)
        plan.prepared.write(own)
        rows, start = plan.prepared.train_facts["num_rows"], plan.prepared.holdout_start
        LOG.info("training on %d rows, holdout from %s", rows, start)
        processes = plan.num_processes
        if first is None:
            outcome = launch(plan.job, num_processes=processes, can_fork=can_fork, group=_group(env))
        else:
            restarts = env.training.max_restarts
            outcome = agent.lead(
                plan.job, first=first, num_processes=processes, can_fork=can_fork, max_restarts=restarts
            )
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


def assist(
    inputs: Inputs,
    *,
    product: LoadedProduct,
    env: Environment,
    storage: Storage,
    folder: Path,
    place: Place,
    can_fork: bool,
    is_done: Callable[[], bool],
) -> None:
    """Train on a machine that is not the first, with rows of its own, and leave nothing: the first one has it all.

    `is_done`: whether there is nothing left to train; what it raises the first machine hears, too.

    Raises: as `run`; JobFailed with what ended the training on another machine.
    """
    plans = list[Plan]()

    def prepare() -> str:
        if is_done():
            LOG.info("it is trained already; nothing to do for %s", place.name)
            return ""
        plan = _plan(inputs, product=product, env=env, storage=storage, folder=folder, place=place)
        plan.prepared.write(Path(plan.job.folder))
        plans.append(plan)
        return plan.job.identity

    def train(meeting: Meeting) -> None:
        plan, count = plans[0], len(place.names)
        processes = plan.num_processes
        agent.assist(plan.job, meeting, index=place.index, count=count, num_processes=processes, can_fork=can_fork)

    follow(place, env.training, prepare=prepare, run=train)


def _plan(
    inputs: Inputs, *, product: LoadedProduct, env: Environment, storage: Storage, folder: Path, place: Place | None
) -> Plan:
    kind, num_machines = kind_named(product.spec.model.kind), 1 if place is None else len(place.names)
    if kind.keeps_parts and num_machines > 1:
        raise ConfigError(
            f"training {product.name} on {num_machines} machines needs a folder that all of them share, since each "
            f"keeps its part of a checkpoint of a {kind.name} model; set aws.training_count to 1"
        )
    prepared = kind.prepare(inputs.dataset, inputs.params, product=product, env=env, storage=storage)
    num_processes = num_local_processes()
    is_bfloat16 = has_fast_bfloat16(torch.device("cuda" if has_gpu() else "cpu"))
    # A state that any number of processes may go on with is not of one number.
    counted = 0 if env.training.allows_other_world else num_processes * num_machines
    num_threads = env.jobs.num_threads if kind.uses_threads else 1
    machine = {"num_threads": num_threads, "num_processes": counted, "is_bfloat16": is_bfloat16}
    if num_machines > 1 and has_gpu():  # NCCL adds in another order across machines; gloo knows only processes
        machine["num_machines"] = num_machines
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
