"""A study of a model that reads text: the same study, another kind of trial."""

import math
import signal
from datetime import date

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from mlflow import MlflowClient

from clearway.contracts.errors import DataError
from clearway.infra.datasets import DAY
from clearway.kinds.kind import kind_named
from clearway.language.score import surprises
from clearway.product_tune import Range
from clearway.tune.brief import read_rows
from clearway.tune.kinds import searchable
from clearway.tune.page import reason_of
from clearway.tune.run import run
from clearway.tune.study import prepared, search
from clearway.tune.trial import trial
from clearway.tune.worker import REFUSED
from language_kit import HOLDOUT_START, STORAGE
from tune_kit import READER, SPACE_OF_TEXTS, make_study_of_texts, told, trials_of

# MLflow 3.17 on SQLAlchemy 2.1; nothing of ours.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")


def test_workers_are_given_texts_of_the_training_days_and_nothing_else(env):
    study = make_study_of_texts(env, max_rows=60, num_trials=4, refresh_every=2)
    prepared(study.inputs, product=study.product, env=study.env, folder=study.folder)
    rows = read_rows(study.folder)
    assert rows.column_names == [DAY, "text"]
    assert pc.max(rows[DAY]).as_py() < HOLDOUT_START
    assert len(study.brief().windows) > 1
    assert all(date.fromisoformat(w.last_day) < HOLDOUT_START for w in study.brief().windows)


@pytest.mark.slow
def test_a_study_finds_sizes_that_training_accepts_and_speaks_of_bits(env):
    study = make_study_of_texts(env, num_trials=6, cost="multiply_adds")
    outputs = run(study.inputs, product=study.product, env=study.env)
    assert outputs.num_trials == 6 and set(outputs.params) == set(SPACE_OF_TEXTS)
    assert "6 trials found better than product.yaml: bits per byte lower by" in outputs.reason
    assert outputs.params["dim"] in {16, 32, 48} and outputs.params["batch_size"] in {4, 8, 12, 16}
    kind = kind_named("language")
    made = kind.prepare(study.inputs.dataset, outputs.params, product=study.product, env=study.env, storage=STORAGE)
    assert made.settings.lr == outputs.params["lr"] > READER.lr
    page = STORAGE.read(outputs.report_uri).decode()
    assert "bits per byte added" in page and "multiply-adds of a byte" in page and "log-loss" not in page
    client = MlflowClient(study.env.tracking_uri)
    (found,) = client.search_runs([client.get_experiment_by_name("api_docs").experiment_id])
    history = client.get_metric_history(found.info.run_id, "bits_per_byte")
    assert len(history) == 6
    assert history[0].value == pytest.approx(8, abs=0.5), "as written it has hardly begun to learn"
    assert min(point.value for point in history) < history[0].value


def test_a_trial_counts_the_bits_of_newer_texts_that_it_has_not_read(env):
    study = make_study_of_texts(env, num_trials=1)
    kind, spec = searchable(study.product), study.product.spec
    days = [date(2024, 1, day) for day in (1, 2)]
    older = pa.table({DAY: days * 10, "text": [f"Lists the tags of queue {n}." for n in range(20)]})
    newer = pa.table({DAY: days * 2, "text": ["Lists the tags of queue 7.", "Deletes a queue.", "A key.", "A key."]})
    models = []

    def seen(model, texts, **options):
        models.append((model, texts))
        return surprises(model, texts, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("clearway.tune.language_trial.surprises", seen)
        found = kind.judged(older, newer, product=study.product, settings=spec.model, report=lambda *_: None)
    ((model, texts),) = models
    assert texts == ["Deletes a queue.", "A key."], "known word for word, and said twice: no judgement"
    bits = [surprises(model, [text], batch_size=1)[0].bits for text in texts]
    assert found.loss == pytest.approx(math.fsum(bits) / len("Deletes a queue.A key."))
    with pytest.raises(DataError, match="all 20 texts to judge on stand in the older ones"):
        kind.judged(older, older, product=study.product, settings=spec.model, report=lambda *_: None)


def test_sizes_that_do_not_fit_together_count_as_tried_and_say_why(env):
    space = {"num_heads": Range(low=1, high=3, num_points=3)}
    study = make_study_of_texts(env, num_trials=9, sampler="grid", space=space)
    study.calmly()
    trials = {trial.params["num_heads"]: trial for trial in trials_of(study)[1:]}
    assert [trials[n].state.name for n in (1, 2, 3)] == ["COMPLETE", "COMPLETE", "FAIL"]
    assert "dim 32 does not divide into 3 heads" in trials[3].user_attrs[REFUSED]


@pytest.mark.slow
@pytest.mark.parametrize(("fidelity", "steps"), [("epochs", set(range(10, 101, 10))), ("rows", {11, 33, 100})])
def test_pruned_trials_keep_their_curve_in_bits(env, fidelity, steps):
    space = {"lr": SPACE_OF_TEXTS["lr"]}
    study = make_study_of_texts(
        env, num_trials=8, space=space, pruner="successive_halving", fidelity=fidelity, sampler="random"
    )
    study.calmly()
    trials = trials_of(study)
    assert len(trials) == 8 and trials[0].state.name == "COMPLETE"
    assert "PRUNED" in {trial.state.name for trial in trials}
    assert set(trials[0].intermediate_values) == steps
    # A byte of 256 takes eight bits, whoever knows nothing of it; the mark between texts makes hardly a difference.
    assert trials[0].intermediate_values[min(steps)] == pytest.approx(8, abs=0.3)


@pytest.mark.long  # the journal is that of every study: test_tune_kill.py
@pytest.mark.slow
def test_killed_and_run_again_ends_as_if_undisturbed(env):
    study = make_study_of_texts(env, num_trials=3)
    calm, again = told(study.calmly()), study.beside("again")
    killed = again.run(CLEARWAY_FAULT="tune.before_entry=kill@2")
    assert killed.returncode == -signal.SIGKILL, killed.stderr[-2000:]
    assert len(again.ended()) == 1
    done = again.run()
    assert done.returncode == 0, done.stderr[-2000:]
    assert told(again.ended()) == calm


def test_a_machine_of_a_tuning_job_does_the_same_trial(env):
    space = {name: SPACE_OF_TEXTS[name] for name in ("lr", "num_layers")}
    study = make_study_of_texts(env, num_trials=2, space=space)
    brief = prepared(study.inputs, product=study.product, env=study.env, folder=study.folder)
    rows, window = read_rows(study.folder), brief.windows[0]
    settings = study.product.spec.model.overridden({"lr": 0.01, "num_layers": 2})
    here = searchable(study.product).judged(
        window.older(rows), window.newer(rows), product=study.product, settings=settings, report=lambda *_: None
    )
    there = trial({"study": study.folder.as_uri(), "lr": "0.01", "num_layers": '"2"'})
    assert there == here


def test_a_spent_budget_starts_nothing_more(env):
    study = make_study_of_texts(env, num_trials=5, max_seconds=1e-6)
    found = search(study.inputs, product=study.product, env=study.env, folder=study.folder)
    assert len(found.trials) == 1
    assert "1 of 5 trials (the budget ended) found no better than product.yaml" in reason_of(found)
