"""How a new version takes traffic: one file per strategy, each a plan for the state machine."""

from clearway.contracts.rollout import Rollout
from clearway.deploy.strategies import blue_green, canary
from clearway.product import Rollout as Settings

_PLANS = {"blue_green": blue_green.begin, "canary": canary.begin}


def begin(settings: Settings) -> Rollout:
    """The plan of a new rollout, frozen from here on."""
    return _PLANS[settings.strategy](settings)
