"""Rules that a linter does not know, checked on the syntax tree of every file."""

import ast
import functools
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from clearway.infra.environment import project_root

ROOT = project_root()
CORE = ROOT / "include" / "clearway"
CORE_FILES = sorted(CORE.rglob("*.py"))
TEST_FILES = sorted(f for f in (ROOT / "tests").rglob("*.py") if "benchmarks" not in f.parts)
WALL_CLOCK = {("time", "time"), ("time", "time_ns"), ("datetime", "now"), ("datetime", "utcnow"), ("date", "today")}
VAGUE_NAMES = {"utils", "util", "helpers", "helper", "common", "misc", "manager", "base", "core"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What the rules ask of a file, read from its tree once.

    Args:
        calls: owner, attribute and line of every call of one.
        relative: lines of relative imports.
        open_dataclasses: name and line of those that may change and do not say what they are.
    """

    calls: tuple[tuple[str, str, int], ...]
    imported: tuple[str, ...]
    relative: tuple[int, ...]
    has_docstring: bool
    open_dataclasses: tuple[tuple[str, int], ...]


@functools.cache
def facts_of(path: Path) -> Facts:
    tree = ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
    nodes = list(ast.walk(tree))
    return Facts(
        calls=tuple(calls(nodes)),
        imported=tuple(imported(nodes)),
        relative=tuple(n.lineno for n in nodes if isinstance(n, ast.ImportFrom) and n.level > 0),
        has_docstring=bool(ast.get_docstring(tree)),
        open_dataclasses=tuple((n.name, n.lineno) for n in nodes if isinstance(n, ast.ClassDef) and is_open(n)),
    )


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def calls(nodes: Iterable[ast.AST]) -> Iterator[tuple[str, str, int]]:
    for node in nodes:
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            owner = node.func.value
            yield getattr(owner, "id", getattr(owner, "attr", "")), node.func.attr, node.lineno


def imported(nodes: Iterable[ast.AST]) -> Iterator[str]:
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            yield node.module


def is_open(node: ast.ClassDef) -> bool:
    texts = [ast.unparse(d) for d in node.decorator_list]
    may_change = any(t.startswith("dataclass") and "frozen=True" not in t for t in texts)
    return may_change and not ast.get_docstring(node)


def test_only_the_clock_reads_the_wall_clock() -> None:
    found = [
        f"{name_of(f)}:{line} {owner}.{attr}"
        for f in CORE_FILES
        if f != CORE / "infra" / "clock.py"
        for owner, attr, line in facts_of(f).calls
        if (owner, attr) in WALL_CLOCK
    ]
    assert found == []


def test_tests_ask_over_http_with_patience() -> None:
    """The client's own five seconds are not enough for a server on a busy machine."""
    hasty = {("httpx", "get"), ("httpx", "post")}
    calls_made = [(name_of(f), call) for f in TEST_FILES for call in facts_of(f).calls]
    assert any((owner, attr) == ("http_kit", "get") for _, (owner, attr, _) in calls_made)
    assert [f"{file}:{line}" for file, (owner, attr, line) in calls_made if (owner, attr) in hasty] == []


def test_the_core_never_imports_the_orchestrator() -> None:
    found = [f"{name_of(f)}: {m}" for f in CORE_FILES for m in facts_of(f).imported if m.split(".")[0] == "airflow"]
    assert found == []


def test_contracts_need_the_standard_library_only() -> None:
    allowed = {*sys.stdlib_module_names, "clearway"}
    for file in sorted((CORE / "contracts").glob("*.py")):
        modules = set(facts_of(file).imported)
        assert {m.split(".")[0] for m in modules} <= allowed, name_of(file)
        assert all(m.startswith("clearway.contracts") for m in modules if m.startswith("clearway")), name_of(file)


def test_relative_imports_are_not_used() -> None:
    found = [f"{name_of(f)}:{line}" for f in CORE_FILES for line in facts_of(f).relative]
    assert found == []


def test_files_are_named_for_what_they_make() -> None:
    assert [name_of(f) for f in CORE_FILES if f.stem in VAGUE_NAMES] == []


def test_every_module_says_what_it_is_for() -> None:
    assert [name_of(f) for f in CORE_FILES if not facts_of(f).has_docstring] == []


def test_no_pickle_on_any_path() -> None:
    found = [
        f"{name_of(f)}: {m}"
        for f in CORE_FILES
        for m in facts_of(f).imported
        if m.split(".")[0] in {"pickle", "cloudpickle", "joblib", "dill", "shelve", "marshal"}
    ]
    assert found == []


def test_dataclasses_are_frozen_or_say_why_not() -> None:
    """A dataclass that changes carries state on purpose: its docstring or its bases must exist to say so."""
    found = [f"{name_of(f)}:{line} {name}" for f in CORE_FILES for name, line in facts_of(f).open_dataclasses]
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
