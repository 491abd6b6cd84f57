"""`make lint` as tests, so that one session says everything."""

import subprocess
import sys
from pathlib import Path

import pytest

from clearway.infra.environment import project_root

BIN = Path(sys.executable).parent
COMMANDS = {
    "rules": ["ruff", "check", "--quiet", "."],
    "format": ["ruff", "format", "--quiet", "--check", "."],
    "floors": ["lint-imports", "--no-cache"],
    "types": ["mypy", "--no-error-summary"],
}


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_lint_finds_nothing(name: str) -> None:
    program, *words = COMMANDS[name]
    done = subprocess.run(
        [BIN / program, *words], cwd=project_root(), capture_output=True, text=True, timeout=1000, check=False
    )
    assert done.returncode == 0, f"{' '.join([program, *words])} says:\n{done.stdout[-4000:]}{done.stderr[-2000:]}"


def test_make_lint_runs_the_same_programs() -> None:
    makefile = (project_root() / "Makefile").read_text(encoding="utf-8")
    recipe = makefile.split("\nlint:")[1].split("\n\n")[0]
    for program, *_ in COMMANDS.values():
        assert f"/bin/{program}" in recipe
