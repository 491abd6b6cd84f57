"""What waits for the devices of one class, and what runs on them: small records that every task can read.

    <store>/_devices/<class>/
        asks/<id>/ask.json          waits
        held/<id>/held.json         runs
        yields/<job id>.json        was asked to make room: for whom, when, at which priorities; created once, kept
        usage/<day>/<job id>.json   see ledger.py
        overrides/<product>/…       see override.py

No product can be called `_devices`.
"""

import json
from dataclasses import dataclass
from typing import TypeVar

from clearway.contracts.codec import from_jsonable, to_jsonable
from clearway.contracts.manifest import canonical_json
from clearway.devices.sharing import Ask, Held
from clearway.infra.storage import Storage, join

T = TypeVar("T")
ASK, HELD = "ask.json", "held.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Yield:
    """The audit line of a preemption."""

    job_id: str
    ask_id: str
    priority: float
    for_ask: str
    for_priority: float
    at_s: float


def folder_of(root: str, device: str) -> str:
    """Where a device class keeps its records."""
    return join(root, "_devices", device)


class Board:
    """The records of one device class."""

    def __init__(self, storage: Storage, folder: str) -> None:
        self._storage, self._folder = storage, folder

    def ask(self, ask: Ask) -> None:
        """Wait; asking again replaces."""
        self._storage.write(join(self._folder, "asks", ask.id, ASK), canonical_json(to_jsonable(ask)))

    def withdraw(self, ask_id: str) -> None:
        """Wait no longer."""
        self._storage.delete_tree(join(self._folder, "asks", ask_id))

    def hold(self, held: Held) -> None:
        """Run instead of waiting."""
        self._storage.write(join(self._folder, "held", held.ask.id, HELD), canonical_json(to_jsonable(held)))
        self.withdraw(held.ask.id)

    def leave(self, ask_id: str) -> None:
        """Run no longer."""
        self._storage.delete_tree(join(self._folder, "held", ask_id))

    def order(self, yielding: Yield) -> bool:
        """Ask a job to make room; False if it was asked before."""
        address = join(self._folder, "yields", f"{yielding.job_id}.json")
        return self._storage.create(address, canonical_json(to_jsonable(yielding)))

    def asks(self) -> list[Ask]:
        """What waits."""
        return self._read(Ask, "asks", ASK)

    def held(self) -> list[Held]:
        """What runs."""
        return self._read(Held, "held", HELD)

    def yields(self) -> list[Yield]:
        """Every order to make room there ever was."""
        return self._read(Yield, "yields", ".json")

    def is_ordered(self, job_id: str) -> bool:
        """Whether a job was asked to make room."""
        return self._storage.exists(join(self._folder, "yields", f"{job_id}.json"))

    def _read(self, kind: type[T], folder: str, ending: str) -> list[T]:
        found: list[T] = []
        for address in self._storage.list(join(self._folder, folder)):
            if address.endswith(ending):
                try:
                    found.append(from_jsonable(kind, json.loads(self._storage.read(address))))
                except FileNotFoundError:
                    continue  # taken down since it was listed
        return found
