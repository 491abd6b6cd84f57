"""What a person must know: a release that ended badly, traffic that went back, a question, an alert of the monitor."""

import logging
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from clearway.infra.environment import Environment

LOG = logging.getLogger("clearway.notices")


class Kind(StrEnum):
    """What happened."""

    REJECTED = "rejected"
    FAILED = "failed"
    ROLLED_BACK = "rolled_back"
    APPROVAL = "approval_waits"
    ALERT = "alert"


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """One thing to tell. `run`: the release, batch run or order it is about."""

    kind: Kind
    product: str
    run: str
    text: str

    @property
    def title(self) -> str:
        return f"{self.product}: {self.kind.value.replace('_', ' ')}"


class Notifier(Protocol):
    """Who is told; every implementation passes one suite."""

    def tell(self, notice: Notice) -> None:
        """Pass it on, and into the log in any case. Never raises because of who should receive it."""
        ...


class LocalNotifier:
    """A log line."""

    def tell(self, notice: Notice) -> None:
        LOG.warning("%s", line_of(notice))


def open_notifier(env: Environment) -> Notifier:
    """SNS if a topic is named."""
    if env.notify.topic:
        from clearway.infra.aws.sns import SnsNotifier  # noqa: PLC0415 - what one machine never needs

        return SnsNotifier(env)
    return LocalNotifier()


def line_of(notice: Notice) -> str:
    """For the log."""
    return f"{notice.title} ({notice.run}): {notice.text}"
