"""What we know of an endpoint and SageMaker does not: who may change it, and which version lies in which variant.

    <store>/endpoints/<name>/control/000012/00001234.json   numbered; each is created once and never changed

The newest is what holds. Creating the next number is the compare-and-swap: of two writers exactly one gets it.
"""

import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum

from clearway.contracts.codec import from_jsonable, to_jsonable
from clearway.contracts.errors import StaleWriter, Unavailable
from clearway.contracts.manifest import canonical_json
from clearway.infra.endpoint import DeadMan
from clearway.infra.storage import Storage, join

PER_FOLDER = 100
MAX_TRIES = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """A version that was loaded, or is to be.

    Args:
        variant: name of the production variant it has for itself.
        since_s: what the variant did before belongs to another version.
        is_served: the endpoint was seen to serve it; if it does not any more, the endpoint took it back by itself.
    """

    uri: str
    variant: str
    since_s: float
    is_served: bool = False


class Giving(StrEnum):
    """How far copies of requests have come: `TAKEN_BACK` by SageMaker as soon as they were to begin."""

    ORDERED = "ordered"
    GIVEN = "given"
    TAKEN_BACK = "taken_back"
    ENDING = "ending"
    ENDED = "ended"


@dataclass(frozen=True, slots=True, kw_only=True)
class Copies:
    """One version's copies of the requests that another one answers.

    Args:
        digest, variant: who is given them, and its shadow variant.
        control, control_variant: who answers callers, and its production variant.
        columns: whose values name the slices of rows.
        since_s: when they were first given; 0 before.
        failed: why they were taken back.
    """

    digest: str
    variant: str
    control: str
    control_variant: str
    columns: tuple[str, ...] = ()
    giving: Giving = Giving.ORDERED
    since_s: float = 0.0
    failed: str = ""

    @property
    def is_on(self) -> bool:
        """Whether they are to be given."""
        return self.giving in {Giving.ORDERED, Giving.GIVEN}

    @property
    def log_id(self) -> str:
        """Names the log of their rows; each beginning has one of its own."""
        return f"{self.digest[:12]}-{self.since_s:.0f}" if self.since_s else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Control:
    """One state.

    `weights_pct`: as last asked for; `armed_s`: when the dead-man timer was armed; `copies`: the newest, also when they
    have ended.
    """

    epoch: int = 0
    held: dict[str, Held] = field(default_factory=dict)
    weights_pct: dict[str, float] = field(default_factory=dict)
    dead_man: DeadMan | None = None
    armed_s: float = 0.0
    copies: Copies | None = None


class ControlLog:
    """The states of one endpoint below `root`."""

    def __init__(self, storage: Storage, root: str) -> None:
        self._storage, self._root = storage, root
        self._last = ("", Control())  # address and state that was read last: states never change

    def read(self) -> Control:
        """The newest state. Raises: Unavailable."""
        return self._newest()[0]

    def change(self, epoch: int, edit: Callable[[Control], Control]) -> Control:
        """Store what `edit` makes of the newest state, under this epoch.

        Raises: StaleWriter; what `edit` raises, with nothing stored; Unavailable.
        """
        for _ in range(MAX_TRIES):
            before, number = self._newest()
            if epoch < before.epoch:
                raise StaleWriter(f"epoch {epoch} is stale, this endpoint has seen {before.epoch}; another took over")
            after = edit(dataclasses.replace(before, epoch=epoch))
            if after == before:
                return before
            if self._storage.create(self._address(number + 1), canonical_json(to_jsonable(after))):
                self._forget(number + 1)
                return after
        raise Unavailable(f"{self._root} is changed by others all the time ({MAX_TRIES} tries); try again")

    def hear(self, epoch: int, *, at_s: float) -> None:
        """The controller of this epoch lives."""
        self._storage.write(join(self._root, "heard.json"), json.dumps({"epoch": epoch, "at_s": at_s}).encode())

    def last_heard_s(self, control: Control) -> float:
        """When the controller of this epoch last gave a sign of life."""
        try:
            heard = json.loads(self._storage.read(join(self._root, "heard.json")))
        except FileNotFoundError:
            return control.armed_s
        return max(control.armed_s, float(heard["at_s"]) if heard["epoch"] == control.epoch else 0.0)

    def _newest(self) -> tuple[Control, int]:
        for _ in range(MAX_TRIES):
            found = self._storage.list(join(self._root, "control"))
            if not found:
                return Control(), 0
            address = found[-1]
            if address != self._last[0]:
                try:
                    data = self._storage.read(address)
                except FileNotFoundError:  # forgotten while we looked
                    continue
                self._last = address, from_jsonable(Control, json.loads(data))
            return self._last[1], int(address.rpartition("/")[2].partition(".")[0])
        raise Unavailable(f"{self._root} is changed by others all the time ({MAX_TRIES} tries); try again")

    def _address(self, number: int) -> str:
        return join(self._root, "control", f"{number // PER_FOLDER:06d}", f"{number:08d}.json")

    def _forget(self, number: int) -> None:
        """Old states are of no use; a folder of them goes when a new one begins."""
        if number % PER_FOLDER == 0 and number >= 2 * PER_FOLDER:
            self._storage.delete_tree(join(self._root, "control", f"{number // PER_FOLDER - 2:06d}"))
