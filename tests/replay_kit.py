"""A schedule of the release model, carried out by the real code: real verbs, real store, real server core.

Every actor is a thread that stops before each effect and goes on when the schedule says so; a killed one never runs
another line that reaches the store or the endpoint, as after SIGKILL.
"""

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from clearway.contracts.errors import ClearwayError, CompareAndSwapFailed
from clearway.contracts.refs import ModelRef
from clearway.contracts.release_document import Phase, ReleaseDocument, Version
from clearway.contracts.rollout import Order, OrderKind, PlanStep, Rollout
from clearway.contracts.verdict import Verdict
from clearway.deploy.orders import give_order
from clearway.deploy.reconcile import repair
from clearway.deploy.rollback import roll_back
from clearway.deploy.run import deploy
from clearway.deploy.spec import Inputs, Outputs, RollbackInputs
from clearway.infra.clock import FakeClock
from clearway.infra.environment import Environment
from clearway.infra.release_store import open_release_store
from release_model_kit import BASE, OLD, Doc, Event, Model, Role, World
from serving_kit import PRODUCT, InProcessEndpoint, approved, controls_of, make_package

TTL_S = 10.0
TURN_TIMEOUT_S = 60.0


class Killed(BaseException):
    """The thread stands for a process that is gone; no handler of the code may see it."""


@dataclass(slots=True)
class Turn:
    """One run of one actor: stopped before its next effect, over, or dead."""

    may_go: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    stopped: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    is_dead: bool = False
    is_over: bool = False
    is_refused: bool = False
    outputs: Outputs | None = None
    error: BaseException | None = None

    def stop(self) -> None:
        """Called by the thread before an effect."""
        self.check()
        self.stopped.release()
        self.may_go.acquire()
        self.check()

    def check(self) -> None:
        if self.is_dead:
            raise Killed

    def go(self) -> None:
        """Called by the schedule: one effect, and on to the next."""
        self.may_go.release()
        assert self.stopped.acquire(timeout=TURN_TIMEOUT_S), "an actor neither stopped nor ended"

    def run(self, verb: Callable[[], Outputs | None]) -> None:
        self.may_go.acquire()
        try:
            self.outputs = verb()
        except (Killed, ClearwayError, AssertionError) as error:
            self.error = error
        finally:
            self.is_over = True
            self.stopped.release()


class Gated:
    """The store and the endpoint of one actor, and its clock. Taking the lease and what answers a refusal need no turn
    of their own: nothing of the actor's own depends on what happens in between."""

    def __init__(self, real: Any, turn: Turn) -> None:
        self._real, self._turn = real, turn

    def read(self, product: str) -> tuple[ReleaseDocument, int]:
        self._turn.check()
        return self._real.read(product)  # type: ignore[no-any-return]

    def swap(self, document: ReleaseDocument, *, expected_version: int) -> int:
        self._turn.check()
        takes_lease = document.epoch > self._real.read(document.product)[0].epoch
        is_ending = document.phase is Phase.IDLE
        if not takes_lease and not self._turn.is_refused:
            self._turn.stop()
        # An ending that meets a person's order is not written after all: what follows is an effect of its own.
        self._turn.is_refused = not is_ending or document.epoch < self._real.read(document.product)[0].epoch
        with contextlib.suppress(CompareAndSwapFailed):
            version = self._real.swap(document, expected_version=expected_version)
            self._turn.is_refused = False
            return int(version)
        raise CompareAndSwapFailed("refused")

    def load(self, **words: Any) -> None:
        self._tell(self._real.load, **words)

    def set_weights(self, weights_pct: dict[str, float], **words: Any) -> None:
        self._tell(self._real.set_weights, weights_pct, **words)

    def _tell(self, call: Callable[..., None], *values: Any, **words: Any) -> None:
        self._turn.stop()
        self._turn.is_refused = True
        call(*values, **words)
        self._turn.is_refused = False

    def examples(self, digest: str) -> Any:
        self._turn.stop()
        return self._real.examples(digest)

    def sleep(self, _: float) -> None:
        self._turn.stop()

    def __getattr__(self, name: str) -> Any:
        self._turn.check()
        return getattr(self._real, name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Packages:
    """Made once: what the versions of the model are in the real world, and the deployers' inputs."""

    env: Environment
    refs: dict[int, ModelRef]
    inputs: dict[tuple[str, int, bool], Inputs]

    def digest(self, version: int) -> str:
        return self.refs[version].digest


def make_packages(env: Environment, roles: Sequence[Role]) -> Packages:
    """Signed packages for the versions before the story, and for every deployer's."""
    refs = {BASE: make_package(env, 0.5), OLD: make_package(env, 0.6)}
    inputs = {}
    for role in roles:
        if role.kind == "deploy":
            shift = 0.0 if role.is_good else 0.1
            ref = make_package(env, role.version + 0.1, golden_shift=shift)
            refs[_key(role)] = ref
            inputs[role.name, role.version, role.is_good] = approved(env, ref, f"{role.name}-{role.is_good}")
    return Packages(env=env, refs=refs, inputs=inputs)


def _key(role: Role) -> int:
    """Good and bad versions of one number are different packages."""
    return role.version if role.is_good else -role.version


class Replay:
    """One story in the real world."""

    def __init__(self, model: Model, packages: Packages, folder: Path) -> None:
        self.model, self.packages = model, packages
        folder.mkdir()
        (folder / "keys").symlink_to(packages.env.home / "keys")
        self.env = packages.env.model_copy(update={"home": folder})
        self.clock, self.alias = FakeClock(1e6), packages.digest(BASE)
        self.store, self.endpoint = open_release_store(self.env), InProcessEndpoint(self.env)
        self.names = {packages.digest(BASE): BASE, packages.digest(OLD): OLD}
        self.names |= {packages.digest(_key(r)): r.version for r in model.roles if r.kind == "deploy"}
        self.turns: dict[int, Turn] = {}
        self.threads: list[threading.Thread] = []
        self._begin()

    def _begin(self) -> None:
        versions = {}
        for number in (BASE, OLD):
            ref = self.packages.refs[number]
            self.endpoint.load(uri=ref.uri, digest=ref.digest, epoch=0)
            versions[number] = Version(uri=ref.uri, digest=ref.digest, release_id=f"before-{number}")
        self.endpoint.set_weights({versions[BASE].digest: 100.0}, epoch=0)
        first = ReleaseDocument(product=PRODUCT, champion=versions[BASE], previous=versions[OLD])
        self.store.swap(first, expected_version=0)

    def happen(self, event: Event) -> None:
        """One event of the schedule."""
        kind, i = event
        if kind == "start":
            self.turns[i] = turn = Turn()
            thread = threading.Thread(target=turn.run, args=(self._verb(i, turn),), daemon=True)
            self.threads.append(thread)
            thread.start()
            turn.go()
        elif kind == "go":
            self.turns[i].go()
        elif kind == "crash":
            turn = self.turns.pop(i)
            turn.is_dead = True
            turn.go()
            assert isinstance(turn.error, Killed)
        elif kind == "expire":
            self.clock.at_s += TTL_S + 1
        else:
            order = Order(kind=OrderKind.ABORT, by="a person", reason="told to", at_s=self.clock.at_s)
            give_order(self.store, PRODUCT, order)

    def _verb(self, i: int, turn: Turn) -> Callable[[], Outputs | None]:
        role = self.model.roles[i]
        made = controls_of(self.env, Gated(self.endpoint, turn), lease_ttl_s=TTL_S)
        clock = Gated(self.clock, turn)
        controls = replace(made, store=Gated(self.store, turn), clock=clock, key_folder=self.packages.env.home / "keys")

        def project(version: Version) -> None:
            turn.stop()
            self.alias = version.digest

        if role.kind == "repair":
            return lambda: repair(PRODUCT, controls=controls, read_alias=lambda: self.alias, project=project) and None
        if role.kind == "rollback":
            return lambda: roll_back(
                RollbackInputs(product=PRODUCT, release_id=role.name, reason="x"), controls=controls
            )
        plan = tuple(PlanStep(weight_pct=float(share)) for share in self.model.plan)
        inputs = replace(self.packages.inputs[role.name, role.version, role.is_good], release_id=role.name)
        rollout = Rollout(strategy="canary", plan=plan)
        return lambda: deploy(inputs, controls=controls, project=project, rollout=rollout)

    def world(self) -> dict[str, Any]:
        """What can be compared with the model."""
        document, _ = self.store.read(PRODUCT)
        state = self.endpoint.state()
        lease, rollout = document.lease, document.rollout
        doc = Doc(
            phase=document.phase.value,
            champion=self._name(document.champion),
            previous=self._name(document.previous),
            candidate=self._name(document.candidate),
            share=int(document.weight_pct),
            step=rollout.index if rollout else 0,
            holder=lease.holder if lease else "",
            is_live=lease is not None and lease.expires_s > self.clock.at_s,
            release=document.release_id or "",
            ending=document.ending.value if document.ending else "",
            is_ordered=bool(rollout and rollout.order and document.phase.value == "deploying"),
            joined=document.order_id or "",
            ended=tuple((entry.release_id, entry.outcome.value) for entry in document.history),
        )
        return {
            "doc": doc,
            "weights": {self.names[digest]: share for digest, share in state.weights_pct.items()},
            "loaded": {self.names[digest] for digest in state.loaded},
            "alias": self.names[self.alias],
            "running": {i for i, turn in self.turns.items() if not turn.is_over},
        }

    def _name(self, version: Version | None) -> int | None:
        return self.names[version.digest] if version else None

    def close(self) -> None:
        """End every thread that still waits, and the server."""
        for turn in self.turns.values():
            if not turn.is_over:
                turn.is_dead = True
                turn.go()
        for thread in self.threads:
            thread.join(TURN_TIMEOUT_S)
        self.endpoint.close()


def expected(world: World) -> dict[str, Any]:
    """The same of the model."""
    return {
        "doc": world.doc._replace(epoch=0),
        "weights": dict(world.served.weights),
        "loaded": set(world.served.loaded),
        "alias": world.alias,
        "running": {i for i, actor in enumerate(world.actors) if actor.at not in {"out", "done"}},
    }


@contextlib.contextmanager
def replaying(model: Model, packages: Packages, folder: Path) -> Iterator[Replay]:
    """A story for the length of a block."""
    story = Replay(model, packages, folder)
    try:
        yield story
    finally:
        story.close()


def check_answer(role: Role, turn: Turn, world: World) -> None:
    """What the verb told its caller is what the document says."""
    assert turn.error is None, turn.error
    assert turn.outputs is not None
    wanted = "promoted" if role.kind == "deploy" else "rolled_back"
    assert (turn.outputs.verdict is Verdict.PASS) == (dict(world.doc.ended).get(role.name) == wanted)


def replay(model: Model, packages: Packages, events: Sequence[Event], folder: Path) -> World:
    """Carry the events out in the model and in the real world, comparing after each; those that the model does not
    allow at that point (another design's schedule) are left out in both. Returns the model's end."""
    world = model.start()
    with replaying(model, packages, folder) as story:
        for number, event in enumerate(events):
            if event not in set(model.events(world)):
                continue
            world = model.after(world, event)
            story.happen(event)
            now, wanted = story.world(), expected(world)
            differs = {name: (now[name], wanted[name]) for name in wanted if now[name] != wanted[name]}
            assert not differs, (differs, events[: number + 1])
            kind, i = event
            if kind in {"start", "go"} and world.actors[i].at == "done":
                check_answer(model.roles[i], story.turns[i], world)
    return world
