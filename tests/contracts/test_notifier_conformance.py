"""What every Notifier owes its callers. A new one adds itself to NOTIFIERS and passes."""

import json
import logging
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest

from clearway.infra.aws.client import client
from clearway.infra.aws.sns import SnsNotifier
from clearway.infra.environment import Environment
from clearway.infra.watch.notices import LOG, Kind, LocalNotifier, Notice, Notifier, open_notifier

Texts = Callable[[], list[str]]  # all of each notice that has arrived, oldest first


@contextmanager
def in_the_log() -> Iterator[list[str]]:
    lines: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
    LOG.addHandler(handler)
    try:
        yield lines
    finally:
        LOG.removeHandler(handler)


@contextmanager
def local(env: Environment) -> Iterator[tuple[Notifier, Texts]]:
    assert isinstance(open_notifier(env), LocalNotifier)
    with in_the_log() as lines:
        yield open_notifier(env), lambda: lines


@contextmanager
def sns(env: Environment) -> Iterator[tuple[Notifier, Texts]]:
    topic = client("sns").create_topic(Name=uuid.uuid4().hex)["TopicArn"]
    queue = client("sqs").create_queue(QueueName=uuid.uuid4().hex)["QueueUrl"]
    arn = client("sqs").get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    client("sns").subscribe(TopicArn=topic, Protocol="sqs", Endpoint=arn)
    env = env.model_copy(update={"notify": env.notify.model_copy(update={"topic": topic})})
    arrived: list[str] = []

    def texts() -> list[str]:
        while found := client("sqs").receive_message(QueueUrl=queue, MaxNumberOfMessages=10).get("Messages"):
            for message in found:
                body = json.loads(message["Body"])
                kinds = body["MessageAttributes"]
                assert kinds["environment"]["Value"] == env.name
                arrived.append(
                    f"{body['Subject']} {kinds['kind']['Value']} {kinds['product']['Value']} {body['Message']}"
                )
                client("sqs").delete_message(QueueUrl=queue, ReceiptHandle=message["ReceiptHandle"])
        return arrived

    assert isinstance(open_notifier(env), SnsNotifier)
    yield open_notifier(env), texts


NOTIFIERS: dict[str, Callable[[Environment], AbstractContextManager[tuple[Notifier, Texts]]]] = {
    "local": local,
    "sns": sns,
}
Told = tuple[Notifier, Texts]


@pytest.fixture(
    params=[pytest.param(name, marks=pytest.mark.slow if name != "local" else ()) for name in sorted(NOTIFIERS)]
)
def told(request: pytest.FixtureRequest, env: Environment) -> Iterator[Told]:
    if request.param != "local":
        request.getfixturevalue("aws")
    with NOTIFIERS[request.param](env) as found:
        yield found


def notice(**said: str) -> Notice:
    return Notice(**{"kind": Kind.REJECTED, "product": "flights", "run": "manual-1", "text": "auc 0.5", **said})  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", list(Kind), ids=str)
def test_a_notice_arrives_with_kind_product_run_and_reason(told: Told, kind: Kind) -> None:
    notifier, texts = told
    notifier.tell(notice(kind=kind))
    (text,) = texts()
    for part in (kind.value.replace("_", " "), "flights", "manual-1", "auc 0.5"):
        assert part in text


@pytest.mark.parametrize(
    "text", ["zwölf Flüge\nzu spät ✈", "x" * 300_000, "", "{}"], ids=["signs", "long", "none", "json"]
)
def test_any_text_arrives_as_one_notice(told: Told, text: str) -> None:
    notifier, texts = told
    notifier.tell(notice(text=text, product="flüge"))
    (found,) = texts()
    assert text[:1_000] in found


@pytest.mark.slow
def test_a_topic_that_is_gone_fails_nothing_and_the_log_has_the_notice(aws: str, env: Environment) -> None:
    gone = env.notify.model_copy(update={"topic": "arn:aws:sns:us-east-1:123456789012:gone"})
    with in_the_log() as lines:
        SnsNotifier(env.model_copy(update={"notify": gone})).tell(notice())
    assert [("auc 0.5" in line, "did not reach" in line) for line in lines] == [(True, False), (False, True)]
