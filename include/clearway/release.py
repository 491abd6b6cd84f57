"""The loop as data: which verbs there are, in which order, and how each one's Inputs follow from earlier Outputs.

Airflow draws these steps as tasks; `run_release` and `run_batch` walk them in one process. Both go through the same
builders and the same job runner, so a release without Airflow makes the same bytes.
"""

import importlib
import json
import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from clearway.approve import spec as approve
from clearway.contracts.codec import from_jsonable, to_jsonable
from clearway.contracts.errors import ConfigError
from clearway.contracts.manifest import canonical_json, sha256_of
from clearway.contracts.verdict import Verdict
from clearway.deploy import spec as deploy
from clearway.evaluate import spec as evaluate
from clearway.infra.aws.tags import tagged
from clearway.infra.clock import Clock, SystemClock, format_instant, parse_instant
from clearway.infra.cost.purse import Purse
from clearway.infra.environment import Environment
from clearway.infra.jobs import JobRunner, JobSpec, open_jobs
from clearway.infra.jobs.wait import wait_for
from clearway.infra.layout import Layout
from clearway.infra.storage import open_storage
from clearway.ingest import spec as ingest
from clearway.monitor import spec as monitor
from clearway.preprocess import spec as preprocess
from clearway.product import LoadedProduct, Product
from clearway.serve import spec as serve
from clearway.train import spec as train
from clearway.tune import spec as tune
from clearway.validate import spec as validate

LOG = logging.getLogger("clearway.release")


@dataclass(frozen=True, slots=True, kw_only=True)
class Verb:
    """A thing that can be done: its types, and where its code lies (imported only when it runs).

    Args:
        is_job: run as a child process that survives its caller. A verb of a few milliseconds runs where it is called.
    """

    name: str
    inputs: type[Any]
    outputs: type[Any]
    module: str
    is_job: bool = True


def _stage(name: str, spec: Any, *, is_job: bool = True) -> Verb:
    return Verb(name=name, inputs=spec.Inputs, outputs=spec.Outputs, module=f"clearway.{name}.run", is_job=is_job)


# `yardsticks` is the part of evaluate that needs no candidate, `revert` is deploy's way back. That one runs in place:
# starting a process would cost more than the rollback itself.
VERBS: dict[str, Verb] = {
    "ingest": _stage("ingest", ingest),
    "preprocess": _stage("preprocess", preprocess),
    "validate": _stage("validate", validate),
    "tune": _stage("tune", tune),
    "train": _stage("train", train),
    "yardsticks": Verb(
        name="yardsticks",
        inputs=evaluate.YardsticksInputs,
        outputs=evaluate.YardsticksOutputs,
        module="clearway.evaluate.ahead",
    ),
    "evaluate": _stage("evaluate", evaluate),
    "approve": _stage("approve", approve, is_job=False),
    "deploy": _stage("deploy", deploy),
    "serve": _stage("serve", serve),
    "monitor": _stage("monitor", monitor),
    "revert": Verb(
        name="revert",
        inputs=deploy.RollbackInputs,
        outputs=deploy.Outputs,
        module="clearway.deploy.rollback",
        is_job=False,
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What one run of the loop is about; made once, by its first task.

    Args:
        window_start: start of the raw data to cover, look-back included, ISO 8601 UTC.
        start: start of the rows that enter the dataset.
        end: end of both; for a release the moment whose knowledge counts (`as_of`).
        approval: `default`, or `person`, or `auto`, as asked in the trigger form.
        evidence: digests of the retraining decisions that caused this run; empty for a schedule or a person.
    """

    product: str
    release_id: str
    window_start: str
    start: str
    end: str
    approval: str = "default"
    reason: str = ""
    evidence: tuple[str, ...] = ()

    @property
    def batch_id(self) -> str:
        """Name of the batch that starts at `start`."""
        return parse_instant(self.start).strftime("%Y-%m-%d")


def release_id(dag_id: str, run_id: str) -> str:
    """A name for one run that is safe in paths: readable slug, then 8 hex digits that keep it unique."""
    slug = re.sub(r"[^a-z0-9]+", "-", run_id.lower()).strip("-")[:60].strip("-")
    return f"{slug or 'run'}-{sha256_of(f'{dag_id}/{run_id}'.encode())[:8]}"


def release_request(
    product: Product,
    run: str,
    *,
    as_of: datetime,
    approval: str = "default",
    reason: str = "",
    evidence: tuple[str, ...] = (),
) -> Request:
    """A release on everything known at `as_of`. Raises: ConfigError if no whole batch ends by then."""
    first = product.batch.first
    if not product.batch.intervals(first, as_of):
        raise ConfigError(
            f"as_of {format_instant(as_of)} of {product.name!r} covers no whole {product.batch.every} since "
            f"{format_instant(first)}; choose {format_instant(product.batch.end_of(first))} or later"
        )
    start = format_instant(first)
    return Request(
        product=product.name,
        release_id=run,
        window_start=start,
        start=start,
        end=format_instant(as_of),
        approval=approval,
        reason=reason,
        evidence=evidence,
    )


def batch_request(product: Product, run: str, *, start: datetime) -> Request:
    """One batch with the look-back its features need. Raises: ConfigError if `start` is off the product's clock."""
    product.batch.batch_id(start)
    return Request(
        product=product.name,
        release_id=run,
        window_start=format_instant(product.batch.back(start, product.features.lookback_days)),
        start=format_instant(start),
        end=format_instant(product.batch.end_of(start)),
    )


# --- how Inputs follow -------------------------------------------------------------------------------------------


def ingest_inputs(request: Request) -> ingest.Inputs:
    """The window, look-back included."""
    return ingest.Inputs(
        product=request.product, release_id=request.release_id, start=request.window_start, end=request.end
    )


def preprocess_inputs(request: Request, ingested: ingest.Outputs) -> preprocess.Inputs:
    """Features from the request's start on."""
    if ingested.raw is None:
        raise ConfigError(f"ingest of {request.product!r} landed nothing ({ingested.reason}); nothing to preprocess")
    return preprocess.Inputs(
        product=request.product, release_id=request.release_id, raw=ingested.raw, start=request.start
    )


def validate_inputs(request: Request, prepared: preprocess.Outputs) -> validate.Inputs:
    """The whole dataset."""
    return validate.Inputs(product=request.product, release_id=request.release_id, dataset=prepared.dataset)


def tune_inputs(request: Request, prepared: preprocess.Outputs, validated: validate.Outputs) -> tune.Inputs:
    """The validated dataset."""
    return tune.Inputs(
        product=request.product,
        release_id=request.release_id,
        dataset=prepared.dataset,
        receipt_uri=_receipt(request, validated),
    )


def train_inputs(
    request: Request, prepared: preprocess.Outputs, validated: validate.Outputs, tuned: tune.Outputs
) -> train.Inputs:
    """The validated dataset and the study's parameters."""
    return train.Inputs(
        product=request.product,
        release_id=request.release_id,
        dataset=prepared.dataset,
        receipt_uri=_receipt(request, validated),
        params=tuned.params,
    )


def yardsticks_inputs(request: Request, prepared: preprocess.Outputs) -> evaluate.YardsticksInputs:
    """The dataset that a candidate is trained from."""
    return evaluate.YardsticksInputs(product=request.product, release_id=request.release_id, dataset=prepared.dataset)


def evaluate_inputs(
    request: Request,
    prepared: preprocess.Outputs,
    trained: train.Outputs,
    measured: evaluate.YardsticksOutputs,
) -> evaluate.Inputs:
    """The candidate on the dataset it was trained from."""
    return evaluate.Inputs(
        product=request.product,
        release_id=request.release_id,
        dataset=prepared.dataset,
        model=trained.model,
        yardsticks=measured.yardsticks,
    )


def deploy_inputs(request: Request, approved: approve.Outputs) -> deploy.Inputs:
    """The approved bytes and the proof of it."""
    return deploy.Inputs(
        product=request.product,
        release_id=request.release_id,
        model=approved.model,
        approval_uri=approved.approval_uri,
    )


def serve_inputs(request: Request, prepared: preprocess.Outputs) -> serve.Inputs:
    """The batch's rows."""
    return serve.Inputs(
        product=request.product, release_id=request.release_id, dataset=prepared.dataset, batch_id=request.batch_id
    )


def monitor_inputs(request: Request, prepared: preprocess.Outputs) -> monitor.Inputs:
    """The batch's rows and the labels that came with it."""
    return monitor.Inputs(
        product=request.product, release_id=request.release_id, dataset=prepared.dataset, batch_id=request.batch_id
    )


def _receipt(request: Request, validated: validate.Outputs) -> str:
    if validated.receipt_uri is None:
        raise ConfigError(f"dataset of {request.release_id!r} has no receipt ({validated.reason}); training needs one")
    return validated.receipt_uri


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A verb in a chain: which earlier steps' Outputs its builder takes, in order."""

    name: str
    needs: tuple[str, ...]
    build: Callable[..., Any]


# `approve` is the one step whose Inputs also hold an answer from outside; see approve_inputs.
RELEASE: tuple[Step, ...] = (
    Step(name="ingest", needs=(), build=ingest_inputs),
    Step(name="preprocess", needs=("ingest",), build=preprocess_inputs),
    Step(name="validate", needs=("preprocess",), build=validate_inputs),
    Step(name="tune", needs=("preprocess", "validate"), build=tune_inputs),
    Step(name="train", needs=("preprocess", "validate", "tune"), build=train_inputs),
    Step(name="yardsticks", needs=("preprocess",), build=yardsticks_inputs),
    Step(name="evaluate", needs=("preprocess", "train", "yardsticks"), build=evaluate_inputs),
    Step(name="approve", needs=("evaluate",), build=lambda request, evaluated: (request, evaluated)),
    Step(name="deploy", needs=("approve",), build=deploy_inputs),
)
BATCH: tuple[Step, ...] = (
    Step(name="ingest", needs=(), build=ingest_inputs),
    Step(name="preprocess", needs=("ingest",), build=preprocess_inputs),
    Step(name="serve", needs=("preprocess",), build=serve_inputs),
    Step(name="monitor", needs=("preprocess",), build=monitor_inputs),
)


def step_of(steps: tuple[Step, ...], name: str) -> Step:
    """The step called `name`."""
    return next(step for step in steps if step.name == name)


# --- approval ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """`answer`: approve, reject, auto or not_required; who gave it, and what they wrote."""

    answer: str
    answered_by: str
    note: str


AUTO_ANSWER = Answer(
    answer="auto",
    answered_by="local profile (auto)",
    note="approve.mode is auto: nobody looked at this release; set CLEARWAY__APPROVE__MODE=person to be asked",
)
AUTO_REFUSAL = Answer(
    answer="reject",
    answered_by="local profile (auto)",
    note="the evaluation is inconclusive and approve.mode is auto: without a person, missing evidence means no; "
    "set CLEARWAY__APPROVE__MODE=person, or ask for a person in the trigger form, to decide yourself",
)


def standing_answer(product: Product, evaluated: Verdict, *, mode: str, asked: str) -> Answer | None:
    """The answer that needs no person, or None when one must be asked.

    Only a person can let an inconclusive evaluation through. Where answers are automatic nobody would ever come, and
    the next retraining would wait behind this one, so the answer is no. An explicit `person` in the trigger form always
    asks; an explicit `auto` cannot lift what the risk tier demands.
    """
    if asked == "person":
        return None
    if evaluated is not Verdict.PASS:
        return AUTO_REFUSAL if mode == "auto" else None
    if not product.needs_person:
        return Answer(answer="not_required", answered_by="risk tier", note=f"risk tier {product.risk_tier}")
    return AUTO_ANSWER if mode == "auto" else None


def approve_inputs(request: Request, evaluated: evaluate.Outputs, answer: Answer) -> approve.Inputs:
    """The answer, bound to the digests it was given for."""
    return approve.Inputs(
        product=request.product,
        release_id=request.release_id,
        model=evaluated.model,
        evaluation_digest=evaluated.evaluation_digest,
        answer=answer.answer,
        answered_by=answer.answered_by,
        note=answer.note,
    )


# --- running -----------------------------------------------------------------------------------------------------


def job_spec(verb: str, inputs: Any, *, epoch: int = 0) -> JobSpec:
    """The job of one verb on one set of Inputs.

    The key is a hash of run (the release id inside the Inputs), stage, Inputs and attempt epoch: asking again finds the
    same job; a new epoch, taken when a finished task is deliberately run again, starts another.
    """
    text = canonical_json(to_jsonable(inputs))
    digest = sha256_of(canonical_json([inputs.release_id, verb, sha256_of(text), epoch]))
    return JobSpec(stage=verb, inputs_json=text.decode(), key=f"{verb}-{digest[:24]}")


def run_in_place(verb: str, inputs: Any, *, product: LoadedProduct, env: Environment) -> Any:
    """Run a verb in this process; what it makes on AWS is tagged with its name."""
    named = tagged(env, team=product.spec.owners[0], product=inputs.product, release=inputs.release_id, stage=verb)
    return importlib.import_module(VERBS[verb].module).run(inputs, product=product, env=named)


def parse_outputs(verb: str, text: str) -> Any:
    """A verb's Outputs from their JSON text."""
    return from_jsonable(VERBS[verb].outputs, json.loads(text))


def claim_evidence(env: Environment, request: Request) -> str:
    """Take the retraining decisions behind this run, so that no other run acts on them.

    Returns: the release that owns the newest of them: this one, or the one that was faster.
    """
    storage, layout = open_storage(env.store_root), Layout(env.store_root, request.product)
    owner = request.release_id
    for digest in request.evidence:
        claim = canonical_json({"evidence_digest": digest, "release_id": request.release_id})
        storage.create(layout.claim(digest), claim)
        owner = json.loads(storage.read(layout.claim(digest)))["release_id"]
    return owner


@dataclass(frozen=True, slots=True, kw_only=True)
class Walk:
    """How a chain ended: the Outputs of each step that ran, the last verdict, and why it stopped."""

    verdict: Verdict
    reason: str
    done: Mapping[str, Any]


def run_release(
    env: Environment,
    product: LoadedProduct,
    request: Request,
    *,
    runner: JobRunner | None = None,
    clock: Clock | None = None,
) -> Walk:
    """The whole release without Airflow. A release that needs a person stops INCONCLUSIVE before approve."""
    return _walk(RELEASE, env, product, request, runner=runner or open_jobs(env), clock=clock or SystemClock())


def run_batch(
    env: Environment,
    product: LoadedProduct,
    request: Request,
    *,
    runner: JobRunner | None = None,
    clock: Clock | None = None,
) -> Walk:
    """One batch without Airflow: land, prepare, score through the live endpoint, monitor."""
    return _walk(BATCH, env, product, request, runner=runner or open_jobs(env), clock=clock or SystemClock())


def _walk(
    steps: tuple[Step, ...],
    env: Environment,
    product: LoadedProduct,
    request: Request,
    *,
    runner: JobRunner,
    clock: Clock,
) -> Walk:
    done: dict[str, Any] = {}
    purse, owner = purse_of(env, product, steps, runner=runner), claim_evidence(env, request)
    if owner != request.release_id:
        return Walk(verdict=Verdict.FAIL, reason=f"release {owner} already acts on this evidence", done=done)
    for step in steps:
        inputs = step.build(request, *(done[name] for name in step.needs))
        if step.name == "approve":
            answer = standing_answer(
                product.spec, done["evaluate"].verdict, mode=env.approve.mode, asked=request.approval
            )
            if answer is None:
                return Walk(verdict=Verdict.INCONCLUSIVE, reason="waits for a person's approval", done=done)
            inputs = approve_inputs(request, done["evaluate"], answer)
        done[step.name] = outputs = _run(step.name, inputs, env, product, purse=purse, clock=clock)
        if stops(step.name, outputs.verdict):
            return Walk(verdict=outputs.verdict, reason=f"{step.name}: {outputs.reason}", done=done)
    return Walk(verdict=outputs.verdict, reason=outputs.reason, done=done)


def stops(step: str, verdict: Verdict) -> bool:
    """Whether a chain ends here. Only PASS advances, except that an inconclusive evaluation goes on to a person."""
    return verdict is not Verdict.PASS and not (step == "evaluate" and verdict is Verdict.INCONCLUSIVE)


def purse_of(env: Environment, product: LoadedProduct, steps: tuple[Step, ...], *, runner: JobRunner) -> Purse:
    """What a run of this chain may spend."""
    stages = tuple(step.name for step in steps if VERBS[step.name].is_job)
    return Purse(env, product, runner, is_release=steps is RELEASE, stages=stages)


def _run(name: str, inputs: Any, env: Environment, product: LoadedProduct, *, purse: Purse, clock: Clock) -> Any:
    if not VERBS[name].is_job:
        return run_in_place(name, inputs, product=product, env=env)
    admission = purse.admit(job_spec(name, inputs), now_s=clock.now_s())
    if admission.refused is not None:
        return admission.refused
    runner, longest_s = purse.runner, admission.spec.max_seconds
    job_id = runner.submit(admission.spec)
    text = wait_for(runner, job_id, clock=clock, poll_s=env.jobs.poll_s, max_seconds=longest_s, on_log=LOG.debug)
    purse.settle(admission.spec)
    return parse_outputs(name, text)
