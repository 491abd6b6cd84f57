"""A study whose trials are done by a tuning job of SageMaker.

The product as written and the champion are judged here, meanwhile: a tuning job takes no values to begin with. What it
found is entered into the same journal, so choice, page and record are those of every study. Nothing here is lost with
this process: the brief lies in the store, the job has a name, and its trials are asked of SageMaker at the end.
"""

import logging
import math
import time
from dataclasses import replace
from pathlib import Path

from optuna.trial import FrozenTrial, TrialState, create_trial

from clearway.contracts.errors import ConfigError
from clearway.infra.aws.tags import tags_of
from clearway.infra.aws.tuning import Ending, Search, TrialSeen, TuningJobs, ended_well
from clearway.infra.environment import PREFIX, Environment
from clearway.infra.faults import fault
from clearway.infra.jobs.processes import cloud_variables
from clearway.infra.storage import Storage, join, open_storage
from clearway.product import LoadedProduct
from clearway.tune import translation
from clearway.tune.brief import BRIEF, ROWS, Brief
from clearway.tune.budget import S_PER_HOUR, SECONDS
from clearway.tune.journal import Journal
from clearway.tune.proposals import distributions
from clearway.tune.spec import Inputs
from clearway.tune.study import Searched, concluded, prepared
from clearway.tune.worker import REFUSED, work_on

LOG = logging.getLogger("clearway.tune")
# Of the time this job has: for what comes before and after the trials, and a look at the end. Guessed, not measured.
KEPT_S = 300
# A trial reads and writes nothing but the study.
_TOLD = (f"{PREFIX}STORAGE__", f"{PREFIX}JOBS__NUM_THREADS")


def search_there(inputs: Inputs, *, product: LoadedProduct, env: Environment, folder: Path, shared: str) -> Searched:
    """`search`, with the trials in a tuning job. `shared`: of the study, in the store.

    Raises: ConfigError for what such a job cannot be asked; JobFailed if it failed or somebody stopped it (a rerun
        orders another one); as `search`.
    """
    tune = product.spec.tune
    translation.check(tune)
    if not env.aws.tuning_job:
        raise ConfigError(
            f"setting aws.tuning_job is empty; whoever starts the job sets it. By hand: {PREFIX}AWS__TUNING_JOB=<name>"
        )
    if not shared.startswith("s3://"):
        raise ConfigError(
            f"the store {shared} is not in S3, where SageMaker's machines could read it; set storage.root"
        )
    brief = _brought(prepared(inputs, product=product, env=env, folder=folder), env, folder, shared)
    jobs, tasks, num_seeds = TuningJobs(env.aws, stem=env.aws.tuning_job), brief.tasks(), len(brief.seeds)
    fault("tune.before_order")
    name = jobs.start(_search_of(brief, env, shared, inputs)) if len(tasks) > num_seeds else ""
    fault("tune.after_order")
    work_on(folder, tasks[:num_seeds])
    while name and not ended_well(name, jobs.look(name)):
        time.sleep(env.jobs.poll_s)
    _enter(jobs.trials(name) if name else [], brief, folder)
    return concluded(brief, folder)


def _brought(brief: Brief, env: Environment, folder: Path, shared: str) -> Brief:
    """The brief of this study's first attempt, here and in the store, with its rows."""
    storage, strategy = open_storage(shared), translation.strategy_of(brief.tune)
    ours = replace(
        brief,
        num_workers=env.aws.tuning_parallel,
        num_threads=env.jobs.num_threads,
        searcher=f"SageMaker, {strategy} ({env.aws.tuning_job})",
    )
    _bring_rows(storage, folder, shared)
    storage.create(join(shared, BRIEF), ours.to_json())
    data = storage.read(join(shared, BRIEF))
    open_storage(folder.as_uri()).write(join(folder.as_uri(), BRIEF), data)
    return Brief.from_json(data)


def _bring_rows(storage: Storage, folder: Path, shared: str) -> None:
    if not storage.exists(join(shared, ROWS)):
        storage.write(join(shared, ROWS), (folder / ROWS).read_bytes())


def _search_of(brief: Brief, env: Environment, shared: str, inputs: Inputs) -> Search:
    tune, model = brief.tune, brief.product.spec.model
    variables = {k: v for k, v in cloud_variables(env).items() if not k.startswith(PREFIX) or k.startswith(_TOLD)}
    tags = tags_of(
        env,
        team=brief.product.spec.owners[0],
        product=inputs.product,
        release=inputs.release_id,
        stage="tune",
        job=env.aws.tuning_job,
    )
    return Search(
        strategy=translation.strategy_of(tune),
        ranges=translation.ranges_of(tune, model),
        max_trials=translation.num_trials_there(tune, model, num_left=brief.num_trials - len(brief.seeds)),
        max_seconds=seconds_there(brief, max_seconds=env.jobs.max_seconds),
        seed=model.seed,
        study=shared,
        variables=variables,
        tags=tags,
    )


def seconds_there(brief: Brief, *, max_seconds: float) -> int:
    """What the job may last: the limit of this one, and the study's own, as `budget.py` counts them."""
    tune, limits = brief.tune, [max_seconds - KEPT_S]
    if tune.max_seconds:
        limits.append(tune.max_seconds)
    if tune.max_money and brief.price_per_hour:
        limits.append(tune.max_money / brief.price_per_hour * S_PER_HOUR)
    return max(0, math.floor(min(limits)))


def _enter(trials: list[TrialSeen], brief: Brief, folder: Path) -> None:
    """Into the journal, in the order in which SageMaker made them."""
    journal, num_seeds = Journal(folder), len(brief.seeds)
    for task, trial in zip(brief.tasks()[num_seeds:], trials, strict=False):  # fewer, where the budget ended
        with journal.claimed(task) as num_before:
            if num_before is not None:
                journal.enter(task, _entry(trial, brief))
        LOG.info(
            "trial %d is %s: %s", task.index, trial.name, f"{trial.value:.5f}" if not trial.reason else trial.reason
        )


def _entry(trial: TrialSeen, brief: Brief) -> FrozenTrial:
    space = distributions(brief.product.spec.model, brief.tune.space)
    is_judged = trial.ending is Ending.JUDGED
    return create_trial(
        state=TrialState.COMPLETE if is_judged else TrialState.FAIL,
        values=[trial.value] if is_judged else None,
        params=translation.params_of(trial.params, space),
        distributions=space,
        user_attrs={SECONDS: max(0.0, trial.end_s - trial.begin_s)} | ({} if is_judged else {REFUSED: trial.reason}),
    )
