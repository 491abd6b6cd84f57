"""A backtest's kept files belong to one past of one product: what changes either is not answered with old rows."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from clearway.infra.environment import Environment
from clearway.launch.backtest.kept import drift_name, models_name, rows_name
from clearway.launch.backtest.year import read_year
from clearway.product import LoadedProduct
from clearway.product_yaml import load_product

RAIN = Path(__file__).parents[2] / "products" / "seattle_rain"
CLOCK = "first: 2012-01-01T00:00:00Z"
ENDS = f"{CLOCK}\n  last: 2012-07-01T00:00:00Z"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the rain product that ends with June 2012; its first model is made with March."""
    found = tmp_path / "products" / RAIN.name
    shutil.copytree(RAIN, found, ignore=shutil.ignore_patterns("__pycache__"))
    edit(found / "product.yaml", CLOCK, ENDS)
    edit(found / "product.yaml", "first_end: 2015-01-01T00:00:00Z", "first_end: 2012-04-01T00:00:00Z")
    edit(found / "product.yaml", "holdout_days: 365", "holdout_days: 30")
    return found


def edit(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))


def test_rows_made_by_other_code_are_not_read(folder: Path, env: Environment) -> None:
    before = read_year(env, load_product(folder), env.home)
    again = read_year(env, load_product(folder), env.home)
    assert again.rows.equals(before.rows)
    edit(folder / "features.py", 'F.col("temp_max") - F.col("temp_min")', 'F.col("temp_min") - F.col("temp_max")')
    after = read_year(env, load_product(folder), env.home)
    assert after.rows["temp_range"].to_pylist() == [-value for value in before.rows["temp_range"].to_pylist()]


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("product.yaml", "delay_days: 1", "delay_days: 2"),
        ("product.yaml", "lookback_days: 31", "lookback_days: 40"),
        ("product.yaml", "last: 2012-07-01", "last: 2012-08-01"),
        ("product.yaml", "numeric:\n    [precipitation, temp_max", "numeric:\n    [temp_max, precipitation"),
        ("source.py", "86_400_000_000", "86_400_000_001"),
    ],
    ids=["delay", "look-back", "end", "columns", "code"],
)
def test_what_shapes_rows_names_them(folder: Path, file: str, old: str, new: str) -> None:
    before = rows_name(load_product(folder))
    edit(folder / file, old, new)
    assert rows_name(load_product(folder)) != before


def test_what_only_judges_rows_does_not_name_them(folder: Path) -> None:
    before = rows_name(load_product(folder))
    edit(folder / "product.yaml", "auc_floor: 0.60", "auc_floor: 0.65")
    edit(folder / "product.yaml", "monitor:\n  min_rows: 25", "monitor:\n  min_rows: 24\n  every_batches: 3")
    assert rows_name(load_product(folder)) == before


def test_another_delivery_is_another_past(tmp_path: Path) -> None:
    inbox = tmp_path / "shop" / "inbox"
    inbox.mkdir(parents=True)
    (inbox.parent / "features.py").write_text("")
    shop = delivered_from(inbox)
    names = [rows_name(shop)]  # nothing is delivered yet
    for amount in ("1", "2"):
        (inbox / "sales-2024-01-02.csv").write_text(f"key,amount\na,{amount}\n")
        names.append(rows_name(shop))
    assert len(set(names)) == 3


def delivered_from(inbox: Path) -> LoadedProduct:
    """A product of three days whose sales are dropped as files."""
    rain = load_product(RAIN)
    source = {"kind": "files", "uri": inbox.as_uri(), "format": "csv", "files": {"sales": "sales-{batch_id}.csv"}}
    spec = rain.spec.model_dump(by_alias=True) | {
        "source": source,
        "batch": {"every": "day", "first": "2024-01-01", "last": "2024-01-03"},
    }
    return LoadedProduct(spec=type(rain.spec).model_validate(spec), folder=inbox.parent, digest="0" * 64)


@pytest.mark.parametrize(
    ("release", "monitor", "moved"),
    [
        ({"holdout_days": 7}, {}, {"models", "drift"}),
        ({}, {"ignore": ["month"]}, {"drift"}),
        ({}, {"false_discovery_rate": 0.2}, {"drift"}),
        ({}, {"calibration_gap": 0.2, "persistence": [1, 1]}, set()),
    ],
    ids=["holdout", "ignored", "rate", "bounds"],
)
def test_models_and_their_drift_are_named_for_what_they_read(
    release: dict[str, Any], monitor: dict[str, Any], moved: set[str]
) -> None:
    rain = load_product(RAIN)
    spec = rain.spec.model_copy(
        update={
            "release": rain.spec.release.overridden(release),
            "monitor": rain.spec.monitor.overridden(monitor),
        }
    )
    changed = rain.model_copy(update={"spec": spec})
    names: dict[str, Callable[[LoadedProduct], str]] = {
        "models": lambda product: models_name(product, rows="r", settings={"num_leaves": 3}),
        "drift": lambda product: drift_name(product, rows="r"),
    }
    assert {name for name, of in names.items() if of(rain) != of(changed)} == moved


def test_other_rows_or_settings_are_other_models() -> None:
    rain = load_product(RAIN)
    given = [("r", {"num_leaves": 3}), ("s", {"num_leaves": 3}), ("r", {"num_leaves": 4})]
    assert len({models_name(rain, rows=rows, settings=settings) for rows, settings in given}) == 3
    assert drift_name(rain, rows="r") != drift_name(rain, rows="s")
