"""How every release and order ended, kept for good: the document itself remembers the newest only.

One small file per ending, named by time, so that a listing of names is enough to turn pages.
"""

import json
import logging
from collections.abc import Iterable

from clearway.contracts import release_document as documents
from clearway.contracts.codec import from_jsonable, to_jsonable
from clearway.contracts.errors import ClearwayError
from clearway.contracts.release_document import HistoryEntry, ReleaseDocument
from clearway.contracts.rollout import Rollout
from clearway.infra.layout import Layout
from clearway.infra.storage import Storage

log = logging.getLogger("clearway.deploy")
SUFFIX = ".json"


def keep_history(storage: Storage, layout: Layout, document: ReleaseDocument) -> None:
    """Write the endings that the document names and nobody has kept yet.

    Best effort: what is missed now is kept after the next release or by the reconciler, long before it is forgotten.
    """
    try:
        for entry in document.history:
            uri = layout.history(name_of(entry))
            if not storage.exists(uri):
                storage.write(uri, json.dumps(to_jsonable(entry), sort_keys=True).encode())
    except (ClearwayError, OSError) as error:
        log.warning("endings of earlier releases are not kept yet: %s", error)


def name_of(entry: HistoryEntry) -> str:
    """Its file: milliseconds, so that names sort by time, and the release or order."""
    return f"{round(entry.at_s * 1e3):015d}-{entry.release_id}{SUFFIX}"


def release_of(name: str) -> str:
    """The release or order that a file name speaks of."""
    return name.partition("-")[2].removesuffix(SUFFIX)


def past_names(storage: Storage, layout: Layout, document: ReleaseDocument) -> list[str]:
    """Names of all endings, newest first: those kept, and those that only the document knows so far."""
    kept = (uri.rpartition("/")[2] for uri in storage.list(layout.history("")))
    return sorted({*kept, *map(name_of, document.history)}, reverse=True)


def read_endings(
    storage: Storage, layout: Layout, document: ReleaseDocument, names: Iterable[str]
) -> list[HistoryEntry]:
    """The endings of these names. Raises: FileNotFoundError, ValueError for one that another version wrote."""
    known = {name_of(entry): entry for entry in document.history}
    return [known.get(name) or _read(storage, layout.history(name)) for name in names]


def outcome_of(storage: Storage, layout: Layout, document: ReleaseDocument, release_id: str) -> HistoryEntry | None:
    """How a release ended, however long ago: run again, it must find that and not begin anew."""
    entry = documents.outcome_of(document, release_id)
    if entry or len(document.history) < documents.MAX_HISTORY:  # then the document has forgotten nothing
        return entry
    names = (uri.rpartition("/")[2] for uri in storage.list(layout.history("")))
    newest = max((name for name in names if release_of(name) == release_id), default=None)
    return _read(storage, layout.history(newest)) if newest else None


def read_rollout(storage: Storage, layout: Layout, release_id: str) -> Rollout | None:
    """Plan, looks and evidence a release ended with; None if it gathered none, or ended before records were kept.

    Raises: ValueError for a record that another version wrote.
    """
    try:
        record = json.loads(storage.read(layout.rollout_record(release_id)))
    except FileNotFoundError:
        return None
    return from_jsonable(Rollout, record["rollout"])


def _read(storage: Storage, uri: str) -> HistoryEntry:
    return from_jsonable(HistoryEntry, json.loads(storage.read(uri)))
