"""Messages of a queue of SQS that ask for releases."""

from dataclasses import dataclass

from clearway.infra.aws.client import client, explained

MAX_MESSAGES = 10  # of one call
CORRECT = "correct CLEARWAY__EVENTS__QUEUE"


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One message. `id`: the same whenever it is delivered again; `receipt`: what it is deleted by."""

    id: str
    body: str
    receipt: str


def receive(queue: str) -> list[Message]:
    """What waits now; hidden from others until the queue's visibility timeout is over.

    Raises: Unavailable, ConfigError.
    """
    with explained(f"queue {queue}", refused=CORRECT):
        answer = client("sqs").receive_message(QueueUrl=queue, MaxNumberOfMessages=MAX_MESSAGES, WaitTimeSeconds=0)
    found = answer.get("Messages", ())
    return [Message(id=m["MessageId"], body=m["Body"], receipt=m["ReceiptHandle"]) for m in found]


def forget(queue: str, message: Message) -> None:
    """It was acted on. Raises: Unavailable, ConfigError."""
    with explained(f"queue {queue}", refused=CORRECT):
        client("sqs").delete_message(QueueUrl=queue, ReceiptHandle=message.receipt)
