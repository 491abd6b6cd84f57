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


def test_an_unknown_product_lists_the_known(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["product", "check", "trains"]) == 2
    assert "'trains' is not in" in capsys.readouterr().err
