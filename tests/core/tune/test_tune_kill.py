"""A study killed anywhere, or at random, ends with the trials of an undisturbed one: each once, none different."""

import signal

import pytest

from clearway.infra.environment import Environment
from clearway.infra.storage import to_path
from clearway.product import LoadedProduct
from clearway.tune.run import run
from kill_kit import contents, killed_then_again
from tune_kit import make_study, run_under_fire, told, trials_of

pytestmark = [
    pytest.mark.slow,
    # MLflow 3.17 on SQLAlchemy 2.1; nothing of ours.
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning"),
]
FAULTS = (
    "tune.before_entry=kill@2",
    "tune.inside_journal_lock=kill@5",
    "tune.after_trial=kill@4",
)


@pytest.mark.parametrize("fault", FAULTS)
def test_killed_and_run_again_ends_as_if_undisturbed(env: Environment, flights: LoadedProduct, fault: str) -> None:
    study = make_study(env, flights, num_trials=4)
    calm, again = told(study.calmly()), study.beside("again")
    killed = again.run(CLEARWAY_FAULT=fault)
    assert killed.returncode == -signal.SIGKILL, f"{fault} was never reached: {killed.stderr[-2000:]}"
    left = 4 - len(again.ended())
    done = again.run()
    assert done.returncode == 0, done.stderr[-2000:]
    assert told(again.ended()) == calm
    log = killed.stderr + done.stderr
    assert log.count("trial 0: complete") + log.count(" tasks to go") >= left


def test_the_stage_killed_before_its_record_leaves_the_same_result(env: Environment, flights: LoadedProduct) -> None:
    study = make_study(env, flights, num_trials=2)
    again = killed_then_again(
        "tune", study.inputs, product=study.product, env=study.env, fault="tune.before_record=kill"
    )
    folder = str(again["report_uri"]).rpartition("/")[0]
    before = contents(env, folder)
    assert run(study.inputs, product=study.product, env=study.env).report_uri == again["report_uri"]
    assert contents(env, folder) == before
    assert not (to_path(folder) / "rows.arrow").exists()


@pytest.mark.parametrize("seed", [3])
def test_workers_killed_at_random_lose_no_trial_and_repeat_none(
    env: Environment, flights: LoadedProduct, seed: int
) -> None:
    """Many more kills and seeds: tests/benchmarks/bench_tune.py kills."""
    study = make_study(env, flights, num_workers=2, num_rows=8000, num_trials=10, max_rows=3000, refresh_every=6)
    again = study.beside("again")
    struck = run_under_fire(again, seed=seed, num_kills=3)
    assert 1 <= struck.workers + struck.stages <= 3  # a fast machine may be done before the last
    assert struck.said["num_trials"] == len(trials_of(again)) == 10
    assert told(again.ended()) == told(study.calmly())
