"""Copies of callers' requests for a candidate whose answers nobody hears: differences row by row."""

import asyncio
import itertools
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence

from clearway.contracts.observed import Mirrored, MirroredRow
from clearway.infra.endpoint import Mirror
from clearway.serve.children import Failed, Full
from clearway.serve.frames import Row
from clearway.serve.refusal import Refusal
from clearway.serve.versions import Version

log = logging.getLogger("clearway.serve")

# A sixth of what a child may have under way; with more copies waiting the candidate cannot keep up.
MAX_WAITING = 32
# Rows kept for the reader; at 200 bytes each 10 MB, and at 1,000 rows a second almost a minute without a reader.
MAX_KEPT_ROWS = 50_000
MAX_ROWS_PER_READING = 5_000

Ask = Callable[[Version, Sequence[Row]], Awaitable[list[float]]]


class Mirroring:
    """One process's log of mirrored rows; lives on the event loop.

    Args:
        process_id: names this process's logs. Another pair of versions begins another log.
        ask: scores of a version that keep no caller waiting.
    """

    def __init__(self, *, process_id: str, ask: Ask) -> None:
        self._process_id, self._ask = process_id, ask
        self._log, self._num_logs = _Log(log_id="", candidate="", control=""), 0
        self._waiting = set[asyncio.Task[None]]()
        self.num_rows = self.num_dropped = 0

    def offer(
        self, mirror: Mirror, candidate: Version, control: str, rows: Sequence[Row], scores: Sequence[float]
    ) -> None:
        """Called after the answer went out; drops the copy when the candidate cannot keep up."""
        if (self._log.candidate, self._log.control) != (candidate.digest, control):
            self._num_logs += 1
            log_id = f"{self._process_id}-{self._num_logs}"
            self._log = _Log(log_id=log_id, candidate=candidate.digest, control=control)
        if len(self._waiting) >= MAX_WAITING:
            self._drop(self._log)
            return
        task = asyncio.ensure_future(self._copy(self._log, mirror, candidate, rows, scores))
        self._waiting.add(task)
        task.add_done_callback(self._waiting.discard)

    def read(self, *, first: int, at_s: float, epoch: int) -> Mirrored:
        """Rows from number `first` on; the oldest kept if that one is gone, none if it is not there yet."""
        kept = self._log
        begin = min(max(first, kept.first), kept.first + len(kept.rows))
        start = begin - kept.first
        return Mirrored(
            log_id=kept.log_id,
            first=begin,
            at_s=at_s,
            epoch=epoch,
            candidate=kept.candidate,
            control=kept.control,
            rows=tuple(itertools.islice(kept.rows, start, start + MAX_ROWS_PER_READING)),
            num_dropped=kept.num_dropped,
        )

    async def settle(self) -> None:
        """Return once every copy offered so far was answered."""
        if self._waiting:
            await asyncio.wait(self._waiting)

    async def _copy(
        self, kept: "_Log", mirror: Mirror, candidate: Version, rows: Sequence[Row], scores: Sequence[float]
    ) -> None:
        found: Sequence[float | None]
        try:
            found = await self._ask(candidate, rows)
        except Full:
            self._drop(kept)
            return
        except (Refusal, Failed):
            found = [None] * len(rows)
        except Exception:
            log.exception("a mirrored version failed", extra={"model_digest": candidate.digest})
            found = [None] * len(rows)
        for row, theirs, ours in zip(rows, found, scores, strict=True):
            slices = tuple(f"{name}={row.get(name)}" for name in mirror.columns)
            kept.add(MirroredRow(difference=_difference(theirs, ours), slices=slices))
        self.num_rows += len(rows)

    def _drop(self, kept: "_Log") -> None:
        kept.num_dropped += 1
        self.num_dropped += 1


class _Log:
    """The newest rows of one pair of versions. `first`: number of the oldest one kept."""

    def __init__(self, *, log_id: str, candidate: str, control: str) -> None:
        self.log_id, self.candidate, self.control = log_id, candidate, control
        self.rows, self.first, self.num_dropped = deque[MirroredRow](), 0, 0

    def add(self, row: MirroredRow) -> None:
        self.rows.append(row)
        if len(self.rows) > MAX_KEPT_ROWS:
            self.rows.popleft()
            self.first += 1


def _difference(candidate: float | None, control: float) -> float | None:
    """Of scores a whole unit apart or more: one unit, the most there can be between probabilities."""
    return None if candidate is None else max(-1.0, min(1.0, candidate - control))
