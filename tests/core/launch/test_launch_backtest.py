"""Policies over a past: schedules, figures, the page, and nothing that retrains where nothing changes."""

import dataclasses
import re

import numpy as np
import pytest

from clearway.contracts.codec import to_jsonable
from clearway.contracts.errors import ConfigError
from clearway.infra.environment import Environment
from clearway.launch.backtest.page import render
from clearway.launch.backtest.policies import POLICIES, accounts, never
from clearway.launch.backtest.replay import Replay
from clearway.launch.backtest.year import read_year
from clearway.launch.commands.replay import POLICY_NAMES
from clearway.launch.policy_table import render_policies
from clearway.measures import binary
from clearway.monitor.decide import Answer
from clearway.product import LoadedProduct
from years_kit import EqualModels, town, town_year

CALENDAR = [["drift"], ["calibration"], ["loss"], ["time"]]


def replay_of(product: LoadedProduct, *, seed: int) -> Replay:
    year, scores = town_year(product, seed=seed)
    return Replay(year, product, EqualModels(year, product, scores))


class Decaying(EqualModels):
    """A model's scores lose their order, a little more every week."""

    def scores(self, model: int) -> np.ndarray:
        age = np.maximum(self._year.week - model, 0)
        weight = np.exp(-age / 8)
        return (weight * self._scores + (1 - weight) * (1 - self._scores)).astype(np.float32)


@pytest.fixture(scope="module")
def decaying() -> Replay:
    product = town(triggers=CALENDAR)
    year, scores = town_year(product, seed=1)
    return Replay(year, product, Decaying(year, product, scores))


@pytest.mark.parametrize("seed", range(3))
def test_where_nothing_changes_only_the_calendar_retrains(seed: int) -> None:
    story = replay_of(town(triggers=CALENDAR[:3]), seed=seed).run(town(triggers=CALENDAR[:3]).spec.monitor)
    assert story.retrained == ()
    assert {d.answer for d in story.decisions} == {Answer.HOLD}
    shipped = replay_of(town(triggers=CALENDAR), seed=seed)
    assert shipped.run(shipped.product.spec.monitor).retrained == shipped.every(7).retrained != ()


def test_a_model_that_decays_is_replaced_and_that_pays(decaying: Replay) -> None:
    told = accounts(decaying, tuple(POLICIES))
    loss = {name: account.whole.log_loss for name, (_, account) in told.items()}
    assert loss["weekly"] < loss["shipped"] < loss["never"]
    assert loss["oracle"] <= loss["shipped"]
    assert told["performance"][1].retrained
    assert told["drift"][1].retrained == ()
    assert told["never"][1].gain == (0.0, 0.0, 0.0)
    assert told["weekly"][1].share_of_gain == 1.0
    shipped = told["shipped"][1]
    assert shipped.gain[1] > 0
    assert len(shipped.delays) == len(shipped.retrained)
    assert shipped.rows_trained == sum(decaying.models.num_rows(w) for w in told["shipped"][0].retrained)


def test_a_policy_is_played_once_however_many_ask_for_its_story() -> None:
    product = town(triggers=CALENDAR)
    year, scores = town_year(product, seed=1)
    played = []

    class Counting(Replay):
        def _summary(self, week, serving, carried, policy):  # type: ignore[no-untyped-def]
            played.append((policy.triggers, week))
            return super()._summary(week, serving, carried, policy)

    accounts(Counting(year, product, EqualModels(year, product, scores)), tuple(POLICIES))
    assert len(played) == len(set(played)) == 3 * len(year.weeks)  # drift, performance, shipped


def test_figures_are_those_of_the_rows(decaying: Replay) -> None:
    account = accounts(decaying, ["never"])["never"][1]
    year, scores = decaying.year, decaying.scores(never(decaying))
    july = np.isfinite(scores) & (year.day >= 15_887) & (year.day < 15_918)  # 2013-07-01 to 2013-07-31
    labels, own = year.labels[july], scores[july]
    assert account.months["2013-07"].num_rows == july.sum() > 0
    assert account.months["2013-07"].auc == binary.auc(labels, own)
    assert account.months["2013-07"].brier == binary.brier(labels, own)
    assert sum(q.num_rows for q in account.months.values()) == account.whole.num_rows == np.isfinite(scores).sum()
    assert account.whole.log_loss == pytest.approx(decaying.log_loss(never(decaying)))


def test_the_best_schedule_is_the_best_of_all(decaying: Replay) -> None:
    every_pair = [
        decaying.log_loss(decaying.schedule([i, j])) for i in decaying.weeks[:-1] for j in decaying.weeks[:-1] if i < j
    ]
    assert decaying.log_loss(decaying.best(2)) == pytest.approx(min(every_pair))


def test_random_schedules_share_what_came_before(decaying: Replay) -> None:
    since, kept = decaying.weeks[20], [decaying.weeks[4]]
    after = slice(20, None)
    losses = decaying.random_losses(1, np.random.default_rng(0), kept=kept, since=since)
    possible = [decaying.log_loss(decaying.schedule([*kept, w]), after) for w in decaying.weeks[20:-1]]
    assert set(np.round(losses, 12)) == set(np.round(possible, 12))


def test_a_training_sees_known_labels_without_the_holdout() -> None:
    year, _ = town_year(town(), seed=0)
    seen = year.training_rows(20, holdout_days=7)
    assert year.week[seen].max() == 18  # 20 is not labelled yet, 19 is held out
    assert set(np.unique(year.week[seen])) == set(range(19))


def test_the_page_and_the_table_tell_the_same(decaying: Replay) -> None:
    told = accounts(decaying, tuple(POLICIES))
    html = render(decaying, told).decode()
    assert "<script" not in html
    assert html.count("<svg") == 5
    retrained = told["shipped"][1].retrained
    green = re.findall(r'<line [^>]*stroke="#18794e"', html)
    assert len(green) == 3 * len(retrained)  # in traffic, drift and labels
    for batch in retrained:
        assert f"<code>{batch}</code></td><td>retrain" in html
    result = {"policies": [to_jsonable(account) for _, account in told.values()], "page": "file:///story.html"}
    text = render_policies(result)
    by_month = [line.split() for line in text.partition("Log-loss by month")[2].partition("Brier")[0].splitlines()]
    last = {cells[0]: cells[-1] for cells in by_month if cells}
    assert {name: last[name] for name in told} == {n: f"{a.whole.log_loss:.4f}" for n, (_, a) in told.items()}


@pytest.mark.parametrize(("name", "has_decisions"), [("never", False), ("drift", True)])
def test_one_policy_alone_has_a_page_too(decaying: Replay, name: str, has_decisions: bool) -> None:
    html = render(decaying, accounts(decaying, [name])).decode()
    assert '<div class="banner inconclusive">' in html  # neither retrains, so nothing is saved
    assert ("<h2>Decisions</h2>" in html) is has_decisions


def test_the_command_knows_every_policy() -> None:
    assert tuple(POLICIES) == POLICY_NAMES


def test_a_past_without_an_end_is_refused(env: Environment) -> None:
    product = town()
    endless = product.spec.batch.model_copy(update={"last": None})
    product = product.model_copy(update={"spec": product.spec.model_copy(update={"batch": endless})})
    with pytest.raises(ConfigError, match=r"has no `batch\.last`"):
        read_year(env, product, env.home)


def test_labels_that_come_at_once_are_used_at_once() -> None:
    year, _ = town_year(town(), seed=0)
    prompt = dataclasses.replace(year, label_lag=0)
    assert prompt.week[prompt.training_rows(20, holdout_days=7)].max() == 19
