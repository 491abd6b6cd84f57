"""A request file starts one release, whatever is in it and however often the triggerer restarts."""

import airflow_kit  # noqa: F401, I001 - sets AIRFLOW_HOME before Airflow is imported

import asyncio
import importlib
from pathlib import Path
from typing import Any

import pytest
from airflow.triggers.base import TriggerEvent
from aws_kit import Trouble, at_endpoint, front, make_bucket
from clearway_airflow.triggers import drop

from clearway.infra.aws import client as client_module
from clearway.infra.storage import join, open_storage


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


@pytest.fixture
def bucket_folder(aws: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    root = f"s3://{make_bucket()}/store"
    monkeypatch.setenv("CLEARWAY__HOME", str(tmp_path))
    monkeypatch.setenv("CLEARWAY__STORAGE__ROOT", root)
    return join(root, "drop", "flights")


async def first_event() -> TriggerEvent:
    async for event in drop.DropTrigger(product="flights", poll_s=0.01).run():
        return event
    raise AssertionError("the watcher ended")


@pytest.mark.slow
def test_a_key_that_appears_in_the_bucket_asks_once(bucket_folder: str) -> None:
    open_storage(bucket_folder).write(join(bucket_folder, "go.json"), b'{"as_of": "2013-05-06"}')
    request = asyncio.run(first_event()).payload
    assert request["as_of"] == "2013-05-06"
    drop.mark_taken("flights", request)
    assert drop.new_requests("flights") == []


@pytest.mark.slow
def test_a_watcher_outlives_a_bucket_that_does_not_answer(
    bucket_folder: str, aws: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_storage(bucket_folder).write(join(bucket_folder, "go.json"), b"{}")
    monkeypatch.setattr(client_module, "MAX_ATTEMPTS", 1)
    trouble = Trouble(plan=lambda number: "break" if number < 3 else "")
    with front(aws, trouble) as endpoint:
        for _ in at_endpoint(endpoint, monkeypatch):
            assert asyncio.run(first_event()).payload["reason"] == "request file go.json"
