"""Why a training should stop now: a signal, a file that somebody made, or a spot notice.

Asking costs nothing per step: signals set a flag, files are looked at once a second, and EC2's metadata service is
polled by a thread, only if asked for. The loop adds up the answers of all ranks, so that they leave together.
"""

import json
import logging
import signal
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

LOG = logging.getLogger("clearway.train")
# The service's address on every EC2 machine. Source: Amazon EC2 user guide, "Instance metadata".
EC2_METADATA = "http://169.254.169.254"
# A notice comes two minutes ahead; Amazon recommends looking every five seconds (EC2 user guide, "Spot notices").
POLL_S, ANSWER_S, TOKEN_TTL_S = 5.0, 2.0, 300
_FILE_LOOK_S = 1.0
_NOT_FOUND, _UNAUTHORIZED = 404, 401


class Interrupts:
    """Collects reasons to stop. `reason` is the first of them, "" while there is none.

    Args:
        file: stop as soon as this exists; None: no file.
        metadata_url: where to ask for a spot notice (`EC2_METADATA`); None: nobody is asked.
    """

    def __init__(self, *, file: Path | None = None, metadata_url: str | None = None, poll_s: float = POLL_S) -> None:
        self.reason = ""
        self._file, self._looked_s = file, -_FILE_LOOK_S
        self._closed = threading.Event()
        if metadata_url is not None:
            arguments = (metadata_url, poll_s)
            threading.Thread(target=self._poll, args=arguments, name="clearway-spot", daemon=True).start()

    def on_signals(self) -> None:
        """Take SIGTERM and SIGINT as reasons from now on; main thread only."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda found, _: self.ask(f"signal {signal.Signals(found).name}"))

    def ask(self, reason: str) -> None:
        """Stop for this reason, unless there is one already."""
        self.reason = self.reason or reason

    def should_stop(self) -> bool:
        """Whether there is a reason."""
        if not self.reason and self._file is not None and time.monotonic() - self._looked_s >= _FILE_LOOK_S:
            self._looked_s = time.monotonic()
            if self._file.exists():
                self.ask(f"file {self._file} exists")
        return bool(self.reason)

    def close(self) -> None:
        """Ask nobody any more."""
        self._closed.set()

    def _poll(self, url: str, poll_s: float) -> None:
        service, is_silent = SpotNotices(url), False
        while not self._closed.is_set() and not self.reason:
            try:
                notice = service.read()
                is_silent = False
            except OSError as error:
                if not is_silent:  # once, not every five seconds
                    LOG.warning("no answer from the metadata service at %s: %s", url, error)
                notice, is_silent = "", True
            if notice:
                self.ask(f"spot notice: {notice}")
            self._closed.wait(poll_s)


class SpotNotices:
    """EC2's metadata service, version 2: a token first, then the question."""

    def __init__(self, url: str, *, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._url, self._clock_s = url, clock_s
        self._token, self._token_until_s = "", 0.0

    def read(self) -> str:
        """The notice as "action at time", "" while there is none. Raises: OSError if the service does not answer."""
        try:
            body = self._get("/latest/meta-data/spot/instance-action")
        except urllib.error.HTTPError as error:
            error.close()
            if error.code == _NOT_FOUND:
                return ""
            if error.code == _UNAUTHORIZED:
                self._token_until_s = 0.0
            raise
        try:
            notice = json.loads(body)
            return f"{notice['action']} at {notice['time']}"
        except (ValueError, KeyError, TypeError):
            return f"{body[:200]!r}"  # not as documented, but something was said: leave rather than be cut off

    def _get(self, path: str) -> str:
        if self._clock_s() >= self._token_until_s:
            headers = {"X-aws-ec2-metadata-token-ttl-seconds": str(TOKEN_TTL_S)}
            self._token = self._ask("/latest/api/token", method="PUT", headers=headers)
            self._token_until_s = self._clock_s() + TOKEN_TTL_S / 2
        return self._ask(path, method="GET", headers={"X-aws-ec2-metadata-token": self._token})

    def _ask(self, path: str, *, method: str, headers: dict[str, str]) -> str:
        request = urllib.request.Request(self._url + path, method=method, headers=headers)  # noqa: S310 - from settings
        with urllib.request.urlopen(request, timeout=ANSWER_S) as answer:  # noqa: S310
            text: str = answer.read().decode("utf-8", "replace")
            return text
