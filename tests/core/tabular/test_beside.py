"""A document made in another process while this one trains."""

import os
from pathlib import Path

import pytest

from clearway.tabular.beside import Beside


def test_a_document_comes_from_another_process(tmp_path: Path) -> None:
    made = Beside(lambda: {"by": os.getpid(), "value": 0.1 + 0.2})
    made.start(tmp_path / "document.json")
    found = made.found(tmp_path / "document.json")
    assert found["value"] == 0.1 + 0.2
    assert found["by"] != os.getpid()
    assert [path.name for path in tmp_path.iterdir()] == ["document.json"]


def test_a_document_of_an_earlier_process_is_taken(tmp_path: Path) -> None:
    earlier = Beside(lambda: {"try": 1})
    earlier.start(tmp_path / "document.json")
    earlier.found(tmp_path / "document.json")
    later = Beside(lambda: {"try": 2})
    later.start(tmp_path / "document.json")
    assert later.found(tmp_path / "document.json") == {"try": 1}


def test_a_process_that_ended_early_is_made_up_for(tmp_path: Path) -> None:
    own = os.getpid()

    def compute() -> dict[str, int]:
        if os.getpid() != own:
            os._exit(9)
        return {"by": own}

    made = Beside(compute)
    made.start(tmp_path / "document.json")
    assert made.found(tmp_path / "document.json") == {"by": own}


def test_what_cannot_be_computed_says_why(tmp_path: Path) -> None:
    def compute() -> dict[str, int]:
        raise ValueError("the table has 0 rows")

    made = Beside(compute)
    made.start(tmp_path / "document.json")
    with pytest.raises(ValueError, match="0 rows"):
        made.found(tmp_path / "document.json")
