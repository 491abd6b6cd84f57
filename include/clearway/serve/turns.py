"""Requests that wait in the same turn of the event loop, scored by one call of the model.

Nobody waits for company: what has arrived by the time the loop gets here goes together. A row alone costs three times
what it costs among sixteen, because the weights come through the cache once per call. Only versions whose scores are
the same to the bit in any company take part (`Loaded.is_row_wise`).

Versions that wait in the same turn go one after the other, the one that was quickest last time first, and what it
answered goes out before the next one begins: a slow version delays its own callers.
"""

import asyncio
import time
from collections.abc import Sequence
from typing import NamedTuple

from clearway.packaging.encoder import Arrays
from clearway.serve.frames import Row
from clearway.serve.loaded import Loaded, score_together


class _Waiting(NamedTuple):
    version: Loaded
    arrays: Arrays
    scores: "asyncio.Future[list[float]]"


class Turns:
    """The requests of one event loop that wait for their scores."""

    def __init__(self) -> None:
        self._groups: dict[str, list[_Waiting]] = {}
        self._took_s: dict[str, float] = {}

    async def score(self, version: Loaded, rows: Sequence[Row]) -> list[float]:
        """One score per row. Raises, for this request only: RowError, DataError."""
        arrays = version.scorer.encoder.encode_rows(rows)
        if not version.is_row_wise:
            return version.scorer.score(*arrays).tolist()  # type: ignore[no-any-return]
        loop = asyncio.get_running_loop()
        if not self._groups:
            loop.call_soon(self._score_next, loop)
        waiting = _Waiting(version, arrays, loop.create_future())
        self._groups.setdefault(version.digest, []).append(waiting)
        return await waiting.scores

    def _score_next(self, loop: asyncio.AbstractEventLoop) -> None:
        digest = next(iter(self._groups))
        if len(self._groups) > 1:
            digest = min(self._groups, key=lambda one: self._took_s.get(one, 0.0))
        group = [one for one in self._groups.pop(digest) if not one.scores.done()]  # others were cancelled
        if group:
            began = time.perf_counter()
            _score_group(group)
            self._took_s[digest] = time.perf_counter() - began
        if self._groups:  # behind the callers that were just woken
            loop.call_soon(self._score_next, loop)


def _score_group(group: list[_Waiting]) -> None:
    found = score_together(group[0].version.scorer, [one.arrays for one in group])
    for one, scores in zip(group, found, strict=True):
        if isinstance(scores, Exception):
            one.scores.set_exception(scores)  # raised again where the request waits
        else:
            one.scores.set_result(scores)
