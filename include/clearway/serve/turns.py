"""Requests that wait in the same turn of the event loop, scored by one call of the model.

Nobody waits for company: what has arrived by the time the loop gets here goes together. A row alone costs three times
what it costs among sixteen, because the weights come through the cache once per call. Only versions whose scores are
the same to the bit in any company take part (`Loaded.is_row_wise`).
"""

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from clearway.packaging.encoder import Arrays
from clearway.serve.decode import Row
from clearway.serve.versions import Loaded


class _Waiting(NamedTuple):
    version: Loaded
    arrays: Arrays
    scores: "asyncio.Future[list[float]]"


class Turns:
    """The requests of one event loop that wait for their scores."""

    def __init__(self) -> None:
        self._waiting: list[_Waiting] = []

    async def score(self, version: Loaded, rows: Sequence[Row]) -> list[float]:
        """One score per row. Raises, for this request only: RowError, DataError."""
        arrays = version.scorer.encoder.encode_rows(rows)
        if not version.is_row_wise:
            return version.scorer.score(*arrays).tolist()  # type: ignore[no-any-return]
        loop = asyncio.get_running_loop()
        if not self._waiting:
            loop.call_soon(self._score_waiting)
        waiting = _Waiting(version, arrays, loop.create_future())
        self._waiting.append(waiting)
        return await waiting.scores

    def _score_waiting(self) -> None:
        waiting, self._waiting = self._waiting, []
        groups: dict[str, list[_Waiting]] = defaultdict(list)
        for one in waiting:
            if not one.scores.done():  # its caller was cancelled
                groups[one.version.digest].append(one)
        for group in groups.values():
            _score_group(group)


def _score_group(group: list[_Waiting]) -> None:
    """All at once; if that fails one by one, so that an error reaches the request that caused it and no other."""
    try:
        numeric, categorical = (np.concatenate(parts) for parts in zip(*(one.arrays for one in group), strict=True))
        scores = group[0].version.scorer.score(numeric, categorical).tolist()
    except Exception as error:  # noqa: BLE001 - raised again where the request waits
        if len(group) == 1:
            group[0].scores.set_exception(error)
        else:
            for one in group:
                _score_group([one])
        return
    start = 0
    for one in group:
        end = start + len(one.arrays[0])
        one.scores.set_result(scores[start:end])
        start = end
