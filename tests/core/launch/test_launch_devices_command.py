"""`python -m clearway devices`: the board, and an override that names its giver."""

import json
from pathlib import Path
from typing import Any

import pytest

from clearway.__main__ import EXIT_REFUSED, main


@pytest.fixture(autouse=True)
def _own_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CLEARWAY__HOME", str(tmp_path))


def shown(capsys: pytest.CaptureFixture[str], *words: str) -> Any:
    assert main(["devices", *words, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_an_order_is_shown_with_who_gave_it_and_why(capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--override", "flights", "--amount", "0.5", "--by", "ada", "--reason", "audit on Friday")
    assert shown(capsys)["overrides"] == []
    (order,) = shown(capsys, *words)["overrides"]
    assert (order["ordered_by"], order["reason"], order["amount"]) == ("ada", "audit on Friday", 0.5)
    assert order["until_s"] - order["from_s"] == 24 * 3600
    assert main(["devices", *words]) == 0
    assert "override of +0.5 by ada: audit on Friday" in capsys.readouterr().out


@pytest.mark.parametrize(
    "words", [["--override", "flights", "--amount", "0.5"], ["--override", "nobody"], ["--device", "tpu"]]
)
def test_what_names_nobody_or_nothing_known_is_refused(words: list[str]) -> None:
    assert main(["devices", *words]) == EXIT_REFUSED
