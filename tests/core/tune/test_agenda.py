"""What a study does in order, and what each piece may know."""

import itertools

import pytest

from clearway.product_tune import Range, Tune
from clearway.tune.agenda import NUM_FINALISTS, Kind, Pace, agenda, lag_of, population_of

SPACE = {"lr": Range(low=1e-4, high=0.1)}
SERIAL = Pace(num_seeds=1, lag=1, population=4)


def tasks(num_trials: int, *, refresh_every: int = 100, pace: Pace = SERIAL, **tune):
    asked = Tune(num_trials=num_trials, space=SPACE, **tune)
    return agenda(asked, num_trials=num_trials, refresh_every=refresh_every, pace=pace)


@pytest.mark.parametrize("num_trials", [1, 24, 25, 26, 50, 51, 120])
def test_every_trial_is_there_once_whatever_is_judged_again(num_trials: int) -> None:
    found = tasks(num_trials, refresh_every=25)
    assert [t.index for t in found if t.kind is Kind.TRIAL] == list(range(num_trials))
    assert [t.number for t in found] == list(range(len(found)))


def test_a_short_study_has_one_window_and_judges_nothing_again() -> None:
    assert {(t.kind, t.round) for t in tasks(25, refresh_every=25)} == {(Kind.TRIAL, 0)}


def test_a_worn_window_is_left_and_the_best_are_judged_again_before_new_trials_and_at_the_end() -> None:
    found = tasks(5, refresh_every=2)
    shape = [(kind, list(group)) for kind, group in itertools.groupby(found, key=lambda t: (t.kind, t.round))]
    again = [(Kind.AGAIN, r) for r in (1, 2, 3)]
    assert [key for key, _ in shape] == [
        (Kind.TRIAL, 0), again[0], (Kind.TRIAL, 1), again[1], (Kind.TRIAL, 2), again[2]
    ]  # fmt: skip
    assert all(len(group) == 1 + NUM_FINALISTS for (kind, _), group in shape if kind is Kind.AGAIN)
    for (kind, _), group in shape:
        if kind is Kind.AGAIN:
            assert {t.num_known for t in group} == {group[0].number}, "all that came before, nothing of their own round"


def test_one_worker_knows_everything_before() -> None:
    assert [t.num_known for t in tasks(9, refresh_every=4)] == [0, 1, 2, 3, 4, 4, 4, 4, 8, 9, 10, 11, 12, 12, 12, 12,
                                                                16, 17, 17, 17, 17]  # fmt: skip


def test_several_workers_know_what_lies_a_lag_before_and_the_new_windows_level() -> None:
    assert (lag_of(1), lag_of(2), lag_of(3)) == (1, 4, 6)
    found = tasks(8, refresh_every=4, pace=Pace(num_seeds=2, lag=4, population=4))
    assert [t.num_known for t in found if t.kind is Kind.TRIAL] == [0, 0, 0, 0, 8, 8, 8, 8]
    assert [t.num_known for t in tasks(8, pace=Pace(num_seeds=2, lag=4, population=4))] == [0, 0, 0, 0, 1, 2, 3, 4]


def test_cma_es_trials_know_whole_generations() -> None:
    found = tasks(12, pace=Pace(num_seeds=2, lag=4, population=4), sampler="cma_es")
    assert [t.num_known for t in found] == [0, 0, 2, 2, 2, 2, 6, 6, 6, 6, 10, 10]


@pytest.mark.parametrize(
    ("tune", "is_free"),
    [({"sampler": "grid"}, True), ({"sampler": "random"}, True), ({"sampler": "random", "pruner": "median"}, False)],
)
def test_trials_wait_for_nothing_where_nothing_is_asked_of_the_others(tune: dict, is_free: bool) -> None:
    assert (max(t.num_known for t in tasks(6, **tune)) == 0) is is_free


def test_no_task_waits_for_one_that_comes_later() -> None:
    for sampler, lag, every in itertools.product(("tpe", "cma_es"), (1, 4), (2, 5, 40)):
        found = tasks(40, refresh_every=every, pace=Pace(num_seeds=2, lag=lag, population=6), sampler=sampler)
        assert all(t.num_known <= t.number for t in found), (sampler, lag, every)


def test_generations_grow_with_the_space_and_fill_the_workers() -> None:
    assert [population_of(n, 1) for n in (1, 2, 3, 10)] == [4, 6, 7, 10]
    assert population_of(3, 2) == 8
