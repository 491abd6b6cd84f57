"""All that deployers, a rollback, the reconciler and a person can do to a release, and what must hold then.

The model is searched exhaustively, designs with a safeguard taken out must fail, and schedules of the model are carried
out by the real verbs on the real store and server core, compared after every single effect.
"""

import dataclasses
import itertools
import random
import shutil
import tempfile
from pathlib import Path

import pytest

from clearway.infra.environment import Environment
from release_model_kit import Design, Event, Model, Role, World, search
from replay_kit import make_packages, replay

A, B = Role(name="a", version=1), Role(name="b", version=2)
BAD = Role(name="b", version=2, is_good=False)
C = Role(name="c", version=3)
ORDER = Role(name="o", kind="rollback")
HEALER = Role(name="reconcile", kind="repair")
STEPS = (50, 100)

TWO = Model(roles=(A, B, HEALER), num_crashes=1, num_expiries=1)
MODELS = [
    pytest.param(TWO, 15_000, id="two releases"),
    pytest.param(Model(roles=(A, BAD, HEALER), num_crashes=1, num_orders=1), 1_800, id="one bad, a person aborts"),
    pytest.param(Model(roles=(A, ORDER, HEALER), num_crashes=1), 3_000, id="rolled back"),
    pytest.param(
        Model(roles=(A, B, HEALER), plan=STEPS, num_crashes=1, num_expiries=1, num_orders=1), 240_000,
        id="two releases in two shares", marks=pytest.mark.slow,
    ),
    pytest.param(
        Model(roles=(A, BAD, ORDER, HEALER), num_expiries=1), 60_000,
        id="two releases and a rollback", marks=pytest.mark.slow,
    ),
    pytest.param(
        Model(roles=(A, BAD, C, HEALER), num_expiries=1), 45_000,
        id="three releases", marks=pytest.mark.slow,
    ),
]  # fmt: skip


@pytest.mark.parametrize(("model", "min_states"), MODELS)
def test_every_reachable_state_is_safe_and_leads_to_rest(model: Model, min_states: int) -> None:
    found = search(model)
    assert found.violation is None, found.violation and (found.violation.violation, found.trace(found.violation))
    assert len(found.came_by) >= min_states
    stuck = found.stuck(model.is_quiet)
    assert not stuck, found.trace(next(iter(stuck)))


def test_without_the_reconciler_the_alias_can_stay_behind() -> None:
    """The registry knows no fence: whoever ends first may write its alias last. So nobody may route by it."""
    model = dataclasses.replace(TWO, roles=(A, B))
    found = search(model)
    left_behind = found.stuck(model.is_quiet)
    assert found.violation is None
    assert any(world.alias != world.doc.champion for world in left_behind)


STALE = frozenset({"stale write accepted by the document", "stale write accepted by the endpoint", "apart at rest"})
MUTANTS = [
    pytest.param(Design(document="nothing", is_endpoint_fenced=False), STALE, "stale promote", 9, id="no fence at all"),
    pytest.param(
        Design(document="epoch", is_epoch_raised_late=True), STALE, "stale promote", 9,
        id="epoch raised with the first write, not with the lease",
    ),
    pytest.param(
        Design(is_endpoint_fenced=False), frozenset(), "stale write accepted by the endpoint", 6,
        id="endpoint takes any epoch",
    ),
    pytest.param(
        Design(is_endpoint_fenced=False), STALE - {"apart at rest"}, "apart at rest", 14,
        id="endpoint takes any epoch, until it shows",
    ),
    pytest.param(
        Design(ends_before_switch=True), frozenset(), "apart at rest", 5,
        id="lease ends before the last write",
    ),
    pytest.param(Design(trusts_alias=True), frozenset(), "apart at rest", 16, id="alias read as truth"),
]  # fmt: skip


def counterexample(design: Design, ignores: frozenset[str]) -> tuple[str, list[Event]]:
    """The nearest violation of a design, and the way there."""
    model = dataclasses.replace(TWO, num_orders=1, design=design, ignores=ignores)
    found = search(model)
    assert found.violation is not None
    return found.violation.violation, found.trace(found.violation)


@pytest.mark.parametrize(("design", "ignores", "violation", "num_events"), MUTANTS)
def test_a_design_without_a_safeguard_fails(
    design: Design, ignores: frozenset[str], violation: str, num_events: int
) -> None:
    said, events = counterexample(design, ignores)
    assert (said, len(events)) == (violation, num_events), events


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory):
    """Signed packages of every version, made once."""
    home = tmp_path_factory.mktemp("home")
    env = Environment.load({"CLEARWAY__HOME": str(home), "CLEARWAY__STORAGE__ROOT": (home / "store").as_uri()})
    return make_packages(env, [A, B, BAD, C])


@pytest.fixture
def folder():
    """In memory where the machine has such a folder: thousands of commits, and no power cut to survive."""
    made = tempfile.mkdtemp(dir="/dev/shm" if Path("/dev/shm").is_dir() else None)  # noqa: S108
    yield Path(made)
    shutil.rmtree(made)


@pytest.mark.parametrize(("design", "ignores", "violation", "num_events"), MUTANTS)
def test_the_real_code_withstands_what_breaks_the_other_designs(
    design: Design, ignores: frozenset[str], violation: str, num_events: int, packages, folder
) -> None:
    _, events = counterexample(design, ignores)
    model = dataclasses.replace(TWO, num_orders=1)
    world = replay(model, packages, [*events, *finish(model, events)], folder / "home")
    assert model.is_quiet(world)


def finish(model: Model, events: list[Event]) -> list[Event]:
    """What brings the schedule to rest, by lot."""
    world = model.start()
    for event in events:
        if event in set(model.events(world)):
            world = model.after(world, event)
    return walk(model, world, random.Random(7))  # noqa: S311


def walk(model: Model, world: World, rng: random.Random) -> list[Event]:
    """One story told by lot, until everything is at rest."""
    events = []
    while not model.is_quiet(world):
        event = rng.choice(sorted(model.events(world)))
        world = model.after(world, event)
        events.append(event)
    return events


STORIES = [
    dataclasses.replace(TWO, num_orders=1, plan=STEPS),
    Model(roles=(A, BAD, HEALER), num_crashes=2, num_expiries=2, num_orders=1),
    Model(roles=(A, ORDER, HEALER), plan=STEPS, num_crashes=2, num_expiries=1, num_orders=1),
    Model(roles=(A, BAD, C, ORDER, HEALER), num_crashes=2, num_expiries=2),
]


@pytest.mark.parametrize("num_stories", [8, pytest.param(100, marks=pytest.mark.slow)])
def test_the_real_code_does_what_the_model_does(num_stories: int, packages, folder) -> None:
    rng = random.Random(2013)  # noqa: S311
    for number, model in zip(range(num_stories), itertools.cycle(STORIES)):
        events = walk(model, model.start(), rng)
        world = replay(model, packages, events, folder / str(number))
        assert model.is_quiet(world)
        shutil.rmtree(folder / str(number))
