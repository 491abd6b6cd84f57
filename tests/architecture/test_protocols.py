"""A Protocol without a conformance suite is a promise nobody checks."""

import ast
from pathlib import Path

import pytest

from clearway.infra.environment import project_root

ROOT = project_root()
INFRA = ROOT / "include" / "clearway" / "infra"
# Clocks have two implementations of two lines each; tests/core/infra/test_clock.py covers both.
WITHOUT_SUITE = {"Clock"}


def protocols(path: Path) -> list[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    classes = [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    return [c.name for c in classes if any(getattr(b, "id", "") == "Protocol" for b in c.bases)]


PROTOCOLS = sorted({name for file in INFRA.rglob("*.py") for name in protocols(file)} - WITHOUT_SUITE)


def snake(name: str) -> str:
    return "".join(f"_{c.lower()}" if c.isupper() else c for c in name).removeprefix("_")


@pytest.mark.parametrize("name", PROTOCOLS)
def test_every_protocol_has_a_conformance_suite(name: str) -> None:
    suite = ROOT / "tests" / "contracts" / f"test_{snake(name)}_conformance.py"
    assert suite.is_file(), f"write {suite.relative_to(ROOT)}: every implementation of {name} must pass it"
    text = suite.read_text(encoding="utf-8")
    assert name in text, f"{suite.name} never names {name}"


def test_the_known_protocols_are_found() -> None:
    assert {"Storage", "ReleaseStore", "JobRunner", "Endpoint"} <= set(PROTOCOLS)
