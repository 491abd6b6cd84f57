"""Requests that wait in the same turn of the event loop, scored by one call of the model.

Nobody waits for company: what has arrived by the time the loop gets here goes together. A row alone costs three times
what it costs among sixteen, because the weights come through the cache once per call. Only versions whose scores are
the same to the bit in any company take part (`Loaded.is_row_wise`).

Versions that wait in the same turn go one after the other, the one that was quickest last time first, and what it
answered goes out before one begins that is not quick: a slow version delays its own callers.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from clearway.serve.frames import Row
from clearway.serve.loaded import Loaded, score_together

log = logging.getLogger("clearway.serve")

# Rows scored on the event loop itself; more than these take longer than handing them to a thread costs (about 60 us).
MAX_INLINE_ROWS = 16
# A version that took no longer last time is scored in the same turn as another; turns of their own would split both.
QUICK_S = 0.001

Scored = list[float] | Exception


class _Waiting(NamedTuple):
    version: Loaded
    rows: Sequence[Row]
    answer: Callable[[Scored], None]


class Turns:
    """The requests of one event loop that wait for their scores."""

    def __init__(self) -> None:
        self._groups: dict[str, list[_Waiting]] = {}
        self._took_s: dict[str, float] = {}

    async def score(self, version: Loaded, rows: Sequence[Row]) -> list[float]:
        """One score per row. Raises, for this request only: RowError, DataError."""
        loop = asyncio.get_running_loop()
        scores: asyncio.Future[list[float]] = loop.create_future()

        def answer(found: Scored) -> None:
            if scores.done():  # its caller was cancelled
                return
            if isinstance(found, Exception):
                scores.set_exception(found)  # raised again where the request waits
            else:
                scores.set_result(found)

        self.ask(version, rows, answer, loop)
        return await scores

    def ask(
        self,
        version: Loaded,
        rows: Sequence[Row],
        answer: Callable[[Scored], None],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        """Call `answer` with one score per row, or with what was raised for this request; never before this returns."""
        waiting = _Waiting(version, rows, answer)
        if not self._groups:
            loop.call_soon(self._score_next, loop)
        self._groups.setdefault(version.digest, []).append(waiting)

    def _score_next(self, loop: asyncio.AbstractEventLoop) -> None:
        self._score(self._quickest())
        while self._groups and self._took_s.get(digest := self._quickest(), QUICK_S + 1) <= QUICK_S:
            self._score(digest)
        if self._groups:  # behind the callers that were just woken
            loop.call_soon(self._score_next, loop)

    def _quickest(self) -> str:
        if len(self._groups) == 1:
            return next(iter(self._groups))
        return min(self._groups, key=lambda one: self._took_s.get(one, 0.0))

    def _score(self, digest: str) -> None:
        group, began = self._groups.pop(digest), time.perf_counter()
        scores = _score_group(group)
        self._took_s[digest] = time.perf_counter() - began
        for one, found in zip(group, scores, strict=True):
            try:
                one.answer(found)
            except Exception:
                log.exception("an answer could not be given, its neighbours' are")


def _score_group(group: list[_Waiting]) -> list[Scored]:
    version = group[0].version
    if version.is_row_wise:
        return score_together(version.scorer, [one.rows for one in group])
    return [found for one in group for found in score_together(version.scorer, [one.rows])]
