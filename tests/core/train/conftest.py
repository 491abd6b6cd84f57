"""A small product with a validated dataset, whose model has a teacher: what it adds must survive kills too."""

import pytest

from clearway.infra.environment import Environment
from clearway.product import LoadedProduct
from clearway.product_teacher import Teacher
from clearway.train.run import run
from training_kit import TINY, World, make_world


@pytest.fixture
def world(env: Environment, flights: LoadedProduct) -> World:
    return _world(env, flights)


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory, flights: LoadedProduct) -> str:
    """Digest of the model of a training that nothing disturbed, in a home of its own."""
    home = tmp_path_factory.mktemp("calm")
    world = _world(
        Environment.load({"CLEARWAY__HOME": str(home), "CLEARWAY__STORAGE__ROOT": (home / "s").as_uri()}), flights
    )
    return run(world.inputs(), product=world.product, env=world.env).model.digest


def _world(env: Environment, flights: LoadedProduct) -> World:
    teacher = Teacher(num_mixtures=1, num_trees=20, learning_rate=0.1)
    return make_world(env, flights, model=TINY.model_copy(update={"teacher": teacher}))
