"""Which versions are loaded, who takes traffic, and who may change that.

Readers take `versions.serving` once per request: one immutable object, replaced whole. Writers are serialised by a lock
and fenced by the epoch, which is stored before it counts.
"""

import dataclasses
import itertools
import logging
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np

from clearway.contracts.errors import ClearwayError, ConfigError, StaleWriter
from clearway.infra.endpoint import DeadMan
from clearway.packaging.package import MAX_GOLDEN_ROWS, Package
from clearway.packaging.runtime import Scorer
from clearway.serve.local_copy import LocalCopy, SavedState
from clearway.serve.traffic import ALL_PCT, Traffic

log = logging.getLogger("clearway.serve")

# Matrix kernels work in blocks of 1 to 12 rows; where they add up in another order, these sizes show it.
COMPANY_SIZES = (1, 2, 3, 5, 7, 11, 13, 17)


@dataclass(frozen=True, slots=True)
class Loaded:
    """A version in memory, warm. `is_row_wise`: a row's score is the same to the bit whatever rows are beside it."""

    digest: str
    uri: str
    package: Package
    scorer: Scorer
    is_row_wise: bool

    def score(self, rows: Sequence[dict[str, Any]]) -> list[float]:
        """One score per row. Raises: RowError for a row, DataError if the model has no finite answer."""
        return self.scorer.score_rows(rows).tolist()  # type: ignore[no-any-return]


@dataclass(frozen=True, slots=True)
class Serving:
    """One consistent state: digest → loaded version, the traffic table over them, the newest epoch seen, and who takes
    over if the controller of that epoch falls silent."""

    loaded: Mapping[str, Loaded]
    traffic: Traffic
    epoch: int
    dead_man: DeadMan | None = None


class Versions:
    """The server's versions; every change is stored on disk first, then shown to requests."""

    def __init__(self, copy: LocalCopy) -> None:
        self._copy, self._lock = copy, threading.Lock()
        self._heard_s = time.monotonic()
        self.serving = Serving(loaded=MappingProxyType({}), traffic=Traffic({}), epoch=0)

    def restore(self) -> None:
        """Load the last good state, from disk only.

        A version that no longer verifies is left out and reported; if it took traffic, nothing does until the
        reconciler or a person decides: another model is never put in its place.
        """
        saved = self._copy.read()
        loaded: dict[str, Loaded] = {}
        for digest, uri in saved.loaded.items():
            try:
                loaded[digest] = _warm(uri, self._copy.open(digest))
            except ClearwayError:
                log.exception("local copy of a version does not verify", extra={"model_digest": digest})
        is_whole = set(saved.weights_pct) <= set(loaded)
        traffic = Traffic(saved.weights_pct if is_whole else {})
        self._heard_s = time.monotonic()  # a restarted server gives the controller its whole time again
        dead_man = saved.dead_man if is_whole else None
        self.serving = Serving(loaded=MappingProxyType(loaded), traffic=traffic, epoch=saved.epoch, dead_man=dead_man)

    def load(self, uri: str, digest: str, *, epoch: int) -> None:
        """Verify, copy and warm up beside the others. Raises: StaleWriter, IntegrityError, ConfigError."""
        with self._lock:
            self._fence(epoch)
            if digest in self.serving.loaded:
                return
        version = _warm(uri, self._copy.fetch(uri, digest))  # slow, so outside the lock
        with self._lock:
            self._fence(epoch)
            self._store(loaded={**self.serving.loaded, digest: version})

    def unload(self, digest: str, *, epoch: int) -> None:
        """Raises: StaleWriter; ConfigError if it takes traffic."""
        with self._lock:
            self._fence(epoch)
            if digest in self.serving.traffic.weights_pct:
                raise ConfigError(f"version {digest} is in the traffic table; move the traffic before unloading it")
            if digest in self.serving.loaded:
                self._store(loaded={d: v for d, v in self.serving.loaded.items() if d != digest})
                self._copy.drop(digest)

    def set_weights(self, weights_pct: Mapping[str, float], *, epoch: int, dead_man: DeadMan | None = None) -> None:
        """Raises: StaleWriter; ConfigError for a bad table or a version that is not loaded. Nothing changes then."""
        traffic = Traffic(weights_pct)
        named = {*weights_pct, *([dead_man.stable] if dead_man else [])}
        with self._lock:
            self._fence(epoch)
            missing = sorted(named - set(self.serving.loaded))
            if missing:
                loaded = sorted(self.serving.loaded)
                raise ConfigError(f"version {missing[0][:80]!r} is not loaded; loaded: {loaded}; load it first")
            self._heard_s = time.monotonic()
            if (traffic.weights_pct, dead_man) != (self.serving.traffic.weights_pct, self.serving.dead_man):
                self._store(traffic=traffic, dead_man=dead_man)

    def hear(self, *, epoch: int) -> None:
        """The controller lives. Raises: StaleWriter."""
        with self._lock:
            self._fence(epoch)
            self._heard_s = time.monotonic()

    def is_dead_man_due(self) -> bool:
        """Whether the controller has been silent too long."""
        armed = self.serving.dead_man
        return armed is not None and time.monotonic() - self._heard_s >= armed.after_s

    def obey_dead_man(self) -> None:
        """Give the traffic to the stable version, if that is due."""
        with self._lock:
            armed = self.serving.dead_man
            if armed is None or not self.is_dead_man_due():
                return
            extra = {"model_digest": armed.stable, "after_s": armed.after_s, "epoch": self.serving.epoch}
            log.error("controller is silent, traffic goes back", extra=extra)
            self._store(traffic=Traffic({armed.stable: ALL_PCT}), dead_man=None)

    def _fence(self, epoch: int) -> None:
        if epoch < self.serving.epoch:
            raise StaleWriter(f"epoch {epoch} is stale, this server has seen {self.serving.epoch}; another took over")
        if epoch > self.serving.epoch:
            self._store(epoch=epoch)

    def _store(self, **changes: Any) -> None:
        if "loaded" in changes:
            changes["loaded"] = MappingProxyType(changes["loaded"])
        after = dataclasses.replace(self.serving, **changes)
        loaded = {digest: version.uri for digest, version in after.loaded.items()}
        self._copy.save(
            SavedState(loaded=loaded, weights_pct=after.traffic.weights_pct, epoch=after.epoch, dead_man=after.dead_man)
        )
        self.serving = after


def _warm(uri: str, package: Package) -> Loaded:
    """Make the session and use it for one row and for many, so that no caller pays for first-use allocations."""
    scorer = Scorer(package, num_threads=1)
    is_row_wise = _is_row_wise(scorer, package.golden["rows"])
    return Loaded(digest=package.digest, uri=uri, package=package, scorer=scorer, is_row_wise=is_row_wise)


def _is_row_wise(scorer: Scorer, rows: list[dict[str, Any]]) -> bool:
    """Score golden rows in companies of many sizes; one row cannot show whether others matter."""
    if len(rows) == 1:
        scorer.score_rows(rows)
        return False
    rows = list(itertools.islice(itertools.cycle(rows), MAX_GOLDEN_ROWS))
    together = scorer.score_rows(rows)
    for size in COMPANY_SIZES:
        parts = [scorer.score_rows(rows[i : i + size]) for i in range(0, len(rows), size)]
        if not np.array_equal(np.concatenate(parts), together):
            return False
    return True
