"""The lock installs what the requirements ask for, and nothing that was not checked by hash."""

import re
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from clearway.infra.environment import project_root

ROOT = project_root()
HASH = re.compile(r"--hash=sha256:[0-9a-f]{64}\b")


def entries(name: str) -> dict[str, tuple[Requirement, list[str]]]:
    """Package → its pinned requirement and its hashes."""
    text = (ROOT / name).read_text(encoding="utf-8").replace("\\\n", " ")
    found = {}
    for line in text.splitlines():
        if line and not line.startswith("#"):
            requirement = Requirement(line.split("--hash")[0].strip())
            found[canonicalize_name(requirement.name)] = (requirement, HASH.findall(line))
    return found


def wanted() -> list[Requirement]:
    lines = (ROOT / "requirements.in").read_text(encoding="utf-8").splitlines()
    return [Requirement(line) for line in lines if line and not line.startswith("#")]


LOCK, CUDA = entries("requirements.txt"), entries("requirements-cuda.txt")


def test_every_entry_is_pinned_and_hashed() -> None:
    for name, (requirement, hashes) in {**LOCK, **CUDA}.items():
        assert re.fullmatch(r"==[^*]+", str(requirement.specifier)), f"{name} is not pinned: {requirement}"
        assert hashes, f"{name} has no hash; run `make lock`"


def test_the_lock_fulfils_every_direct_requirement() -> None:
    for requirement in wanted():
        locked, _ = LOCK[canonicalize_name(requirement.name)]
        version = str(locked.specifier).removeprefix("==")
        assert requirement.specifier.contains(version, prereleases=True), f"{requirement} but locked {version}"


def test_gpu_libraries_are_only_in_the_second_lock() -> None:
    gpu = re.compile(r"^(cuda-|nvidia-(?!ml-py)|triton$)")
    assert [name for name in LOCK if gpu.match(name)] == []
    assert [name for name in CUDA if not gpu.match(name)] == []


def test_torch_is_accepted_in_the_default_and_the_cpu_build() -> None:
    lock_script = (ROOT / ".ci" / "lock").read_text(encoding="utf-8")
    cpu_hashes = re.findall(r"sha256:[0-9a-f]{64}", lock_script)
    hashes = {h.removeprefix("--hash=") for h in LOCK["torch"][1]}
    assert cpu_hashes
    assert set(cpu_hashes) < hashes


def test_no_entry_names_an_index_or_a_local_path() -> None:
    for name in ("requirements.txt", "requirements-cuda.txt", "requirements.in"):
        text = Path(ROOT / name).read_text(encoding="utf-8")
        assert not re.search(r"https?://|file:|--index|--find-links|^-e|@ ", text, re.MULTILINE), name
