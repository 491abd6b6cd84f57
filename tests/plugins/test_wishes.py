"""Messages that ask for releases: one release per message however often it comes, and no message ends the watcher."""

import airflow_kit  # noqa: F401, I001 - sets AIRFLOW_HOME before Airflow is imported

import asyncio
import json
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from clearway_airflow.triggers import drop
from clearway_airflow.triggers.wishes import read_wish, take_messages

from clearway.contracts.errors import ConfigError
from clearway.infra.aws.client import client

PRODUCTS = ["flights", "seattle_rain"]
WISH = {"product": "flights", "as_of": "2013-05-06", "reason": "new fares"}


def event(detail: Any, *, event_id: str = "e-1") -> str:
    return json.dumps({"id": event_id, "detail-type": "Release wanted", "source": "clearway", "detail": detail})


@pytest.mark.parametrize("body", [json.dumps(WISH), event(WISH)], ids=["plain", "event"])
def test_a_message_or_an_event_is_read(body: str) -> None:
    name, wish = read_wish(body, message_id="m-1", products=PRODUCTS)
    assert wish == WISH
    assert name.startswith("message-")


def test_an_event_sent_twice_is_one_file_and_two_messages_are_two() -> None:
    def name(body: str, message_id: str) -> str:
        return read_wish(body, message_id=message_id, products=PRODUCTS)[0]

    assert name(event(WISH), "m-1") == name(event(WISH), "m-2")
    assert name(event(WISH), "m-1") != name(event(WISH, event_id="e-2"), "m-1")
    assert name(json.dumps(WISH), "m-1") != name(json.dumps(WISH), "m-2")


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("", "Expecting value"),
        ("[1]", "no object of texts"),
        ('{"product": 7}', "no object of texts"),
        ('{"as_of": "2013-05-06"}', "product None is unknown"),
        ('{"product": "../flights"}', "is unknown"),
        ('{"product": "flights", "as_of": "yesterday"}', "yesterday"),
        ('{"product": "flights", "approval": "auto"}', "which nobody reads"),
        ('{"product": "flights", "reason": "\\u0000"}', "cannot be printed"),
        (event("flights"), "no object of texts"),
        (json.dumps({"product": "flights", "reason": "x" * 501}), "allowed 500"),
    ],
)
def test_what_cannot_be_read_says_why(body: str, said: str) -> None:
    with pytest.raises(ValueError, match=said.replace("[", r"\[")):
        read_wish(body, message_id="m-1", products=PRODUCTS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Queues:
    wishes: str
    refused: str

    def send(self, body: str) -> None:
        client("sqs").send_message(QueueUrl=self.wishes, MessageBody=body)

    def num_refused(self) -> int:
        asked = client("sqs").get_queue_attributes(
            QueueUrl=self.refused, AttributeNames=["ApproximateNumberOfMessages"]
        )
        return int(asked["Attributes"]["ApproximateNumberOfMessages"])


@pytest.fixture
def queues(aws: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Queues:
    sqs, name = client("sqs"), uuid.uuid4().hex
    refused = sqs.create_queue(QueueName=f"{name}-refused")["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=refused, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    redrive = json.dumps({"deadLetterTargetArn": arn, "maxReceiveCount": 3})
    attributes = {"VisibilityTimeout": "0", "RedrivePolicy": redrive}
    wishes = sqs.create_queue(QueueName=name, Attributes=attributes)["QueueUrl"]
    monkeypatch.setenv("CLEARWAY__HOME", str(tmp_path))
    monkeypatch.setenv("CLEARWAY__EVENTS__QUEUE", wishes)
    return Queues(wishes=wishes, refused=refused)


@pytest.mark.slow
def test_a_message_delivered_again_asks_for_the_same_release(queues: Queues, monkeypatch: pytest.MonkeyPatch) -> None:
    queues.send(json.dumps(WISH))
    with monkeypatch.context() as lost:
        lost.setattr("clearway.infra.aws.wishes.forget", lambda *_: None)  # killed before it could say so
        assert take_messages() == 1
    assert take_messages() == 1
    assert take_messages() == 0
    (request,) = drop.new_requests("flights")
    assert (request["as_of"], request["reason"]) == ("2013-05-06", "new fares")
    drop.mark_taken("flights", request)
    queues.send(json.dumps(WISH))  # another wish
    take_messages()
    assert len({request["evidence_digest"], *(r["evidence_digest"] for r in drop.new_requests("flights"))}) == 2


@pytest.mark.slow
@pytest.mark.parametrize(
    "body", ["no JSON", "[" * 100_000, '{"product": "unknown"}', '{"product": "flights", "reason": "\\ud800"}']
)
def test_a_message_that_cannot_be_read_is_put_aside_and_the_next_one_is_taken(queues: Queues, body: str) -> None:
    queues.send(body)
    queues.send(json.dumps({"product": "flights"}))
    taken = [take_messages() for _ in range(5)]
    assert (sum(taken), queues.num_refused()) == (1, 1)
    assert len(drop.new_requests("flights")) == 1


@pytest.mark.slow
def test_the_watcher_finds_what_the_queue_was_told(queues: Queues) -> None:
    async def first() -> Any:
        async for found in drop.DropTrigger(product="flights", poll_s=0.01).run():
            return found.payload
        return None

    queues.send(event(WISH))
    assert asyncio.run(first())["reason"] == "new fares"


@pytest.mark.slow
def test_a_queue_that_is_gone_is_named_and_ends_no_watcher(queues: Queues, tmp_path: Path) -> None:
    client("sqs").delete_queue(QueueUrl=queues.wishes)
    with pytest.raises(ConfigError, match="CLEARWAY__EVENTS__QUEUE"):
        take_messages()
    drop.DropTrigger(product="flights")._take()


def test_without_a_queue_nobody_is_asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CLEARWAY__HOME", str(tmp_path))
    monkeypatch.delenv("CLEARWAY__EVENTS__QUEUE", raising=False)
    assert take_messages() == 0
