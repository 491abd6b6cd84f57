"""Budgets that keep rooms small: a reader should hold a file in mind, and see a function on one screen."""

import ast
import statistics
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from clearway.infra.environment import project_root

ROOT = project_root()
SOURCES = [ROOT / "include" / "clearway", ROOT / "plugins", ROOT / "dags", ROOT / "include" / "products"]
MIN_TEST_RATIO = 0.4
MAX_FILE_LINES, P95_FILE_LINES, MEDIAN_FILE_LINES = 600, 450, 150
MAX_FUNCTION_LINES, P95_FUNCTION_LINES, MEDIAN_FUNCTION_LINES = 80, 50, 12


def python_files(*folders: Path) -> list[Path]:
    return sorted(f for folder in folders for f in folder.rglob("*.py") if "__pycache__" not in f.parts)


def num_lines(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


def functions(path: Path) -> Iterator[tuple[str, int]]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name, (node.end_lineno or node.lineno) - node.lineno + 1


FILES = python_files(*SOURCES)
FUNCTIONS = {f"{f.relative_to(ROOT)}:{name}": size for f in FILES for name, size in functions(f)}


def percentile_95(sizes: list[int]) -> float:
    return statistics.quantiles(sizes, n=20)[-1]


def test_no_file_is_too_long() -> None:
    too_long = {str(f.relative_to(ROOT)): num_lines(f) for f in FILES if num_lines(f) > MAX_FILE_LINES}
    assert too_long == {}


def test_no_function_is_too_long() -> None:
    assert {name: size for name, size in FUNCTIONS.items() if size > MAX_FUNCTION_LINES} == {}


@pytest.mark.parametrize(
    ("sizes", "median", "p95"),
    [
        ([num_lines(f) for f in FILES if num_lines(f) > 1], MEDIAN_FILE_LINES, P95_FILE_LINES),
        (list(FUNCTIONS.values()), MEDIAN_FUNCTION_LINES, P95_FUNCTION_LINES),
    ],
    ids=["files", "functions"],
)
def test_the_usual_piece_is_small(sizes: list[int], median: int, p95: int) -> None:
    assert statistics.median(sizes) <= median
    assert percentile_95(sizes) <= p95


def test_tests_outweigh_the_code(record_property: Callable[[str, object], None]) -> None:
    """Measured, reported as a property of the run, and held: raise the floor when it has risen, never lower it."""
    num_source = sum(num_lines(f) for f in FILES)
    num_test = sum(num_lines(f) for f in python_files(ROOT / "tests"))
    record_property("test_lines_per_source_line", round(num_test / num_source, 2))
    assert num_test / num_source >= MIN_TEST_RATIO
