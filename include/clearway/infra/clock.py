"""Time as an argument: the only place that reads the wall clock."""

import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

from clearway.contracts.errors import ConfigError


class Clock(Protocol):
    """Where time comes from."""

    def now_s(self) -> float:
        """Unix seconds, UTC."""
        ...

    def sleep(self, seconds: float) -> None:
        """Wait, in seconds."""
        ...


class SystemClock:
    """The machine's clock."""

    def now_s(self) -> float:
        return time.time()

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


@dataclass
class FakeClock:
    """A clock that moves only when told to (tests); `sleep` moves it."""

    at_s: float = 0.0

    def now_s(self) -> float:
        return self.at_s

    def sleep(self, seconds: float) -> None:
        self.at_s += seconds


def parse_instant(text: str) -> datetime:
    """ISO 8601 text to an aware UTC instant; text without an offset is read as UTC.

    Raises: ConfigError, which is a ValueError.
    """
    try:
        instant = datetime.fromisoformat(text)
    except ValueError as error:
        raise ConfigError(f"{text!r} is no instant: {error}; allowed: 2013-01-31 or 2013-01-31T12:00:00Z") from error
    return instant.replace(tzinfo=UTC) if instant.tzinfo is None else instant.astimezone(UTC)


def format_instant(instant: datetime) -> str:
    """Aware instant to `YYYY-MM-DDTHH:MM:SSZ` (UTC)."""
    return instant.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
