"""Rules that a linter does not know, checked on the syntax tree of every file."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from clearway.infra.environment import project_root

ROOT = project_root()
CORE = ROOT / "include" / "clearway"
CORE_FILES = sorted(CORE.rglob("*.py"))
WALL_CLOCK = {("time", "time"), ("time", "time_ns"), ("datetime", "now"), ("datetime", "utcnow"), ("date", "today")}
VAGUE_NAMES = {"utils", "util", "helpers", "helper", "common", "misc", "manager", "base", "core"}


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def calls(tree: ast.AST) -> Iterator[tuple[str, str, int]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            owner = node.func.value
            yield getattr(owner, "id", getattr(owner, "attr", "")), node.func.attr, node.lineno


def imported(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            yield node.module


def test_only_the_clock_reads_the_wall_clock() -> None:
    found = [
        f"{name_of(f)}:{line} {owner}.{attr}"
        for f in CORE_FILES
        if f != CORE / "infra" / "clock.py"
        for owner, attr, line in calls(tree_of(f))
        if (owner, attr) in WALL_CLOCK
    ]
    assert found == []


def test_the_core_never_imports_the_orchestrator() -> None:
    found = [f"{name_of(f)}: {m}" for f in CORE_FILES for m in imported(tree_of(f)) if m.split(".")[0] == "airflow"]
    assert found == []


def test_contracts_need_the_standard_library_only() -> None:
    allowed = {*sys.stdlib_module_names, "clearway"}
    for file in sorted((CORE / "contracts").glob("*.py")):
        modules = set(imported(tree_of(file)))
        assert {m.split(".")[0] for m in modules} <= allowed, name_of(file)
        assert all(m.startswith("clearway.contracts") for m in modules if m.startswith("clearway")), name_of(file)


def test_relative_imports_are_not_used() -> None:
    found = [
        f"{name_of(f)}:{node.lineno}"
        for f in CORE_FILES
        for node in ast.walk(tree_of(f))
        if isinstance(node, ast.ImportFrom) and node.level > 0
    ]
    assert found == []


def test_files_are_named_for_what_they_make() -> None:
    assert [name_of(f) for f in CORE_FILES if f.stem in VAGUE_NAMES] == []


def test_every_module_says_what_it_is_for() -> None:
    assert [name_of(f) for f in CORE_FILES if not ast.get_docstring(tree_of(f))] == []


def test_no_pickle_on_any_path() -> None:
    found = [
        f"{name_of(f)}: {m}"
        for f in CORE_FILES
        for m in imported(tree_of(f))
        if m.split(".")[0] in {"pickle", "cloudpickle", "joblib", "dill", "shelve", "marshal"}
    ]
    assert found == []


def test_dataclasses_are_frozen_or_say_why_not() -> None:
    """A dataclass that changes carries state on purpose: its docstring or its bases must exist to say so."""
    found = []
    for file in CORE_FILES:
        for node in ast.walk(tree_of(file)):
            if not isinstance(node, ast.ClassDef):
                continue
            texts = [ast.unparse(d) for d in node.decorator_list]
            is_open = any(t.startswith("dataclass") and "frozen=True" not in t for t in texts)
            if is_open and not ast.get_docstring(node):
                found.append(f"{name_of(file)}:{node.lineno} {node.name}")
    assert found == []


def tracked_files() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False)
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    return [ROOT / name for name in listed.stdout.decode().split("\0") if name and (ROOT / name).is_file()]


# Home and build folders of one machine and addresses of package mirrors, written so as not to match themselves.
FOREIGN = re.compile(
    "|".join(
        [r"(?<![\w/.])/(?:home|Users)/(?!airflow\b|clearway\b|astro\b)\w+", r"(?<![\w.])/work" + r"/\w+", "/root" + "/"]
    )
    + r"|--(?:extra-)?index-url[ =]https?://(?!pypi\.org|download\.pytorch\.org)"
)


def test_no_tracked_file_names_the_machine_it_was_made_on() -> None:
    found = []
    for file in tracked_files():
        data = file.read_bytes()
        if b"\0" in data[:1024]:
            continue
        for number, line in enumerate(data.decode("utf-8").splitlines(), start=1):
            if FOREIGN.search(line):
                found.append(f"{name_of(file)}:{number}: {line.strip()[:120]}")
    assert found == []


def test_tracked_files_are_small_and_no_build_products() -> None:
    allowed_large = {"requirements.txt", "docs/reference/product.schema.json"}
    large = {
        name_of(f): f.stat().st_size
        for f in tracked_files()
        if f.stat().st_size > 300_000 and name_of(f) not in allowed_large and f.suffix not in {".png"}
    }
    assert large == {}
    assert [name_of(f) for f in tracked_files() if f.suffix in {".pyc", ".so", ".db", ".pkl", ".whl"}] == []
