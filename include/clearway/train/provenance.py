"""What a result depends on besides its data: code, library versions, machine."""

import hashlib
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from types import ModuleType

from clearway import engine, kinds, packaging
from clearway.infra.environment import project_root

LIBRARIES = ("torch", "numpy", "pyarrow", "lightgbm", "onnx", "onnxruntime", "safetensors")


def code_digest(room: ModuleType) -> str:
    """SHA-256 over the source of stage, model (its `room`) and package: a checkpoint made by other code is not
    resumed."""
    digest = hashlib.sha256()
    for path in sorted(file for folder in _rooms(room) for file in folder.glob("*.py")):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()


def code_commit(root: Path, room: ModuleType) -> str:
    """The last commit that touched code which decides the result; `unknown` outside a repository.

    Not HEAD: a commit to a page of documentation must not give the same model another digest.
    """
    rooms = [str(path) for path in _rooms(room)]
    return _git(root, "log", "-1", "--format=%H", "--", *rooms) or "unknown"


def git_state(root: Path) -> dict[str, str]:
    """HEAD of the source tree and whether it had local changes; `unknown` outside a repository."""
    head = _git(root, "rev-parse", "HEAD")
    dirty = _git(root, "status", "--porcelain", "--untracked-files=no")
    return {"head": head or "unknown", "is_dirty": "unknown" if dirty is None else str(bool(dirty)).lower()}


def environment_facts() -> dict[str, str]:
    """Versions that decide the bits of a result, and the machine they ran on."""
    versions = {name: metadata.version(name) for name in LIBRARIES}
    return versions | {"python": platform.python_version(), "platform": platform.platform(), "machine": machine()}


def lock_digest() -> str:
    """SHA-256 of the dependency lock, `unknown` where the source tree is not at hand."""
    lock = project_root() / "requirements.txt"
    return hashlib.sha256(lock.read_bytes()).hexdigest() if lock.exists() else "unknown"


def machine() -> str:
    """Processor model."""
    info = Path("/proc/cpuinfo")
    if sys.platform == "linux" and info.exists():
        for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _rooms(room: ModuleType) -> tuple[Path, ...]:
    return Path(__file__).parent, *(Path(each.__path__[0]) for each in (engine, kinds, room, packaging))


def _git(root: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(  # noqa: S603 - fixed arguments
            ["git", "-C", str(root), *arguments],  # noqa: S607 - whichever git the machine has
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
