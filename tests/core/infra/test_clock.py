import time
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clearway.infra.clock import FakeClock, SystemClock, format_instant, parse_instant

INSTANTS = st.integers(0, 4_102_444_800).map(lambda seconds: datetime.fromtimestamp(seconds, UTC))


def test_a_fake_clock_moves_only_when_told() -> None:
    clock = FakeClock(at_s=10.0)
    clock.sleep(2.5)
    assert clock.now_s() == 12.5


def test_the_system_clock_follows_the_machine() -> None:
    before = time.time()
    assert before <= SystemClock().now_s() <= time.time() + 1
    start = time.perf_counter()
    SystemClock().sleep(0.02)
    assert time.perf_counter() - start >= 0.02


@given(INSTANTS, st.integers(-12, 14))
def test_an_instant_survives_any_offset(instant: datetime, hours: int) -> None:
    local = instant.astimezone(timezone(timedelta(hours=hours)))
    assert parse_instant(local.isoformat()) == instant
    assert parse_instant(format_instant(local)) == instant
    assert format_instant(local) == format_instant(instant)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2013-01-07", "2013-01-07T00:00:00Z"),
        ("2013-01-07T05:00:00", "2013-01-07T05:00:00Z"),
        ("2013-01-07T05:00:00Z", "2013-01-07T05:00:00Z"),
        ("2013-01-07T00:00:00-05:00", "2013-01-07T05:00:00Z"),
    ],
)
def test_text_without_offset_is_utc(text: str, expected: str) -> None:
    assert format_instant(parse_instant(text)) == expected
