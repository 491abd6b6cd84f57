"""Notices to a topic of SNS."""

import logging

from clearway.infra.aws.client import client
from clearway.infra.environment import Environment
from clearway.infra.watch.notices import LocalNotifier, Notice

LOG = logging.getLogger("clearway.notices")
MAX_SUBJECT = 99  # ASCII, one line
MAX_TEXT = 10_000  # of the 256 KiB that a message may have; the whole reason is in the task's log
MAX_ATTEMPTS = 3


class SnsNotifier:
    """One message per notice, with its kind and product as attributes to filter by."""

    def __init__(self, env: Environment) -> None:
        self._topic, self._environment = env.notify.topic, env.name

    def tell(self, notice: Notice) -> None:
        from botocore import exceptions as botocore  # noqa: PLC0415

        LocalNotifier().tell(notice)
        subject = " ".join(f"Clearway {notice.title}".encode("ascii", "replace").decode().split())
        attributes = {"kind": notice.kind.value, "product": notice.product, "environment": self._environment}
        try:
            client("sns", max_attempts=MAX_ATTEMPTS).publish(
                TopicArn=self._topic,
                Subject=subject[:MAX_SUBJECT],
                Message=f"{notice.run}\n\n{notice.text}"[:MAX_TEXT],
                MessageAttributes={k: {"DataType": "String", "StringValue": v} for k, v in attributes.items()},
            )
        except (botocore.BotoCoreError, botocore.ClientError) as error:
            LOG.warning("notice %r did not reach %s: %s", notice.title, self._topic, error)
