"""Files that a power cut does not take: bytes are synced before a name shows them, names before anybody is told."""

import os
import uuid
from pathlib import Path


def write_temporary(path: Path, data: bytes) -> Path:
    """Write beside `path`, synced and under a name nobody reads; the caller renames or links it to `path`.

    Raises: OSError naming `path`; nothing is left then, or every new attempt on a full disk would keep some of it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".tmp-{uuid.uuid4().hex}")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        temporary.unlink(missing_ok=True)
        error.filename = str(path)
        raise
    return temporary


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
