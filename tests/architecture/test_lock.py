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


LOCK, CPU, CUDA = (entries(f"requirements{kind}.txt") for kind in ("", "-cpu", "-cuda"))


def test_every_entry_is_pinned_and_hashed() -> None:
    for name, (requirement, hashes) in {**LOCK, **CPU, **CUDA}.items():
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


def test_the_cpu_build_of_torch_satisfies_the_lock() -> None:
    (name, (cpu, hashes)) = next(iter(CPU.items()))
    locked, _ = LOCK["torch"]
    assert (name, len(CPU)) == ("torch", 1)
    assert hashes
    version = str(cpu.specifier).removeprefix("==")
    assert version.endswith("+cpu")
    assert locked.specifier.contains(version), "pip would replace the CPU build with the default one"


def test_no_entry_names_an_index_or_a_local_path() -> None:
    for name in ("requirements.txt", "requirements-cpu.txt", "requirements-cuda.txt", "requirements.in"):
        text = Path(ROOT / name).read_text(encoding="utf-8")
        assert not re.search(r"https?://|file:|--index|--find-links|^-e|@ ", text, re.MULTILINE), name
