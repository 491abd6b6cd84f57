"""The product of the README works as it stands there, from its text to validated features."""

import csv
import json
import math
import os
import random
import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from clearway.__main__ import main
from clearway.infra.environment import Environment, project_root

README = (project_root() / "README.md").read_text(encoding="utf-8")
FIRST = datetime(2024, 1, 1, tzinfo=UTC)
NUM_DAYS, ORDERS_A_DAY = 5, 60


def block(language: str) -> str:
    found = re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)
    assert len(found) == 1, f"the README has one {language} example"
    return str(found[0])


def orders_of(day: int) -> Iterator[tuple[str, str, str, float, float, int]]:
    chance = random.Random(day)  # noqa: S311 - test data
    for number in range(ORDERS_A_DAY):
        at = FIRST + timedelta(days=day, seconds=chance.randrange(86_400))
        km = round(chance.uniform(1, 80), 1)
        is_late = int(chance.random() < 1 / (1 + math.exp(2 - 0.05 * km)))
        depot = chance.choice(["north", "south", "west"])
        yield f"{day}-{number}", at.isoformat(), depot, round(chance.expovariate(0.2), 2), km, is_late


def write_csv(path: Path, header: list[str], rows: list[tuple[object, ...]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "deliveries"
    (folder / "data").mkdir(parents=True)
    (folder / "product.yaml").write_text(block("yaml"), encoding="utf-8")
    (folder / "features.py").write_text(block("python"), encoding="utf-8")
    for day in range(NUM_DAYS):
        name = (FIRST + timedelta(days=day)).strftime("%Y-%m-%d")
        rows, known = list(orders_of(day)), list(orders_of(day - 2))
        header = ["id", "ordered_at", "depot", "weight_kg", "distance_km"]
        write_csv(folder / "data" / f"orders-{name}.csv", header, [row[:5] for row in rows])
        outcomes = [(row[0], row[1], row[5]) for row in known]
        write_csv(folder / "data" / f"outcomes-{name}.csv", ["id", "ordered_at", "is_late"], outcomes)
    return folder


def test_the_example_passes_its_check(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["product", "check", str(folder)]) == 0
    assert capsys.readouterr().out.startswith("deliveries: ok; 2 tables, 5 features, a batch every day")


def stage(name: str, inputs: dict[str, object], *, folder: Path, env: Environment) -> dict[str, Any]:
    """One stage as a job runner starts it."""
    words = [sys.executable, "-m", "clearway", name, "--json", "--inputs", json.dumps(inputs)]
    variables = {**os.environ, "CLEARWAY__HOME": str(env.home), "CLEARWAY__PRODUCTS": str(folder.parent)}
    done = subprocess.run(words, env=variables, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    outputs: dict[str, Any] = json.loads(done.stdout)
    return outputs


@pytest.mark.slow
def test_the_example_lands_and_becomes_features(folder: Path, env: Environment) -> None:
    release = {"product": "deliveries", "release_id": "readme", "start": FIRST.isoformat()}
    end = (FIRST + timedelta(days=NUM_DAYS)).isoformat()
    landed = stage("ingest", {**release, "end": end}, folder=folder, env=env)
    assert (landed["verdict"], landed["num_new"]) == ("pass", NUM_DAYS)

    made = stage("preprocess", {**release, "raw": landed["raw"]}, folder=folder, env=env)
    assert made["num_rows"] == NUM_DAYS * ORDERS_A_DAY
    # Two days of outcomes belong to orders from before the first batch, and the newest two days' are not known yet.
    assert made["num_labelled"] == (NUM_DAYS - 2) * ORDERS_A_DAY


def test_the_commands_of_the_readme_exist() -> None:
    makefile = (project_root() / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z]+):", makefile, re.MULTILINE))
    named = set(re.findall(r"`?make ([a-z]+)", README))
    assert named <= targets
    assert {"run", "release", "replay", "rollback", "status", "stop", "clean", "test", "lint"} <= named
