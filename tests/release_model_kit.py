"""A small model of how releases share one document and one endpoint, and a search through all it can do.

Written from the rules, not from the code: deployers, rollback orders and the reconciler are actors that perform one
effect at a time (a write of the document or of the endpoint), sleep or die in between, and lose their lease meanwhile.
`Design` turns single safeguards off; the search then has to find what goes wrong, or it could not be trusted where it
finds nothing.
"""

import contextlib
import gc
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

OLD, BASE = 9, 0  # the way back and the champion before anything happens; releases bring versions 1, 2, …
ALL = 100


class Doc(NamedTuple):
    """The release document as far as it decides anything."""

    phase: str = "idle"
    champion: int | None = BASE
    previous: int | None = OLD
    candidate: int | None = None
    share: int = 0
    step: int = 0
    epoch: int = 0
    holder: str = ""
    is_live: bool = False
    release: str = ""
    ending: str = ""
    is_ordered: bool = False
    joined: str = ""
    ended: tuple[tuple[str, str], ...] = ()


class Served(NamedTuple):
    """The endpoint: shares, versions in memory, newest epoch seen."""

    weights: tuple[tuple[int, int], ...] = ((BASE, ALL),)
    loaded: frozenset[int] = frozenset({BASE, OLD})
    epoch: int = 0


class Actor(NamedTuple):
    """What one process knows. `at`: out (not running), run, late, alias, follow, done."""

    at: str = "out"
    doc: Doc = Doc()
    is_fresh: bool = False
    seen: Served = Served()
    is_golden: bool | None = None
    is_answering: bool | None = None
    has_ordered: bool = False
    has_raised: bool = True
    has_slept: bool = False  # over the end of a lease, between reading the clock and its next effect
    captured: int | None = None
    todo: frozenset[str] = frozenset()
    repaired: frozenset[str] = frozenset()
    round: int = 0
    alias_read: int | None = None


class World(NamedTuple):
    """Everything. The last five are for the search: who took the lease last, what it did, and what may still happen."""

    doc: Doc = Doc()
    served: Served = Served()
    alias: int | None = BASE
    actors: tuple[Actor, ...] = ()
    newest: int = -1
    has_touched: bool = False
    num_promoted: int = 0
    budget: tuple[int, int, int] = (0, 0, 0)
    violation: str = ""


Event = tuple[str, int]  # what happens, to which actor (-1: to none)
CRASH, EXPIRE, ORDER = range(3)


@dataclass(frozen=True, slots=True, kw_only=True)
class Role:
    """Who an actor is. `version` and `is_good`: what a deployer brings."""

    name: str
    kind: str = "deploy"
    version: int = 0
    is_good: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Design:
    """The safeguards. `document`: what makes a write conditional (version, epoch, nothing)."""

    document: str = "version"
    is_endpoint_fenced: bool = True
    is_epoch_raised_late: bool = False
    ends_before_switch: bool = False
    trusts_alias: bool = False


GOOD = Design()


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """Actors, shares of the plan, how often each misfortune may happen, and the design under test.

    Args:
        num_expiries: leases that run out under a holder who lives; those of the dead always do.
        ignores: violations to look past, in search of what follows from them.
    """

    roles: tuple[Role, ...]
    plan: tuple[int, ...] = (ALL,)
    num_crashes: int = 0
    num_expiries: int = 0
    num_orders: int = 0
    design: Design = GOOD
    ignores: frozenset[str] = frozenset()

    def start(self) -> World:
        """Nothing has happened."""
        budget = (self.num_crashes, self.num_expiries, self.num_orders)
        return World(actors=tuple(Actor() for _ in self.roles), budget=budget)

    # --- what can happen

    def events(self, world: World) -> Iterator[Event]:
        """All that can happen next."""
        for i, (role, actor) in enumerate(zip(self.roles, world.actors, strict=True)):
            if actor.at == "out" and self._may_start(world, role):
                yield "start", i
            if actor.at in {"run", "late", "alias"} or (actor.at == "follow" and not self._is_ours(world, role)):
                yield "go", i
            if actor.at not in {"out", "done"} and world.budget[CRASH]:
                yield "crash", i
        if world.doc.holder and world.doc.is_live and (world.budget[EXPIRE] or not self._is_awake(world)):
            yield "expire", -1
        if world.doc.phase == "deploying" and not world.doc.is_ordered and world.budget[ORDER]:
            yield "order", -1

    def after(self, world: World, event: Event) -> World:
        """The world after one event, epochs renumbered: only their order matters."""
        kind, i = event
        act: dict[str, Callable[[], World]] = {
            "start": lambda: self._start(world, i),
            "go": lambda: self._go(world, i),
            "crash": lambda: _spent(_with(world, i, Actor()), CRASH),
            "expire": lambda: self._expire(world),
            "order": lambda: _spent(_unread(world._replace(doc=world.doc._replace(is_ordered=True)), -1), ORDER),
        }
        return _renumbered(self._judged(act[kind]()))

    def _is_awake(self, world: World) -> bool:
        names = [role.name for role in self.roles]
        return world.actors[names.index(world.doc.holder)].at == "run"

    def _expire(self, world: World) -> World:
        asleep = tuple(actor._replace(has_slept=actor.at == "run") for actor in world.actors)
        lost = world._replace(doc=world.doc._replace(is_live=False), actors=asleep)
        return _spent(lost, EXPIRE) if self._is_awake(world) else lost

    def _may_start(self, world: World, role: Role) -> bool:
        doc = world.doc
        if role.kind == "repair":
            return bool(_repairs(world, world.alias))
        return role.kind == "rollback" or not doc.is_live or doc.holder in {"", role.name}

    def _is_ours(self, world: World, role: Role) -> bool:
        return world.doc.release == role.name and not _outcome(world.doc, role.name)

    # --- starting

    def _start(self, world: World, i: int) -> World:
        role, doc = self.roles[i], world.doc
        if role.kind == "repair":
            return self._round(world, i, Actor(alias_read=world.alias))
        if _outcome(doc, role.name):
            return self._over(world, i)
        if role.kind == "rollback" and doc.phase == "idle" and doc.previous is None:
            return _with(world, i, Actor(at="done"))
        return self._take(world, i, Actor())

    def _take(self, world: World, i: int, actor: Actor) -> World:
        is_late, doc = self.design.is_epoch_raised_late, world.doc
        owned = doc._replace(epoch=doc.epoch + (not is_late), holder=self.roles[i].name, is_live=True)
        actor = actor._replace(at="run", doc=owned, is_fresh=True, has_raised=not is_late)
        world = _unread(world._replace(doc=owned, newest=i, has_touched=False, num_promoted=0), i)
        return _with(world, i, actor._replace(seen=world.served))

    def _round(self, world: World, i: int, actor: Actor) -> World:
        """One of the reconciler's two looks."""
        if actor.round == 2:
            return _with(world, i, Actor())
        todo = _repairs(world, actor.alias_read) - actor.repaired
        actor = actor._replace(round=actor.round + 1, todo=todo, repaired=actor.repaired | todo)
        if not todo - {"alias"}:
            return self._aliased(world, i, actor, world.doc.champion)
        world = self._take(world, i, actor)
        return world if "finish" in todo else self._unloaded(world, i, todo)

    def _unloaded(self, world: World, i: int, todo: frozenset[str]) -> World:
        return _tidied(world, touched_by=i) if "unload" in todo else world

    def _aliased(self, world: World, i: int, actor: Actor, champion: int | None) -> World:
        if "alias" in actor.todo:
            return _with(world, i, actor._replace(at="alias", captured=champion))
        return self._round(world, i, actor)

    # --- one effect

    def _go(self, world: World, i: int) -> World:
        role, actor = self.roles[i], world.actors[i]
        if actor.at == "alias":
            world = world._replace(alias=actor.captured)
            return self._round(world, i, actor) if role.kind == "repair" else _with(world, i, Actor(at="done"))
        if actor.at == "follow":
            return self._over(world, i)
        if actor.at == "late":
            table = ((actor.captured or 0, ALL),)
            return _with(self._endpoint(world, i, weights=table), i, Actor(at="done"))
        kind, wish = self._next(world, i)
        if kind == "store":
            assert isinstance(wish, Doc)
            return self._store(world, i, wish)
        actor = actor._replace(has_slept=False)
        world = _with(world, i, actor)
        if kind == "probe":
            is_answering = world.served.weights == ((wish, ALL),)
            return _with(world, i, self._proved(actor._replace(is_answering=is_answering)))
        changes = {"loaded": world.served.loaded | {wish}} if kind == "load" else {"weights": wish}
        return self._endpoint(world, i, **changes)

    def _endpoint(self, world: World, i: int, **changes: object) -> World:
        actor, served = world.actors[i], world.served
        if self.design.is_endpoint_fenced and actor.doc.epoch < served.epoch:
            return self._lost(world, i)
        if world.newest != i and world.has_touched:
            world = self._flagged(world, "stale write accepted by the endpoint")
        served = served._replace(epoch=max(served.epoch, actor.doc.epoch), **changes)  # type: ignore[arg-type]
        is_answering = actor.is_answering if served.weights == actor.seen.weights else None
        actor = self._proved(actor._replace(seen=served, is_answering=is_answering))
        return _with(world._replace(served=served, has_touched=world.has_touched or world.newest == i), i, actor)

    def _proved(self, actor: Actor) -> Actor:
        """Golden answers need no turn of their own: nobody else can change them."""
        doc = actor.doc
        is_ready = doc.phase == "deploying" and {doc.candidate, doc.champion} <= actor.seen.loaded
        if actor.is_golden is None and is_ready and actor.seen.epoch >= doc.epoch:
            is_good = next(role.is_good for role in self.roles if role.version == doc.candidate)
            return actor._replace(is_golden=is_good)
        return actor

    def _store(self, world: World, i: int, doc: Doc) -> World:
        actor, kind = world.actors[i], self.design.document
        if kind != "nothing" and actor.doc.epoch != world.doc.epoch:
            has_failed = actor.is_answering is False and actor.doc.phase in {"aborting", "rolling_back"}
            # Others answered where the way back was set: the verb fails, and whoever runs it runs it again.
            return _with(world, i, Actor()) if has_failed else self._lost(world, i)
        if kind == "version" and not actor.is_fresh:  # a person's order came in between
            if doc.phase == "idle":
                return _with(world, i, actor._replace(doc=world.doc, is_fresh=True, has_slept=False))
            doc = doc._replace(is_ordered=doc.phase == "deploying")
        before, has_promoted = actor.doc, doc.ended != actor.doc.ended and doc.ended[-1][1] == "promoted"
        if world.newest != i:
            world = self._flagged(world, "stale promote" if has_promoted else "stale write accepted by the document")
        if not actor.has_raised:
            doc = doc._replace(epoch=doc.epoch + 1)
        doc = doc._replace(is_live=bool(doc.holder) and not actor.has_slept)
        world = _unread(world._replace(doc=doc, num_promoted=world.num_promoted + has_promoted), i)
        actor = actor._replace(doc=doc, is_fresh=True, has_raised=True, has_ordered=True, has_slept=False)
        if (doc.phase in {"deploying", "aborting"} and before.phase != doc.phase) or doc.phase == "rolling_back":
            actor = actor._replace(seen=world.served, is_answering=None)
            actor = actor._replace(is_golden=None if doc.phase == "deploying" else actor.is_golden)
        world = _with(world, i, self._proved(actor))
        return self._ended(world, i) if doc.phase == "idle" else world

    def _ended(self, world: World, i: int) -> World:
        """After a write that left the document idle."""
        role, actor = self.roles[i], world.actors[i]
        if actor.doc.holder:
            return _with(world, i, actor._replace(is_golden=None, is_answering=None))
        if role.kind == "repair":
            return self._aliased(world, i, actor, actor.doc.champion)
        if self.design.ends_before_switch and actor.doc.ended[-1] == (role.name, "promoted"):
            return _with(world, i, actor._replace(at="late", captured=actor.doc.champion))
        return self._over(world, i)

    def _lost(self, world: World, i: int) -> World:
        """A newer holder took over: a deployment looks how it ended, a rollback and the reconciler stop."""
        role = self.roles[i]
        if role.kind == "repair":
            return _with(world, i, Actor())
        if role.kind == "deploy" and self._is_ours(world, role):
            return _with(world, i, Actor(at="follow"))
        return self._over(world, i)

    def _over(self, world: World, i: int) -> World:
        role, is_idle = self.roles[i], world.doc.phase == "idle"
        if not _outcome(world.doc, role.name) or not is_idle:
            return _with(world, i, Actor(at="done"))
        world = _tidied(world)
        after = Actor(at="alias", captured=world.doc.champion) if role.kind == "deploy" else Actor(at="done")
        return _with(world, i, after)

    # --- decisions

    def _next(self, world: World, i: int) -> tuple[str, object]:
        role, actor = self.roles[i], world.actors[i]
        doc = actor.doc
        if role.kind == "rollback" and not actor.has_ordered:
            return "store", _ordered_back(doc, role.name)
        if doc.phase == "idle":
            if role.kind == "repair":
                return "store", doc._replace(holder="")
            begun = doc._replace(phase="deploying", candidate=role.version, share=0, step=0, release=role.name)
            return "store", begun
        if doc.phase == "deploying" and role.kind == "deploy" and doc.release != role.name:
            return "store", doc._replace(phase="aborting", ending="superseded", share=0, is_ordered=False)
        return self._deploying(world, i) if doc.phase == "deploying" else self._returning(world, i)

    def _deploying(self, world: World, i: int) -> tuple[str, object]:
        actor = world.actors[i]
        doc, seen = actor.doc, actor.seen
        if doc.is_ordered or actor.is_golden is False or actor.is_answering is False:
            return "store", doc._replace(phase="aborting", ending="aborted", share=0, is_ordered=False)
        for version in (doc.candidate, doc.champion):
            if version not in seen.loaded or seen.epoch < doc.epoch:
                return "load", version
        if doc.share != self.plan[doc.step]:
            return "store", doc._replace(share=self.plan[doc.step])
        rest = ((doc.champion, ALL - doc.share),) if doc.share < ALL else ()
        is_last = doc.step == len(self.plan) - 1
        if self.design.ends_before_switch and is_last:
            return "store", self._finished(doc, "promoted", i, champion=doc.candidate, previous=doc.champion)
        if seen.weights != (table := ((doc.candidate, doc.share), *rest)):
            return "weights", table
        if not is_last:
            return "store", doc._replace(step=doc.step + 1)
        if actor.is_answering is None:
            return "probe", doc.candidate
        return "store", self._finished(doc, "promoted", i, champion=doc.candidate, previous=doc.champion)

    def _returning(self, world: World, i: int) -> tuple[str, object]:
        actor = world.actors[i]
        doc, seen = actor.doc, actor.seen
        is_rollback = doc.phase == "rolling_back"
        target = doc.candidate if is_rollback else doc.champion
        target = world.alias if self.design.trusts_alias else target
        if target not in seen.loaded or seen.epoch < doc.epoch:
            return "load", target
        if seen.weights != ((target, ALL),):
            return "weights", ((target, ALL),)
        if actor.is_answering is None:
            return "probe", target
        if is_rollback:
            return "store", self._finished(doc, "rolled_back", i, champion=doc.candidate, previous=None)
        return "store", self._finished(doc, doc.ending, i, champion=doc.champion, previous=doc.previous)

    def _finished(self, doc: Doc, outcome: str, i: int, *, champion: int | None, previous: int | None) -> Doc:
        role = self.roles[i]
        ended = [(doc.release, outcome)]
        if doc.joined not in {"", doc.release}:
            ended.append((doc.joined, "rolled_back"))
        keeps_lease = role.kind == "repair" or (role.kind == "deploy" and doc.release != role.name)
        return Doc(
            champion=champion, previous=previous, epoch=doc.epoch, ended=(*doc.ended, *ended),
            holder=doc.holder if keeps_lease else "", is_live=keeps_lease,
        )  # fmt: skip

    # --- what must hold

    def _judged(self, world: World) -> World:
        doc, served = world.doc, world.served
        if world.violation:
            return world
        if doc.champion is None:
            return self._flagged(world, "no champion")
        if world.num_promoted > 1:
            return self._flagged(world, "two promoted for one lease")
        is_apart = (
            served.weights != ((doc.champion, ALL),) or not {doc.champion, doc.previous} - {None} <= served.loaded
        )
        if doc.phase == "idle" and not doc.holder and is_apart:
            return self._flagged(world, "apart at rest")
        return world

    def _flagged(self, world: World, violation: str) -> World:
        return world if violation in self.ignores or world.violation else world._replace(violation=violation)

    def is_quiet(self, world: World) -> bool:
        """Nobody runs, nothing is left over: document, endpoint and alias agree, and all that ended, ended whole."""
        doc = world.doc
        is_over = all(actor.at in {"done", "out"} for actor in world.actors)
        begun = {role.name for role, actor in zip(self.roles, world.actors, strict=True) if actor.at == "done"}
        whole = {"promoted", "rolled_back", "superseded", "aborted"}
        is_whole = {outcome for _, outcome in doc.ended} <= whole and len(dict(doc.ended)) == len(doc.ended)
        is_at_rest = doc.phase == "idle" and not doc.holder and world.alias == doc.champion
        deployers = {role.name for role in self.roles if role.kind == "deploy"}
        return is_over and is_whole and is_at_rest and deployers <= begun


def _ordered_back(doc: Doc, name: str) -> Doc:
    if doc.phase == "idle":
        return doc._replace(phase="rolling_back", candidate=doc.previous, share=0, release=name)
    if doc.phase == "deploying":
        doc = doc._replace(phase="aborting", ending="aborted", share=0, is_ordered=False)
    return doc if doc.release == name else doc._replace(joined=name)


def _repairs(world: World, alias: int | None) -> frozenset[str]:
    doc = world.doc
    if doc.holder and doc.is_live:
        return frozenset()
    if doc.phase != "idle":
        return frozenset({"finish"})
    is_retired = bool(world.served.loaded - {doc.champion, doc.previous})
    found = {"lease": bool(doc.holder), "unload": is_retired, "alias": alias != doc.champion}
    return frozenset(name for name, is_needed in found.items() if is_needed)


def _tidied(world: World, *, touched_by: int = -2) -> World:
    doc, served = world.doc, world.served
    kept = {doc.champion, doc.previous, doc.candidate, *(version for version, _ in served.weights)}
    if served.loaded <= kept or doc.epoch < served.epoch:
        return world
    world = world._replace(served=served._replace(loaded=served.loaded & kept, epoch=doc.epoch))
    if touched_by < 0:
        return world
    actor = world.actors[touched_by]._replace(seen=world.served)
    return _with(world, touched_by, actor)._replace(has_touched=True)


def _outcome(doc: Doc, name: str) -> str:
    return dict(doc.ended).get(name, "")


def _with(world: World, i: int, actor: Actor) -> World:
    return world._replace(actors=(*world.actors[:i], actor, *world.actors[i + 1 :]))


def _unread(world: World, writer: int) -> World:
    """Somebody wrote the document: what the others read of it is old."""
    actors = tuple(a if i == writer else a._replace(is_fresh=False) for i, a in enumerate(world.actors))
    return world._replace(actors=actors)


def _spent(world: World, what: int) -> World:
    budget = list(world.budget)
    budget[what] -= 1
    return world._replace(budget=(budget[0], budget[1], budget[2]))


def _renumbered(world: World) -> World:
    live = [actor for actor in world.actors if actor.at not in {"out", "done"}]
    found = {world.doc.epoch, world.served.epoch, *(a.doc.epoch for a in live), *(a.seen.epoch for a in live)}
    rank = {epoch: i for i, epoch in enumerate(sorted(found))}
    if all(epoch == i for epoch, i in rank.items()):
        return world
    actors = tuple(
        a._replace(doc=a.doc._replace(epoch=rank[a.doc.epoch]), seen=a.seen._replace(epoch=rank[a.seen.epoch]))
        if a.at not in {"out", "done"}
        else a
        for a in world.actors
    )
    doc, served = world.doc._replace(epoch=rank[world.doc.epoch]), world.served._replace(epoch=rank[world.served.epoch])
    return world._replace(doc=doc, served=served, actors=actors)


@dataclass(slots=True)
class Found:
    """What a search saw: how each state was reached, from where, and the first violation."""

    came_by: dict[World, tuple[World, Event] | None] = field(default_factory=dict)
    came_from: dict[World, list[World]] = field(default_factory=dict)
    violation: World | None = None

    def trace(self, world: World) -> list[Event]:
        """Events from the start to `world`, as few as possible."""
        events = []
        while (step := self.came_by[world]) is not None:
            world, event = step
            events.append(event)
        return events[::-1]

    def stuck(self, is_quiet: Callable[[World], bool]) -> set[World]:
        """States from which no quiet state can be reached."""
        left, todo = set(self.came_by), deque(world for world in self.came_by if is_quiet(world))
        left.difference_update(todo)
        while todo:
            for before in self.came_from.get(todo.popleft(), ()):
                if before in left:
                    left.remove(before)
                    todo.append(before)
        return left


def search(model: Model) -> Found:
    """Every reachable state, nearest first; stops at the first violation."""
    with _uncollected():
        return _search(model)


@contextlib.contextmanager
def _uncollected() -> Iterator[None]:
    """States are tuples without cycles, all of them kept: the collector would walk millions in vain, a quarter of the
    time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _search(model: Model) -> Found:
    start = model.start()
    found, todo = Found(came_by={start: None}), deque([start])
    while todo:
        world = todo.popleft()
        for event in model.events(world):
            after = model.after(world, event)
            if after not in found.came_by:
                found.came_by[after] = (world, event)
                todo.append(after)
            found.came_from.setdefault(after, []).append(world)
            if after.violation:
                found.violation = after
                return found
    return found
