"""Which trial wins: differences on equal rows, later judgements before found ones, the cheapest of the nearly best."""

import pytest
from optuna.distributions import FloatDistribution
from optuna.trial import TrialState, create_trial

from clearway.product_tune import Range, Tune
from clearway.tune.agenda import Kind, Pace, agenda
from clearway.tune.choosing import OF, candidates, choice, finalists, known_trials

SPACE = {"lr": FloatDistribution(0, 1)}
PACE = Pace(num_seeds=1, lag=1, population=4)


def tasks(num_trials: int, refresh_every: int = 100):
    asked = Tune(num_trials=num_trials, space={"lr": Range(low=0, high=1)})
    return agenda(asked, num_trials=num_trials, refresh_every=refresh_every, pace=PACE)


def entry(*values: float, of: int | None = None, curve: dict[int, float] | None = None):
    attributes = {} if of is None else {OF: of}
    if not values:
        return create_trial(state=TrialState.FAIL, user_attrs=attributes)
    return create_trial(
        values=list(values),
        params={"lr": 0.5},
        distributions=SPACE,
        user_attrs=attributes,
        intermediate_values=curve or {},
    )


def chosen(row, ended, *, slack: float = 0.0, has_cost: bool = False):
    return choice(row, ended, slack=slack, has_cost=has_cost)


def test_the_smallest_loss_wins_and_the_first_of_equals() -> None:
    ended = dict(enumerate([entry(0.50), entry(0.47), entry(), entry(0.47)]))
    found = chosen(tasks(4), ended)
    assert (found.index, found.num_windows, found.is_confirmed) == (1, 1, False)
    assert found.difference == pytest.approx(-0.03)


def test_nothing_better_is_the_model_as_written() -> None:
    found = chosen(tasks(3), dict(enumerate([entry(0.5), entry(0.5), entry(0.6)])))
    assert (found.index, found.difference) == (0, 0.0)


def test_no_choice_without_the_model_as_written() -> None:
    assert chosen(tasks(2), dict(enumerate([entry(), entry(0.4)]))) is None


def test_the_cheapest_of_the_nearly_best_wins() -> None:
    ended = dict(enumerate([entry(0.50, 100), entry(0.450, 90), entry(0.4505, 20), entry(0.4502, 20), entry(0.46, 1)]))
    assert chosen(tasks(5), ended, slack=0.001, has_cost=True).index == 3
    assert chosen(tasks(5), ended, slack=0.02, has_cost=True).index == 4
    assert chosen(tasks(5), ended, slack=0.02).index == 1, "without a cost slack means nothing"


def two_rounds():
    """Trials 0 to 2, the best judged again on a harder window, trials 3 to 5, the best judged again."""
    row = tasks(6, refresh_every=3)
    losses = {0: 0.50, 1: 0.40, 2: 0.45, 3: 0.55, 4: 0.60, 5: 0.58}
    ended = {t.number: entry(losses[t.index]) for t in row if t.kind is Kind.TRIAL}
    return row, ended


def test_losses_of_another_window_count_as_differences_to_the_model_as_written_there() -> None:
    row, ended = two_rounds()
    ended |= {3: entry(0.60, of=0), 4: entry(0.62, of=1), 5: entry(0.56, of=2), 6: entry()}
    found = {c.index: c.differences for c in candidates(row, ended)}
    assert found[1] == pytest.approx((-0.10, 0.02)), "a lucky trial"
    assert found[2] == pytest.approx((-0.05, -0.04))
    assert found[3] == pytest.approx((-0.05,))


def test_the_best_so_far_by_all_their_windows_are_judged_next() -> None:
    row, ended = two_rounds()
    assert finalists(row[:3], ended, slack=0, has_cost=False) == [1, 2]
    ended |= {3: entry(0.60, of=0), 4: entry(0.62, of=1), 5: entry(0.56, of=2), 6: entry()}
    known = row[: row[-1].num_known]
    assert finalists(known, ended, slack=0, has_cost=False) == [3, 2, 1]


def test_a_trial_that_was_judged_again_beats_one_that_only_looked_better() -> None:
    row, ended = two_rounds()
    ended |= {3: entry(0.60, of=0), 4: entry(0.62, of=1), 5: entry(0.56, of=2), 6: entry()}
    ended |= {10: entry(0.50, of=0), 11: entry(0.49, of=3), 12: entry(0.47, of=2), 13: entry(0.48, of=1)}
    found = chosen(row, ended)
    assert (found.index, found.num_windows, found.is_confirmed) == (2, 2, True)
    assert found.difference == pytest.approx((-0.04 - 0.03) / 2)


def test_what_a_trial_knows_of_others_is_moved_to_the_first_windows_level() -> None:
    row, ended = two_rounds()
    ended |= {3: entry(0.60, of=0), 4: entry(), 5: entry(), 6: entry()}
    ended[7] = entry(0.55, curve={10: 0.7, 20: 0.65})
    known = known_trials(row[:9], ended)
    assert [t.values[0] for t in known] == pytest.approx([0.50, 0.40, 0.45, 0.45, 0.50])
    assert known[3].intermediate_values == pytest.approx({10: 0.6, 20: 0.55})
