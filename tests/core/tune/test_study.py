"""What a study may see, what it begins with, what ends it early, and that workers change nothing but the time."""

import dataclasses
from datetime import date

import pyarrow.compute as pc
import pytest

from clearway.contracts.errors import DataError, JobFailed
from clearway.contracts.release_document import Version
from clearway.infra.datasets import DAY
from clearway.infra.layout import Layout
from clearway.infra.release_store import open_release_store
from clearway.packaging.encoder import Encoder
from clearway.packaging.package import PackageContents, write_package
from clearway.packaging.split import holdout_start
from clearway.product_tune import Range
from clearway.tune.agenda import Kind
from clearway.tune.brief import read_rows
from clearway.tune.crew import run_crew
from clearway.tune.page import reason_of, render
from clearway.tune.study import prepared, search
from training_kit import STORAGE, make_rows
from tune_kit import MODEL, Study, make_study, told, trials_of


def searched(study: Study):
    return search(study.inputs, product=study.product, env=study.env, folder=study.folder)


def test_no_row_of_the_holdout_is_ever_given_to_a_worker(env, flights):
    study = make_study(env, flights, num_trials=6, refresh_every=2)
    prepared(study.inputs, product=study.product, env=study.env, folder=study.folder)
    newest = max(make_rows(2000)[DAY].to_pylist())
    start = holdout_start(newest, holdout_days=study.product.spec.release.holdout_days)
    assert pc.max(read_rows(study.folder)[DAY]).as_py() < start
    assert len(study.brief().windows) > 1
    assert all(date.fromisoformat(w.last_day) < start for w in study.brief().windows)


@pytest.mark.slow
def test_a_worn_window_is_left_and_page_and_reason_say_so(env, flights):
    study = make_study(env, flights, num_trials=6, refresh_every=3)
    found = searched(study)
    brief, tasks = study.brief(), study.tasks()
    assert [brief.window(t) for t in tasks] == [brief.windows[t.round] for t in tasks], "a window of its own per round"
    assert found.chosen.is_confirmed
    reason, page = reason_of(found), render(found, release_id="r1").decode()
    assert "validation window refreshed every 3 trials, 3 used" in reason
    assert "days that it was not searched on" in reason and reason in page
    for window in brief.windows:
        assert f"{window.first_day} to {window.last_day}" in page
    assert len(found.trials) == 6 and len(study.ended()) == len(tasks) > 6


@pytest.mark.parametrize(("num_trials", "refresh_every"), [(3, 3), (4, 2)])
def test_too_few_days_for_a_second_window_are_said(env, flights, num_trials, refresh_every):
    study = make_study(env, flights, num_trials=num_trials, refresh_every=refresh_every, max_rows=100_000)
    study = dataclasses.replace(study, product=_with_holdout(study.product, days=6))
    found = searched(study)
    is_short = num_trials > refresh_every
    assert ("too few days for a second" in reason_of(found)) is is_short
    assert len(study.brief().windows) == 1 and not found.chosen.is_confirmed


def _with_holdout(product, *, days: int):
    release = product.spec.release.model_copy(update={"holdout_days": days})
    return product.model_copy(update={"spec": product.spec.model_copy(update={"release": release})})


def test_the_first_trials_are_the_model_as_written_and_the_champion(env, flights):
    study = make_study(env, flights, num_trials=2)
    _serve(study, {"lr": 0.5, "num_bins": 5, "dropout": 0.25, "hidden": [16, 16]})
    study.calmly()
    written, champion = trials_of(study)
    assert written.params == {"lr": 1.1e-3, "num_bins": 8, "dropout": 0.15}
    assert champion.params == {"lr": 0.1, "num_bins": 5, "dropout": 0.25}, "moved into the space"


def _serve(study: Study, params: dict) -> None:
    """Make a package with these parameters the champion."""
    rows = make_rows(300)
    contents = PackageContents(
        model=b"graph",
        weights=b"weights",
        encoder=Encoder.fit(rows, numeric=("a",), categorical=("origin",), min_count=1),
        schema={},
        reference={},
        golden={"rows": [{}], "scores": [0.5]},
        facts={"params": params},
    )
    layout, keys = Layout(study.env.store_root, "flights"), study.env.home / "keys"
    ref = write_package(STORAGE, layout, contents, key_folder=keys)
    store = open_release_store(study.env)
    document, version = store.read("flights")
    champion = Version(uri=ref.uri, digest=ref.digest, release_id="r0")
    store.swap(dataclasses.replace(document, champion=champion), expected_version=version)


def test_a_champion_that_changes_meanwhile_changes_nothing(env, flights):
    study = make_study(env, flights, num_trials=3)
    first = prepared(study.inputs, product=study.product, env=study.env, folder=study.folder)
    _serve(study, {"lr": 0.05})
    (study.folder / "rows.arrow").unlink()
    other = study.env.model_copy(update={"jobs": study.env.jobs.model_copy(update={"num_tune_workers": 3})})
    again = prepared(study.inputs, product=study.product, env=other, folder=study.folder)
    assert again == first and (study.folder / "rows.arrow").exists()


@pytest.mark.parametrize("budget", [{"max_seconds": 1e-6}, {"max_money": 1e-9}], ids=["time", "money"])
def test_a_spent_budget_starts_nothing_more_and_is_said(env, flights, budget):
    priced = env.model_copy(update={"jobs": env.jobs.model_copy(update={"price_per_hour": 2.0})})
    study = make_study(priced, flights, num_trials=9, **budget)
    found = searched(study)
    assert len(found.trials) == 1
    assert "1 of 9 trials (the budget ended) found no better" in reason_of(found)
    assert found.spent.money == pytest.approx(2.0 * found.spent.seconds / 3600)
    assert searched(study).ended.keys() == found.ended.keys(), "a rerun starts nothing more either"


def test_a_grid_with_fewer_points_than_trials_ends_when_it_is_through(env, flights):
    space = {"lr": Range(low=1e-3, high=0.1, log=True, num_points=2), "num_bins": Range(low=2, high=16, num_points=2)}
    study = make_study(env, flights, num_trials=50, sampler="grid", space=space)
    found = searched(study)
    tried = [(round(t.params["lr"], 6), t.params["num_bins"]) for t in trials_of(study)]
    assert sorted(tried[1:]) == [(0.001, 2), (0.001, 16), (0.1, 2), (0.1, 16)] and len(found.trials) == 5


def test_a_model_as_written_that_cannot_be_judged_is_an_error(env, flights):
    wild = MODEL.model_copy(update={"weight_decay": 1e30})
    space = {"weight_decay": Range(low=1e-3, high=1e31, log=True)}
    study = make_study(env, flights, model=wild, num_trials=2, space=space)
    with pytest.raises(DataError, match=r"as written could not be judged .*loss became"):
        searched(study)


@pytest.mark.parametrize(("fidelity", "steps"), [("epochs", set(range(10, 101, 10))), ("rows", {11, 33, 100})])
def test_pruned_trials_count_and_keep_their_curve(env, flights, fidelity, steps):
    model = MODEL.model_copy(update={"batch_size": 32})
    study = make_study(env, flights, model=model, num_trials=12, pruner="successive_halving", fidelity=fidelity)
    study.calmly()
    trials = trials_of(study)
    states = [t.state.name for t in trials]
    assert len(trials) == 12 and "PRUNED" in states and states[0] == "COMPLETE"
    assert set(trials[0].intermediate_values) == steps
    assert all(len(t.intermediate_values) < len(steps) for t in trials if t.state.name == "PRUNED")


@pytest.mark.slow
def test_two_workers_find_what_one_process_finds_that_keeps_their_order(env, flights):
    study = make_study(env, flights, num_workers=2, num_trials=8, refresh_every=5)
    together, alone = searched(study), study.beside("alone")
    assert told(alone.calmly()) == told(together.ended)
    assert {t.index for t in study.tasks() if t.kind is Kind.TRIAL} == set(together.trials) == set(range(8))


@pytest.mark.slow
def test_a_worker_that_fails_ends_the_stage_and_says_where_to_look(env, flights):
    study = make_study(env, flights, num_workers=2, num_trials=4)
    brief = prepared(study.inputs, product=study.product, env=study.env, folder=study.folder)
    (study.folder / "rows.arrow").write_bytes(b"no rows")
    with pytest.raises(JobFailed, match=r"exit code 1\); its error is in this log"):
        run_crew(brief, study.folder, env=study.env)
