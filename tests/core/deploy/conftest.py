"""Releases that store every step of theirs: a third of their time would be the disk's."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from clearway.deploy.controls import Controls
from clearway.infra.clock import FakeClock
from clearway.infra.environment import Environment
from serving_kit import InProcessEndpoint, controls_of


@pytest.fixture
def env() -> Iterator[Environment]:
    """The environment of every test, in memory where the machine has a place for that."""
    shared = Path("/dev/shm")  # noqa: S108
    with tempfile.TemporaryDirectory(dir=shared if shared.is_dir() else None) as home:
        yield Environment.load({"CLEARWAY__HOME": home, "CLEARWAY__STORAGE__ROOT": (Path(home) / "store").as_uri()})


@pytest.fixture
def endpoint(env: Environment) -> Iterator[InProcessEndpoint]:
    made = InProcessEndpoint(env)
    yield made
    made.close()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(1e9)


@pytest.fixture
def controls(env: Environment, endpoint: InProcessEndpoint, clock: FakeClock) -> Controls:
    return controls_of(env, endpoint, clock=clock, lease_ttl_s=6.0)
