"""What a person orders a rollout under way to do. Written without the lease: the driver reads it at its next look."""

import logging

from clearway.contracts import release_document as documents
from clearway.contracts.errors import CompareAndSwapFailed
from clearway.contracts.release_document import ReleaseDocument
from clearway.contracts.rollout import Order
from clearway.infra.release_store import ReleaseStore

log = logging.getLogger("clearway.deploy")

# The driver writes once per look, so a second attempt nearly always finds a free moment.
MAX_ATTEMPTS = 10


def give_order(store: ReleaseStore, product: str, order: Order, *, release_id: str | None = None) -> ReleaseDocument:
    """Store the order; returns the document that holds it.

    Raises: StaleWriter if no rollout is under way (or not the one of `release_id`), CompareAndSwapFailed if the
        document changed under every attempt.
    """
    for attempt in range(MAX_ATTEMPTS):
        document, version = store.read(product)
        ordered = documents.give_order(document, order, release_id=release_id)
        try:
            store.swap(ordered, expected_version=version)
        except CompareAndSwapFailed:
            if attempt == MAX_ATTEMPTS - 1:
                raise
            continue
        log.warning("%s ordered by %s: %s", order.kind.value, order.by, order.reason)
        return ordered
    raise AssertionError("unreachable: the last attempt returns or raises")
