"""A request file starts one release, whatever is in it and however often the triggerer restarts."""

import airflow_kit  # noqa: F401, I001 - sets AIRFLOW_HOME before Airflow is imported

import asyncio
import importlib
from pathlib import Path
from typing import Any

import pytest
from airflow.triggers.base import TriggerEvent
from clearway_airflow.triggers import drop


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CLEARWAY__HOME", str(tmp_path))
    folder = tmp_path / "drop" / "flights"
    folder.mkdir(parents=True)
    return folder


def test_an_empty_folder_asks_for_nothing(folder: Path) -> None:
    assert folder.exists()
    assert drop.new_requests("flights") == []
    assert drop.new_requests("unknown") == []


@pytest.mark.parametrize(
    ("text", "as_of", "reason"),
    [
        ('{"as_of": "2013-05-06", "reason": "please"}', "2013-05-06", "please"),
        ("{}", "", "request file go.json"),
        ("", "", "request file go.json"),
        ("not json", "", "request file go.json"),
        ('["2013-05-06"]', "", "request file go.json"),
        ('{"as_of": 5, "other": "x"}', "", "request file go.json"),
    ],
)
def test_a_file_is_a_request_whatever_is_in_it(folder: Path, text: str, as_of: str, reason: str) -> None:
    (folder / "go.json").write_text(text)
    (request,) = drop.new_requests("flights")
    assert set(request) == {"evidence_digest", "as_of", "reason"}
    assert (request["as_of"], request["reason"]) == (as_of, reason)


def test_a_request_is_new_until_it_is_marked_and_again_when_it_changes(folder: Path) -> None:
    (folder / "go.json").write_text("{}")
    (folder / "notes.txt").write_text("not a request")
    (first,) = drop.new_requests("flights")
    assert drop.new_requests("flights") == [first]
    drop.mark_taken("flights", first)
    assert drop.new_requests("flights") == []
    (folder / "go.json").write_text('{"reason": "again"}')
    (second,) = drop.new_requests("flights")
    assert second["evidence_digest"] != first["evidence_digest"]


def test_the_watcher_announces_each_file_once(folder: Path) -> None:
    for name in ("a.json", "b.json"):
        (folder / name).write_text("{}")

    async def first_three() -> list[TriggerEvent]:
        found: list[TriggerEvent] = []
        events = drop.DropTrigger(product="flights", poll_s=0.01).run()
        async for event in events:
            found.append(event)
            if len(found) == 2:
                (folder / "c.json").write_text("{}")
            if len(found) == 3:
                break
        await events.aclose()  # type: ignore[attr-defined]
        return found

    payloads: list[Any] = [event.payload["reason"] for event in asyncio.run(first_three())]
    assert payloads == ["request file a.json", "request file b.json", "request file c.json"]


def test_the_triggerer_can_make_it_from_its_serialised_form() -> None:
    path, kwargs = drop.DropTrigger(product="flights", poll_s=3.0).serialize()
    module, _, name = path.rpartition(".")
    again = getattr(importlib.import_module(module), name)(**kwargs)
    assert (again.product, again.poll_s) == ("flights", 3.0)
