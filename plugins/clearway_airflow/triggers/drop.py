"""Start a release when a request file appears: `<home>/drop/<product>/<any name>.json`, or below `drop` in the bucket;
or when a queue is told to (wishes.py), whose messages become such files.

The file may say {"as_of": "2013-05-06", "reason": "…", "override": "cooldown, budget"}; an empty object asks for a
release on the newest landed data. The run that it starts asks the product's policy first (clearway.monitor.asked).
Every file acts once: its name and content make the evidence digest, which a release claims before it starts, and a mark
below `taken/` keeps the watcher from announcing it again. A crash in between announces twice and releases once.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

from airflow.triggers.base import BaseEventTrigger, TriggerEvent

# Files are dropped by people and nightly exports; a few seconds are soon enough and cost one listing each.
POLL_S = 2.0
# A queue is asked every fifth time: a call costs money, and its messages are no hurry.
LOOKS_PER_QUEUE = 5


class DropTrigger(BaseEventTrigger):
    """Watches one product's drop folder.

    Args:
        poll_s: seconds between two listings.
    """

    def __init__(self, *, product: str, poll_s: float = POLL_S) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.product = product
        self.poll_s = poll_s

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Class path and arguments, for the triggerer."""
        return f"{type(self).__module__}.{type(self).__name__}", {"product": self.product, "poll_s": self.poll_s}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """One event per request file, for ever."""
        looks = 0
        while True:
            if looks % LOOKS_PER_QUEUE == 0:
                await asyncio.to_thread(self._take)
            looks += 1
            for request in await asyncio.to_thread(self._look):
                yield TriggerEvent(request)  # type: ignore[no-untyped-call]
                await asyncio.to_thread(mark_taken, self.product, request)
            await asyncio.sleep(self.poll_s)

    def _take(self) -> None:
        """Messages that cannot be taken now wait in their queue: a watcher that failed would never look again."""
        from clearway.contracts.errors import ClearwayError  # noqa: PLC0415
        from clearway_airflow.triggers.wishes import take_messages  # noqa: PLC0415

        try:
            take_messages()
        except ClearwayError as error:
            self.log.warning("queue of wishes: %s", error)

    def _look(self) -> list[dict[str, Any]]:
        """None while the store does not answer: a watcher that failed would never look again."""
        from clearway.contracts.errors import Unavailable  # noqa: PLC0415

        try:
            return new_requests(self.product)
        except Unavailable as error:
            self.log.warning("drop folder of %s: %s", self.product, error)
            return []


def new_requests(product: str) -> list[dict[str, Any]]:
    """Requests without a mark, by name. A file that is no JSON object asks for a release on the newest data."""
    from clearway.contracts.manifest import sha256_of  # noqa: PLC0415 - the DAG file imports this module
    from clearway.infra.storage import join  # noqa: PLC0415
    from clearway.reconcile import TAKEN  # noqa: PLC0415

    storage, folder = _drop(product)
    found = []
    for uri in storage.list(folder):
        name = uri.removeprefix(f"{folder}/")
        if "/" in name or not name.endswith(".json"):
            continue
        data = storage.read(uri)
        digest = sha256_of(name.encode() + b"\0" + data)
        if not storage.exists(join(folder, TAKEN, f"{digest}.json")):
            found.append({"evidence_digest": digest, "as_of": "", "reason": f"request file {name}", **_asked(data)})
    return found


def mark_taken(product: str, request: dict[str, Any]) -> None:
    """Remember that a request was announced."""
    from clearway.infra.storage import join  # noqa: PLC0415
    from clearway.reconcile import TAKEN  # noqa: PLC0415

    storage, folder = _drop(product)
    storage.create(join(folder, TAKEN, f"{request['evidence_digest']}.json"), json.dumps(request).encode())


def _asked(data: bytes) -> dict[str, str]:
    try:
        raw = json.loads(data or b"{}")
    except ValueError:
        return {}
    asked = raw if isinstance(raw, dict) else {}
    return {key: asked[key] for key in ("as_of", "reason", "override") if isinstance(asked.get(key), str)}


def _drop(product: str) -> Any:
    from clearway.infra.environment import Environment  # noqa: PLC0415
    from clearway.infra.storage import open_storage  # noqa: PLC0415
    from clearway.reconcile import drop_folder  # noqa: PLC0415

    root = drop_folder(Environment.load(), product)
    return open_storage(root), root
