"""A small product with a validated dataset."""

import pytest

from clearway.infra.environment import Environment
from clearway.product import LoadedProduct
from training_kit import World, make_world


@pytest.fixture
def world(env: Environment, flights: LoadedProduct) -> World:
    return make_world(env, flights)
