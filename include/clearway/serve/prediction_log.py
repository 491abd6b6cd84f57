"""Every answered row, kept for monitoring: a bounded queue in memory, Parquet files in storage.

The request path only appends; one thread writes. When storage is down rows wait, up to the bound; beyond it they are
lost and counted, since a caller's answer may not depend on the log.
"""

import logging
import threading
import uuid
from collections import defaultdict, deque
from collections.abc import Iterable
from datetime import UTC, datetime
from functools import lru_cache
from itertools import chain, repeat
from typing import TYPE_CHECKING, Any, NamedTuple

from clearway.contracts.errors import Unavailable
from clearway.infra.clock import Clock
from clearway.infra.layout import Layout
from clearway.infra.storage import Storage, join

if TYPE_CHECKING:
    import pyarrow as pa

log = logging.getLogger("clearway.serve")

MAX_PENDING_ROWS = 200_000  # about 40 MB of waiting rows: minutes of storage outage at hundreds of rows per second
FLUSH_ROWS = 20_000  # large enough for a sensible file, small enough to bound what a kill -9 can lose
FLUSH_S = 5.0
DAY_S = 86_400


class Entry(NamedTuple):
    """One answered request; lists are per row. A tuple, since a frozen dataclass takes three times as long to make."""

    request_id: str
    keys: list[str] | None
    batch_id: str | None
    event_times: list[datetime] | None
    scores: list[float]
    digest: str
    epoch: int
    at_s: float


class PredictionLog:
    """Queue and writer of one server process.

    Args:
        max_pending_rows: rows that may wait in memory.
        flush_rows, flush_s: a file is written when this many rows wait, or this long after the last one.
    """

    def __init__(
        self,
        storage: Storage,
        layout: Layout,
        *,
        clock: Clock,
        max_pending_rows: int = MAX_PENDING_ROWS,
        flush_rows: int = FLUSH_ROWS,
        flush_s: float = FLUSH_S,
    ) -> None:
        self._storage, self._layout, self._clock = storage, layout, clock
        self._max_pending, self._flush_rows, self._flush_s = max_pending_rows, flush_rows, flush_s
        self._entries: deque[Entry] = deque()
        self._lock = threading.Lock()  # taken by itself where nobody waits; a condition's own way is slow
        self._wake = threading.Condition(self._lock)
        self._writing = threading.Lock()
        self._closing = threading.Event()
        self.num_pending = self.num_written = self.num_lost = 0
        self._thread = threading.Thread(target=self._run, name="prediction-log", daemon=True)
        self._thread.start()

    def offer(self, entry: Entry) -> bool:
        """Take one request's rows; False when the queue is full and they count as lost. Never waits on storage."""
        num_rows = len(entry.scores)
        with self._lock:
            if self.num_pending + num_rows > self._max_pending:
                self.num_lost += num_rows
                return False
            self._entries.append(entry)
            self.num_pending += num_rows
            if self.num_pending >= self._flush_rows:
                self._wake.notify()
        return True

    def flush(self) -> None:
        """Return once all rows offered before are in storage. Raises: Unavailable if storage refuses them."""
        with self._writing:
            self._write_pending()

    def close(self) -> None:
        """Write what waits and stop; rows that storage refuses now are counted as lost."""
        self._closing.set()
        with self._lock:
            self._wake.notify()
        self._thread.join()
        try:
            self.flush()
        except Unavailable as error:
            with self._lock:
                self.num_lost, self.num_pending = self.num_lost + self.num_pending, 0
            log.error("prediction log lost rows on shutdown: %s", error, extra={"num_lost": self.num_lost})

    def _run(self) -> None:
        while not self._closing.is_set():
            with self._wake:
                self._wake.wait_for(self._has_reason_to_write, timeout=self._flush_s)
            try:
                self.flush()
            except Unavailable as error:
                log.warning("prediction log waits for storage: %s", error, extra={"num_pending": self.num_pending})
                self._closing.wait(self._flush_s)  # a full queue would wake the writer at once; storage gets its pause

    def _has_reason_to_write(self) -> bool:
        return self._closing.is_set() or self.num_pending >= self._flush_rows

    def _write_pending(self) -> None:
        with self._lock:
            entries, self._entries = list(self._entries), deque()
        groups: dict[str, list[Entry]] = defaultdict(list)
        for entry in entries:
            groups[entry.batch_id or _live_batch(int(entry.at_s // DAY_S))].append(entry)
        while groups:
            batch_id, group = groups.popitem()
            try:
                self._write_file(batch_id, group)
            except Exception as error:  # S3 has errors of its own; whichever it is, these rows wait
                self._put_back([*group, *(e for rest in groups.values() for e in rest)])
                raise Unavailable(f"prediction log of batch {batch_id} cannot be written: {error!r}") from error
            self._count_written(sum(len(e.scores) for e in group))

    def _write_file(self, batch_id: str, group: list[Entry]) -> None:
        from clearway.infra.parquet import to_parquet  # noqa: PLC0415 - Arrow, in the writer's thread once there are rows

        name = f"{int(self._clock.now_s() * 1e6)}-{uuid.uuid4().hex[:8]}.parquet"
        self._storage.write(join(self._layout.predictions(batch_id), name), to_parquet(table_of(batch_id, group)))

    def _put_back(self, entries: list[Entry]) -> None:
        with self._lock:
            self._entries.extendleft(reversed(entries))

    def _count_written(self, num_rows: int) -> None:
        with self._lock:
            self.num_pending -= num_rows
            self.num_written += num_rows


def table_of(batch_id: str, group: list[Entry]) -> "pa.Table":
    """Rows of several requests.

    Columns: request_id, key, batch_id, event_time (UTC; null if the caller named none), score (float64), model_digest,
    epoch, logged_at (UTC).
    """
    import numpy as np  # noqa: PLC0415 - as above
    import pyarrow as pa  # noqa: PLC0415 - as above

    lengths = [len(entry.scores) for entry in group]

    def per_row(values: Iterable[Any]) -> list[Any]:
        return list(chain.from_iterable(map(repeat, values, lengths)))

    def lists(found: Iterable[list[Any] | None], kind: pa.DataType) -> pa.Array:
        given = list(found)
        if not any(given):  # as nearly always: a whole file without them
            return pa.nulls(sum(lengths), kind)
        return pa.array(chain.from_iterable(a or repeat(None, n) for a, n in zip(given, lengths, strict=True)), kind)

    instant = pa.timestamp("us", tz="UTC")
    logged_us = np.rint(np.array([entry.at_s for entry in group]) * 1e6).astype("datetime64[us]")
    return pa.table(
        {
            "request_id": pa.array(per_row(entry.request_id for entry in group), pa.string()),
            "key": lists((entry.keys for entry in group), pa.string()),
            "batch_id": pa.repeat(batch_id, sum(lengths)),
            "event_time": lists((entry.event_times for entry in group), instant),
            "score": pa.array(chain.from_iterable(entry.scores for entry in group), pa.float64()),
            "model_digest": pa.array(per_row(entry.digest for entry in group), pa.string()),
            "epoch": pa.array(per_row(entry.epoch for entry in group), pa.int64()),
            "logged_at": pa.array(np.repeat(logged_us, lengths), instant),
        }
    )


@lru_cache(maxsize=8)
def _live_batch(day: int) -> str:
    """`day`: days since 1970 in UTC; thousands of entries share one."""
    return f"live-{datetime.fromtimestamp(day * DAY_S, UTC):%Y%m%d}"
