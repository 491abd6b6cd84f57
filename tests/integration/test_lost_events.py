"""Events lost, doubled and delayed at random: every retraining decision is acted on, none twice."""

import pytest

from clearway.infra.environment import Environment
from clearway.product import LoadedProduct
from events_kit import trial


@pytest.mark.parametrize("seed", range(8))
def test_every_decision_is_acted_on_once_whatever_becomes_of_its_events(
    env: Environment, flights: LoadedProduct, seed: int
) -> None:
    found = trial(env, flights, seed=seed)
    assert (found.num_lost, found.num_doubled) == (0, 0)
    assert found.num_sent > 10


def test_without_the_reconciler_decisions_are_lost(
    env: Environment, flights: LoadedProduct, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The trial can fail: four in ten events vanish, so some decision of five is lost."""
    monkeypatch.setattr("clearway.reconcile.lost_decisions", lambda *_, **__: [])
    assert sum(trial(env, flights, seed=seed).num_lost for seed in range(100, 104)) > 0
