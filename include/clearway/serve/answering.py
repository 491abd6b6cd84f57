"""Who answers a request: the version that was chosen, and when it does not, the one that stands behind it."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from clearway.contracts.errors import DataError
from clearway.packaging.encoder import RowError
from clearway.serve.children import Child, Failed
from clearway.serve.frames import Row
from clearway.serve.loaded import Loaded
from clearway.serve.refusal import Refusal, bad_value, no_finite_score
from clearway.serve.turns import MAX_INLINE_ROWS, Scored, Turns
from clearway.serve.versions import Serving, Version

log = logging.getLogger("clearway.serve")


class SharedRefusal(Refusal):
    """Two versions refused the same rows: the rows are wrong, not the version that was chosen."""


class Answering:
    """Scores requests on one event loop."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(max_workers=2, thread_name_prefix="score")
        self._turns = Turns()

    async def score(self, version: Version, rows: Sequence[Row]) -> list[float]:
        """By this version and no other. Raises: Refusal 422, Failed."""
        if isinstance(version, Child):
            return await version.ask(rows)
        if len(rows) > MAX_INLINE_ROWS or not version.is_quick:
            return await asyncio.get_running_loop().run_in_executor(self._pool, score_rows, version, rows)
        try:
            return await self._turns.score(version, rows)
        except (RowError, DataError) as error:
            raise _refusal_of(error) from error

    def ask_soon(self, version: Loaded, rows: Sequence[Row], answer: Callable[[Scored], None]) -> None:
        """Few rows for a version in this process; `answer` gets scores or an error, of a quick version in this turn of
        the loop, of any other when a thread has them."""
        loop = asyncio.get_running_loop()
        if version.is_quick:
            self._turns.ask(version, rows, answer, loop)
            return
        found = loop.run_in_executor(self._pool, _scored, version, rows)
        found.add_done_callback(lambda done: None if done.cancelled() else answer(done.result()))

    async def score_safely(self, serving: Serving, version: Version, rows: Sequence[Row]) -> tuple[list[float], str]:
        """By the chosen version, or by the stable one if that gives an answer where the chosen one gives none.

        Returns: scores, digest of who answered. Raises: Refusal of the stable one, SharedRefusal.
        """
        stable = serving.loaded.get(serving.stable)
        if stable is None or version is stable:
            return await self.score(version, rows), version.digest
        try:
            return await self.score(version, rows), version.digest
        except Refusal:
            try:
                return await self.score(stable, rows), stable.digest
            except Refusal as again:
                raise SharedRefusal(again.status, again.code, again.message) from again
        except Failed as failed:
            log.debug("a candidate failed, the stable version answers", extra={"reason": str(failed)})
        except Exception:
            log.exception("a version failed, the stable one answers", extra={"model_digest": version.digest})
        return await self.score(stable, rows), stable.digest

    async def ask_unheard(self, version: Version, rows: Sequence[Row]) -> list[float]:
        """By any version, never on the event loop, for answers nobody waits for. Raises: Refusal, Failed."""
        if isinstance(version, Child):
            return await version.ask(rows)
        return await asyncio.get_running_loop().run_in_executor(self._pool, score_rows, version, rows)

    def close(self) -> None:
        """Let its threads end."""
        self._pool.shutdown()


def _scored(version: Loaded, rows: Sequence[Row]) -> Scored:
    try:
        return version.score(rows)
    except Exception as error:  # noqa: BLE001 - handed to whoever asked
        return error


def score_rows(version: Version, rows: Sequence[Row]) -> list[float]:
    """By any version, blocking. Raises: Refusal 422 naming row, field, problem and what is allowed."""
    try:
        return version.score(rows)
    except (RowError, DataError) as error:
        raise _refusal_of(error) from error


def _refusal_of(error: RowError | DataError) -> Refusal:
    return bad_value(str(error)) if isinstance(error, RowError) else no_finite_score()
