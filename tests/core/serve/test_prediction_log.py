"""The prediction log: nothing answered is lost while storage works, losses are counted when it does not."""

import threading
from datetime import UTC, datetime

import pytest

from clearway.contracts.errors import ConfigError, Unavailable
from clearway.infra.clock import FakeClock
from clearway.infra.layout import Layout
from clearway.infra.parquet import from_parquet
from clearway.infra.storage import LocalStorage
from clearway.serve.logged import logged_by
from clearway.serve.prediction_log import Entry, PredictionLog

NOON = datetime(2013, 4, 1, 12, tzinfo=UTC)


class BrokenStorage(LocalStorage):
    """A disk that is full until it is repaired."""

    is_broken = True

    def __init__(self, error=None):
        self.error = error or OSError(28, "No space left on device")

    def write(self, uri, data):
        if self.is_broken:
            raise self.error
        super().write(uri, data)


@pytest.fixture
def layout(tmp_path):
    return Layout((tmp_path / "store").as_uri(), "flights")


@pytest.fixture
def make(layout):
    made = []

    def open_log(storage=None, **options):
        options = {"flush_s": 60.0} | options  # the test decides when to write
        made.append(PredictionLog(storage or LocalStorage(), layout, clock=FakeClock(NOON.timestamp()), **options))
        return made[-1]

    yield open_log
    for log in made:
        log.close()


def entry(number=0, num_rows=2, batch_id="2013-04-01", **changes):
    values = {
        "request_id": f"r{number}",
        "keys": [f"k{number}-{i}" for i in range(num_rows)],
        "batch_id": batch_id,
        "event_times": [NOON] * num_rows,
        "scores": [0.25] * num_rows,
        "digest": "d" * 64,
        "epoch": 3,
        "at_s": NOON.timestamp(),
    }
    return Entry(**(values | changes))


def rows_of(layout, batch_id):
    storage = LocalStorage()
    return [
        row for uri in storage.list(layout.predictions(batch_id)) for row in from_parquet(storage.read(uri)).to_pylist()
    ]


def test_a_flushed_row_has_every_column(make, layout):
    log = make()
    assert log.offer(entry(num_rows=1))
    log.flush()
    assert rows_of(layout, "2013-04-01") == [
        {
            "request_id": "r0",
            "key": "k0-0",
            "batch_id": "2013-04-01",
            "event_time": NOON,
            "score": 0.25,
            "model_digest": "d" * 64,
            "epoch": 3,
            "logged_at": NOON,
        }
    ]
    assert (log.num_pending, log.num_written, log.num_lost) == (0, 1, 0)


def test_rows_without_a_batch_go_to_their_day(make, layout):
    log = make()
    log.offer(entry(batch_id=None, keys=None, event_times=None, num_rows=1, scores=[0.5]))
    log.flush()
    (row,) = rows_of(layout, "live-20130401")
    assert (row["key"], row["event_time"], row["batch_id"]) == (None, None, "live-20130401")


def test_one_flush_writes_one_file_per_batch(make, layout):
    log = make()
    for number in range(10):
        log.offer(entry(number, batch_id=f"b{number % 2}"))
    log.flush()
    for batch_id in ("b0", "b1"):
        assert len(LocalStorage().list(layout.predictions(batch_id))) == 1
        assert len(rows_of(layout, batch_id)) == 10


def test_enough_rows_are_written_without_being_asked(make, layout):
    log = make(flush_rows=4)
    log.offer(entry(0))
    log.offer(entry(1))
    deadline = threading.Event()
    for _ in range(3_000):
        if log.num_written == 4:
            break
        deadline.wait(0.02)
    assert len(rows_of(layout, "2013-04-01")) == 4


def test_what_waits_is_written_on_close(make, layout):
    log = make()
    for number in range(50):
        log.offer(entry(number))
    log.close()
    assert len(rows_of(layout, "2013-04-01")) == 100
    assert log.num_lost == 0


@pytest.mark.parametrize(
    "error",
    [
        OSError(28, "No space left on device"),
        Unavailable("s3://bucket/key: AWS gave up, No space left"),
        ConfigError("s3://bucket/key: AWS refuses, No space left"),
        RuntimeError("No space left"),
    ],
    ids=["disk", "S3", "rights", "unforeseen"],
)
def test_rows_wait_while_storage_is_down_and_none_is_lost_or_doubled(make, layout, error):
    storage = BrokenStorage(error)
    log = make(storage)
    for number in range(3):
        log.offer(entry(number, batch_id=f"b{number}"))
    with pytest.raises(Unavailable, match="No space left"):
        log.flush()
    assert (log.num_pending, log.num_written) == (6, 0)
    storage.is_broken = False
    log.flush()
    assert [len(rows_of(layout, f"b{n}")) for n in range(3)] == [2, 2, 2]
    assert (log.num_pending, log.num_written, log.num_lost) == (0, 6, 0)


def test_beyond_the_bound_rows_are_lost_and_counted(make):
    log = make(BrokenStorage(), max_pending_rows=5)
    assert [log.offer(entry(number)) for number in range(4)] == [True, True, False, False]
    assert (log.num_pending, log.num_lost) == (4, 4)


def test_rows_that_storage_refuses_at_the_end_count_as_lost(make):
    log = make(BrokenStorage())
    log.offer(entry())
    log.close()
    assert (log.num_pending, log.num_lost) == (0, 2)


def test_concurrent_callers_lose_nothing(make, layout):
    log = make(flush_rows=64)
    threads = [
        threading.Thread(target=lambda n=n: [log.offer(entry(n * 1000 + i)) for i in range(100)]) for n in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    log.flush()
    keys = [row["key"] for row in rows_of(layout, "2013-04-01")]
    assert len(keys) == len(set(keys)) == 800


def test_the_log_names_who_answered_first(make, layout):
    log = make()
    log.offer(entry(0, keys=["a", "b"]))
    log.flush()
    log.offer(entry(1, keys=["b", "c"], digest="e" * 64))
    log.flush()
    found = logged_by(LocalStorage(), layout, "2013-04-01")
    assert set(found) == {"a", "b", "c"}
    assert (found["a"], found["c"]) == ("d" * 64, "e" * 64)


def test_a_batch_nobody_scored_has_no_log(layout):
    assert logged_by(LocalStorage(), layout, "2013-04-01") == {}
