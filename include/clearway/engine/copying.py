"""Finished checkpoints in another store: files first, manifest last, so that a partial copy is none."""

import logging
from pathlib import Path

from clearway.engine.keeping import NUM_KEPT, Copy
from clearway.infra.faults import fault
from clearway.infra.storage import join

LOG = logging.getLogger("clearway.train")


def push(folder: Path, copy: Copy, *, manifest: str) -> None:
    """Copy one checkpoint, then forget all but the newest complete copies."""
    target = join(copy.uri, folder.name)
    for path in sorted(folder.iterdir()):
        if path.name != manifest:
            copy.storage.write(join(target, path.name), path.read_bytes())
    fault("engine.before_copied_manifest")
    copy.storage.write(join(target, manifest), (folder / manifest).read_bytes())
    complete = _complete(copy, manifest=manifest)
    for old in complete[NUM_KEPT:]:
        copy.storage.delete_tree(join(copy.uri, old))


def pull(copy: Copy, folder: Path, *, manifest: str) -> None:
    """Bring complete checkpoints to an empty folder; partial ones stay where they are."""
    for name in _complete(copy, manifest=manifest):
        own = folder / name
        own.mkdir(parents=True, exist_ok=True)
        for uri in copy.storage.list(join(copy.uri, name)):
            if not uri.endswith(f"/{manifest}"):
                (own / uri.rsplit("/", 1)[1]).write_bytes(copy.storage.read(uri))
        (own / manifest).write_bytes(copy.storage.read(join(copy.uri, name, manifest)))
        LOG.info("checkpoint %s fetched from %s", name, copy.uri)


def _complete(copy: Copy, *, manifest: str) -> list[str]:
    """Newest first."""
    uris = copy.storage.list(copy.uri)
    return sorted((uri.split("/")[-2] for uri in uris if uri.endswith(f"/{manifest}")), reverse=True)
