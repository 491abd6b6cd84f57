"""Search model parameters on the older days of the training rows, judged on the newer ones. The holdout is never read.

Every trial is a training by the same code as the train stage, in this process, on at most `max_rows` rows. Trials are
kept in a journal file as they end. What a trial tries follows from the trials before it and nothing else, so a study
that was killed goes on where it was and ends where an undisturbed one ends.
"""

import logging
import math
import warnings
from dataclasses import dataclass

import optuna
import pyarrow as pa
import torch
from optuna.exceptions import ExperimentalWarning
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, Trial, TrialState

from clearway.contracts.errors import DataError
from clearway.infra.datasets import LABEL
from clearway.infra.environment import Environment
from clearway.infra.faults import fault
from clearway.infra.storage import open_storage, to_path
from clearway.measures.binary import log_loss
from clearway.packaging.split import time_fold
from clearway.product import LoadedProduct, Model, Range
from clearway.tabular.fit import CPU, Rows, World, fit, has_fast_bfloat16, make_deterministic
from clearway.tabular.model import predict, shape_of
from clearway.tabular.training_set import encode, make_training_set, settings_of, training_rows
from clearway.tune.spec import Inputs

LOG = logging.getLogger("clearway.tune")
# Newest share of the training days that trials are judged on: about as long as the product's own holdout.
VALID_SHARE = 0.2
REFUSED = "refused"  # why the loop itself ended a trial, e.g. a loss that is no number


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """Log-loss of product.yaml as written (`baseline`) and of the best trial; `params`: its values, {} if no better."""

    num_trials: int
    baseline: float
    best: float
    params: dict[str, float]


def search(inputs: Inputs, *, product: LoadedProduct, env: Environment, folder: str) -> Found:
    """Run what is left of the study. The first trial is product.yaml as written, so nothing worse can win.

    Raises: DataError if no trial could be judged.
    """
    older, newer = _rows(inputs, product, env)
    make_deterministic(env.jobs.num_threads)
    study = _study(folder, product.spec.tabular.model, product.spec.tune.space)
    wanted = product.spec.tune.num_trials
    while (left := wanted - _num_ended(study)) > 0:
        LOG.info("%d of %d trials to go", left, wanted)
        # A sampler's own random numbers would start over with the process: these are of the trial, not of the process.
        study.sampler = _sampler(product.spec.tabular.model.seed + wanted - left)
        study.optimize(lambda trial: _trial(trial, older, newer, product), n_trials=1, catch=(DataError,))
        fault("tune.after_trial")
    return _best(study, product.spec.tune.space)


def _rows(inputs: Inputs, product: LoadedProduct, env: Environment) -> tuple[pa.Table, pa.Table]:
    train = training_rows(open_storage(env.store_root), inputs.dataset, product=product, env=env).train
    newest = train.slice(max(0, len(train) - product.spec.tune.max_rows))
    return time_fold(newest, valid_share=VALID_SHARE)


def _study(folder: str, model: Model, space: dict[str, Range]) -> optuna.Study:
    path = to_path(folder)
    path.mkdir(parents=True, exist_ok=True)
    storage = JournalStorage(JournalFileBackend(str(path / "journal.log")))
    study = optuna.create_study(storage=storage, study_name="tune", direction="minimize", load_if_exists=True)
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        study.tell(trial.number, state=TrialState.FAIL)  # its process is gone
    is_asked = bool(study.get_trials(deepcopy=False, states=(TrialState.WAITING,)))
    if not is_asked and not _num_ended(study):  # also when the process of the first trial was killed
        study.enqueue_trial(_as_written(model, space))
    return study


def _sampler(seed: int) -> optuna.samplers.TPESampler:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)  # of `multivariate`, once per sampler
        return optuna.samplers.TPESampler(seed=seed, multivariate=True)


def _num_ended(study: optuna.Study) -> int:
    """Trials that count: judged, or refused by the loop itself. One whose process died does not."""
    return sum(t.state is TrialState.COMPLETE or REFUSED in t.user_attrs for t in study.get_trials(deepcopy=False))


def _as_written(model: Model, space: dict[str, Range]) -> dict[str, float]:
    """The product's own values, as far as the space covers them."""
    written = {name: getattr(model, name) for name in space}
    return {name: value for name, value in written.items() if space[name].low <= value <= space[name].high}


def _trial(trial: Trial, older: pa.Table, newer: pa.Table, product: LoadedProduct) -> float:
    params = {name: _suggest(trial, name, product) for name in sorted(product.spec.tune.space)}
    fault("tune.inside_trial")
    settings = settings_of(product, params)
    training_set = make_training_set(older, features=product.spec.features, model=settings)
    shape = shape_of(
        settings, num_numeric=training_set.bins.num_columns, cardinalities=training_set.encoder.cardinalities
    )
    rows = Rows(**{name: torch.from_numpy(value) for name, value in training_set.arrays.items()})
    try:
        fitted = fit(
            rows,
            shape,
            settings,
            world=World(is_bfloat16=has_fast_bfloat16(CPU)),
            keeping=None,
            should_stop=lambda: False,
        )
    except DataError as error:
        trial.set_user_attr(REFUSED, str(error))
        raise
    encoded = encode(training_set.bins, *training_set.encoder.encode_table(newer))
    return log_loss(newer[LABEL].to_numpy(), predict(fitted.model, encoded))


def _suggest(trial: Trial, name: str, product: LoadedProduct) -> float:
    limits = product.spec.tune.space[name]
    if isinstance(getattr(product.spec.tabular.model, name, None), int):
        return trial.suggest_int(name, math.ceil(limits.low), math.floor(limits.high), log=limits.log)
    return trial.suggest_float(name, limits.low, limits.high, log=limits.log)


def _best(study: optuna.Study, space: dict[str, Range]) -> Found:
    judged = [t for t in study.get_trials(deepcopy=False) if t.state is TrialState.COMPLETE]
    if not judged:
        raise DataError(f"none of {len(study.trials)} trials could be judged; narrow tune.space {sorted(space)}")
    best, baseline = min(judged, key=_value), judged[0]
    params = {} if best is baseline else {name: float(best.params[name]) for name in sorted(space)}
    return Found(num_trials=_num_ended(study), baseline=_value(baseline), best=_value(best), params=params)


def _value(trial: FrozenTrial) -> float:
    return float(trial.value if trial.value is not None else math.inf)
