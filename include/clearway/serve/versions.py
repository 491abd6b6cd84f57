"""Which versions are loaded, who takes traffic, and who may change that.

Readers take `versions.serving` once per request: one immutable object, replaced whole. Writers are serialised by a lock
and fenced by the epoch, which is stored before it counts.

The version that answers for all others, and every version that ever did, lives in this process: the way back is one
assignment. Every other version lives in a child process, even with all the traffic while a dead-man timer names who
answers for it.
"""

import dataclasses
import logging
import threading
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from clearway.contracts.errors import ClearwayError, ConfigError, StaleWriter
from clearway.infra.endpoint import DeadMan, Mirror
from clearway.packaging.package import Package
from clearway.serve.children import Child, Nursery
from clearway.serve.loaded import Loaded, warm
from clearway.serve.local_copy import LocalCopy, SavedState
from clearway.serve.traffic import ALL_PCT, Traffic

log = logging.getLogger("clearway.serve")

Version = Loaded | Child
RETRY_S = 0.5  # between two attempts to store that a candidate is broken, when the disk refuses


@dataclass(frozen=True, slots=True)
class Serving:
    """One consistent state.

    Args:
        loaded: digest → loaded version.
        epoch: newest epoch seen.
        dead_man: who takes over if the controller of that epoch falls silent.
        stable: digest of the version in this process that answers when another one that was chosen does not, whatever
            its share; "" for none.
        mirror: who is given copies of requests.
        broken: digest → why this server took it out of service.
    """

    loaded: Mapping[str, Version]
    traffic: Traffic
    epoch: int
    dead_man: DeadMan | None = None
    stable: str = ""
    mirror: Mirror | None = None
    broken: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))


class Versions:
    """The server's versions; every change is stored on disk first, then shown to requests.

    Args:
        nursery: starts candidates in processes of their own; None keeps all in this one, for tools and tests.
        steady_s: seconds of a clock that never goes back, by which a silent controller is known.
    """

    def __init__(
        self, copy: LocalCopy, *, nursery: Nursery | None = None, steady_s: Callable[[], float] = time.monotonic
    ) -> None:
        self._copy, self._nursery, self._lock = copy, nursery, threading.Lock()
        self.steady_s = steady_s
        self._heard_s, self._is_closed = steady_s(), False
        self.serving = Serving(loaded=MappingProxyType({}), traffic=Traffic({}), epoch=0)

    def restore(self) -> None:
        """Load the last good state, from disk only.

        A version that no longer verifies is left out and reported. If it was to answer for all others, nothing takes
        traffic until the reconciler or a person decides: another model is never put in its place. A candidate that
        does not start is broken, and its share goes to the version that answers for it. A way back without a share
        that is lost takes no traffic from those that have it.
        """
        saved = self._copy.read()
        loaded, stable, broken = self._restored(saved)
        missing = set(saved.weights_pct) - set(loaded)
        weights = dict(saved.weights_pct) if not missing else _without(saved.weights_pct, missing, stable)
        if stable not in loaded:
            weights = {}
        armed = saved.dead_man
        dead_man = armed if armed and armed.stable in loaded and weights == dict(saved.weights_pct) else None
        mirror = saved.mirror if saved.mirror and saved.mirror.digest in loaded and weights else None
        self._heard_s = self.steady_s()  # a restarted server gives the controller its whole time again
        self.serving = Serving(
            loaded=MappingProxyType(loaded),
            traffic=Traffic(weights),
            epoch=saved.epoch,
            dead_man=dead_man,
            stable=stable if weights else "",
            mirror=mirror,
            broken=MappingProxyType(broken),
        )
        self._watch(loaded.values())

    def _restored(self, saved: SavedState) -> tuple[dict[str, Version], str, dict[str, str]]:
        """What could be loaded, who is the stable version, and why others are broken."""
        packages, loaded, lost = dict[str, Package](), dict[str, Version](), dict[str, str]()

        def report(digest: str, error: ClearwayError) -> None:
            log.error("local copy of a version cannot be served", extra={"model_digest": digest}, exc_info=error)
            lost[digest] = str(error)

        for digest in saved.loaded:
            try:
                packages[digest] = self._copy.open(digest)
            except ClearwayError as error:
                report(digest, error)
        armed = saved.dead_man if saved.dead_man and saved.dead_man.stable in packages else None
        stable = _stable_of(Traffic(saved.weights_pct), armed, saved.in_process)
        at_home = {stable, *saved.in_process}
        for digest, package in packages.items():
            uri = saved.loaded[digest]
            try:
                loaded[digest] = warm(uri, package) if digest in at_home else self._started(uri, package)
            except ClearwayError as error:
                report(digest, error)
        return loaded, stable, {**saved.broken, **{d: why for d, why in lost.items() if d not in at_home}}

    def load(self, uri: str, digest: str, *, epoch: int) -> None:
        """Verify, copy and warm up beside the others. Raises: StaleWriter, IntegrityError, ConfigError."""
        with self._lock:
            self._fence(epoch)
            if digest in self.serving.loaded:
                return
        version = self._started(uri, self._copy.fetch(uri, digest))  # slow, so outside the lock
        try:
            with self._lock:
                self._fence(epoch)
                if digest in self.serving.loaded:  # somebody loaded it meanwhile
                    self._discard(version)
                    return
                broken = {d: reason for d, reason in self.serving.broken.items() if d != digest}
                self._store(loaded={**self.serving.loaded, digest: version}, broken=broken)
        except BaseException:
            self._discard(version)
            raise
        self._watch([version])

    def unload(self, digest: str, *, epoch: int) -> None:
        """Raises: StaleWriter; ConfigError if it takes traffic, or copies of it."""
        with self._lock:
            self._fence(epoch)
            serving = self.serving
            if digest in serving.traffic.weights_pct:
                raise ConfigError(f"version {digest} is in the traffic table; move the traffic before unloading it")
            if serving.mirror and serving.mirror.digest == digest:
                raise ConfigError(f"version {digest} is given copies of requests; end that before unloading it")
            version = serving.loaded.get(digest)
            if version is not None or digest in serving.broken:
                broken = {d: reason for d, reason in serving.broken.items() if d != digest}
                self._store(loaded={d: v for d, v in serving.loaded.items() if d != digest}, broken=broken)
                self._copy.drop(digest)
        _end(version)

    def set_weights(
        self,
        weights_pct: Mapping[str, float],
        *,
        epoch: int,
        dead_man: DeadMan | None = None,
        mirror: Mirror | None = None,
    ) -> None:
        """Raises: StaleWriter; ConfigError for a bad table or a version that is not loaded. Nothing changes then."""
        traffic = Traffic(weights_pct)
        named = {*weights_pct, *([dead_man.stable] if dead_man else []), *([mirror.digest] if mirror else [])}
        with self._lock:
            self._fence(epoch)
            self._check_loaded(named)
            stable, moving = self._moving(traffic, dead_man)
            if mirror and mirror.digest == stable:
                raise ConfigError(f"version {stable} answers callers itself; mirror to another version, or to none")
        moved = {v.digest: warm(v.uri, self._copy.fetch(v.uri, v.digest)) for v in moving}  # slow, outside the lock
        with self._lock:
            self._fence(epoch)
            self._check_loaded(named)
            self._heard_s = self.steady_s()
            before = self.serving
            wanted = (traffic.weights_pct, dead_man, mirror, stable)
            if moved or wanted != (before.traffic.weights_pct, before.dead_man, before.mirror, before.stable):
                loaded = {**before.loaded, **moved}
                self._store(loaded=loaded, traffic=traffic, dead_man=dead_man, mirror=mirror, stable=stable)
        for version in moving:
            _end(version)

    def hear(self, *, epoch: int) -> None:
        """The controller lives. Raises: StaleWriter."""
        with self._lock:
            self._fence(epoch)
            self._heard_s = self.steady_s()

    def is_dead_man_due(self) -> bool:
        """Whether the controller has been silent too long."""
        armed = self.serving.dead_man
        return armed is not None and self.steady_s() - self._heard_s >= armed.after_s

    def obey_dead_man(self) -> None:
        """Give the traffic to the stable version, if that is due."""
        with self._lock:
            armed = self.serving.dead_man
            if armed is None or not self.is_dead_man_due():
                return
            extra = {"model_digest": armed.stable, "after_s": armed.after_s, "epoch": self.serving.epoch}
            log.error("controller is silent, traffic goes back", extra=extra)
            traffic = Traffic({armed.stable: ALL_PCT})
            self._store(traffic=traffic, dead_man=None, mirror=None, stable=armed.stable)

    def close(self) -> None:
        """End all children; what is stored stays."""
        with self._lock:
            self._is_closed = True
        for version in self.serving.loaded.values():
            _end(version)
        if self._nursery:
            self._nursery.close()

    def _started(self, uri: str, package: Package) -> Version:
        return self._nursery.start(uri, package) if self._nursery else warm(uri, package)

    def _watch(self, versions: Collection[Version]) -> None:
        for version in versions:
            if isinstance(version, Child):
                version.watch(self._on_death)

    def _discard(self, version: Version) -> None:
        self._watch([version])
        _end(version)

    def _on_death(self, child: Child, reason: str) -> None:
        """In the thread that waited for it. Until this is stored, its callers are answered one by one by the stable."""
        while not self._is_closed:
            try:
                self._break(child, reason)
            except OSError:
                log.exception("a broken version could not be taken out of service, it is tried again")
                time.sleep(RETRY_S)
            else:
                return

    def _break(self, child: Child, reason: str) -> None:
        with self._lock:
            serving, digest = self.serving, child.digest
            if self._is_closed or serving.loaded.get(digest) is not child:
                return
            log.error("a version is out of service", extra={"model_digest": digest, "reason": reason})
            weights = _without(serving.traffic.weights_pct, {digest}, serving.stable)
            self._store(
                loaded={d: v for d, v in serving.loaded.items() if d != digest},
                broken={**serving.broken, digest: reason},
                traffic=Traffic(weights),
                mirror=None if serving.mirror and serving.mirror.digest == digest else serving.mirror,
            )

    def _moving(self, traffic: Traffic, dead_man: DeadMan | None) -> tuple[str, list[Child]]:
        """Who is the stable version of a table, and which children must move into this process for it."""
        loaded = self.serving.loaded
        stable = _stable_of(traffic, dead_man, [d for d, v in loaded.items() if isinstance(v, Loaded)])
        return stable, [v for d, v in loaded.items() if d == stable and isinstance(v, Child)]

    def _check_loaded(self, named: Collection[str]) -> None:
        for digest in sorted(set(named) - set(self.serving.loaded)):
            loaded = sorted(self.serving.loaded)
            why = f" ({self.serving.broken[digest]})" if digest in self.serving.broken else ""
            raise ConfigError(f"version {digest[:80]!r} is not loaded{why}; loaded: {loaded}; load it first")

    def _fence(self, epoch: int) -> None:
        if epoch < self.serving.epoch:
            raise StaleWriter(f"epoch {epoch} is stale, this server has seen {self.serving.epoch}; another took over")
        if epoch > self.serving.epoch:
            self._store(epoch=epoch)

    def _store(self, **changes: Any) -> None:
        for name in ("loaded", "broken"):
            if name in changes:
                changes[name] = MappingProxyType(changes[name])
        after = dataclasses.replace(self.serving, **changes)
        self._copy.save(
            SavedState(
                loaded={digest: version.uri for digest, version in after.loaded.items()},
                in_process=tuple(d for d, v in after.loaded.items() if isinstance(v, Loaded)),
                weights_pct=after.traffic.weights_pct,
                epoch=after.epoch,
                dead_man=after.dead_man,
                mirror=after.mirror,
                broken=dict(after.broken),
            )
        )
        self.serving = after


def _end(version: Version | None) -> None:
    if isinstance(version, Child):
        version.end()


def _stable_of(traffic: Traffic, dead_man: DeadMan | None, in_process: Collection[str]) -> str:
    """Who answers when another version does not: whom the controller named for that, else who is here and has most."""
    if dead_man:
        return dead_man.stable
    takers = {digest: weight for digest, weight in traffic.weights_pct.items() if weight > 0}
    here = {digest: weight for digest, weight in takers.items() if digest in in_process} or takers
    return max(reversed(here), key=lambda digest: here[digest], default="")


def _without(weights_pct: Mapping[str, float], gone: Collection[str], stable: str) -> dict[str, float]:
    """The table without some versions, their shares given to the stable one."""
    rest = {digest: weight for digest, weight in weights_pct.items() if digest not in gone}
    freed = sum(weight for digest, weight in weights_pct.items() if digest in gone)
    if freed and stable:
        rest[stable] = rest.get(stable, 0.0) + freed
    return rest
