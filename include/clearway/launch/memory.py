"""Memory of the whole stack, counted once: shared pages are split among those who share them (PSS)."""

from collections.abc import Iterable
from pathlib import Path


def pss_bytes(pids: Iterable[int], *, proc: Path = Path("/proc")) -> int:
    """Sum of proportional set sizes in bytes; processes that ended meanwhile count nothing."""
    return sum(_pss_of(proc / str(pid) / "smaps_rollup") for pid in pids)


def _pss_of(file: Path) -> int:
    try:
        text = file.read_text(encoding="ascii")
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return 0
    for line in text.splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    return 0
