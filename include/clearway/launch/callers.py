"""Stand-ins for the callers a product has in production: requests for the model server while a canary needs them.

A canary is judged by live answers, and on one machine nobody else asks. They are callers like any other: one real row
of the champion's golden rows each, a sticky key of their own, no join key, so the weekly log stays as it is.
"""

import http.client
import itertools
import logging
from collections.abc import Iterator, Sequence
from time import monotonic, sleep
from urllib.parse import urlsplit

import msgspec

from clearway.contracts import release_document as documents
from clearway.contracts.errors import ClearwayError
from clearway.contracts.release_document import ReleaseDocument
from clearway.infra.endpoint import Endpoint
from clearway.infra.release_store import ReleaseStore

logger = logging.getLogger("clearway.launch")

# Enough for a verdict within seconds, and about a tenth of one core on both sides together.
REQUESTS_PER_S = 300
IDLE_S = 0.5
BURST_S = 1.0
TIMEOUT_S = 5.0


def are_wanted(document: ReleaseDocument) -> bool:
    """Whether a canary waits for evidence."""
    return documents.is_gathering(document)


def ask_all(callers: "Sequence[Callers]", *, should_stop: Iterator[bool]) -> int:
    """Until `should_stop` says so; returns how many requests were answered."""
    num_answered = 0
    while not next(should_stop):
        num_now = sum(one.turn() for one in callers)
        num_answered += num_now
        if not num_now:
            sleep(IDLE_S)
    return num_answered


class Callers:
    """Watches one product's release document and asks its model server.

    Args:
        url: base URL of the model server.
    """

    def __init__(self, store: ReleaseStore, endpoint: Endpoint, *, url: str, product: str) -> None:
        self._store, self._endpoint, self._product = store, endpoint, product
        self._parts = urlsplit(url)
        self._numbers = itertools.count()

    def turn(self) -> int:
        """A burst of requests if they are wanted; how many were answered."""
        try:
            document, _ = self._store.read(self._product)
            if are_wanted(document) and document.champion:
                return self._burst(self._bodies(document.champion.digest))
        except (ClearwayError, OSError, http.client.HTTPException) as error:
            logger.info("callers wait: %s", error)
        return 0

    def _bodies(self, digest: str) -> list[bytes]:
        return [msgspec.json.encode({"instances": [row]}) for row in self._endpoint.examples(digest)]

    def _burst(self, bodies: list[bytes]) -> int:
        connection = http.client.HTTPConnection(str(self._parts.hostname), self._parts.port, timeout=TIMEOUT_S)
        begin_s, num_answered = monotonic(), 0
        try:
            for number in range(int(REQUESTS_PER_S * BURST_S)):
                sleep(max(0.0, begin_s + number / REQUESTS_PER_S - monotonic()))
                caller = next(self._numbers)
                headers = {"content-type": "application/json", "x-clearway-sticky-key": f"caller-{caller}"}
                connection.request("POST", "/invocations", body=bodies[caller % len(bodies)], headers=headers)
                with connection.getresponse() as answer:
                    answer.read()
                num_answered += 1
        finally:
            connection.close()
        return num_answered
