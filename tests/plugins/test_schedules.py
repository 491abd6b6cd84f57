"""What `release.schedule` may be is what Airflow takes, no more and no less."""

from datetime import UTC, datetime

import pytest
from airflow.exceptions import AirflowTimetableInvalid
from airflow.timetables.interval import CronDataIntervalTimetable
from croniter import CroniterError
from hypothesis import example, given
from hypothesis import strategies as st
from pendulum import instance

from clearway.product_checks import is_cron

AFTER = datetime(2024, 1, 1, tzinfo=UTC)
CRON = st.one_of(
    st.from_regex(r"([0-9*,/-]{1,4}|mon|jan|sunday|L|1#2)( ([0-9*,/-]{1,4}|mon|FEB|[a-z]{3})){3,6}", fullmatch=True),
    st.lists(
        st.sampled_from(["*", "*/5", "1-3", "0", "1,5", "7", "31", "60", "2-1", "*/0", "l"]), min_size=5, max_size=5
    ).map(" ".join),
)


def airflow_takes(text: str) -> bool:
    """As the DAG factory asks it, and as the scheduler does for the next run."""
    timetable = CronDataIntervalTimetable(text, timezone="UTC")
    try:
        timetable.validate()
        timetable._get_next(instance(AFTER))
    except (AirflowTimetableInvalid, CroniterError):
        return False
    return True


@given(CRON)
@example("@sometimes")
@example("")
def test_what_passes_for_a_schedule_is_one_for_airflow(text: str) -> None:
    assert is_cron(text, after=AFTER) == airflow_takes(text)


@pytest.mark.parametrize(
    "text",
    [
        "0 6 * * 1",
        "*/15 0-6,12 1 jan-mar sun",
        "0 0 L * *",
        "0 0 * * fri#2",
        "0 0 * * L5",
        "0 6 * * MON-FRI",
        "0 6 * * 1 30",
        "0 6 1 1 * 0 2030",
        "@midnight",
        "@annually",
        "@hourly",
        "@daily",
        "@weekly",
        "@monthly",
        "@quarterly",
        "@yearly",
    ],
)
def test_whatever_airflow_reads_may_be_a_schedule(text: str) -> None:
    assert airflow_takes(text)
    assert is_cron(text, after=AFTER)


@pytest.mark.parametrize(
    "text",
    ["", "every monday", "0 6 * *", "60 * * * *", "0 0 0 * *", "@sometimes", "@once", "0 0 30 2 *", "0 0 1 1 * 0 2020"],
)
def test_what_airflow_refuses_or_never_runs_is_none(text: str) -> None:
    assert not airflow_takes(text)
    assert not is_cron(text, after=AFTER)
