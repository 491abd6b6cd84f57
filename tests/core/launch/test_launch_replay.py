"""Which weeks are played, when it is enough, and how the loop follows what a batch causes."""

from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clearway.contracts.errors import JobFailed
from clearway.launch.airflow_api import Event, Run, Task
from clearway.launch.replay import MAX_REFUSED_IN_A_ROW, WEEKS_AFTER_RETRAINING, Loop, Played, batch_ids, is_enough
from clearway.product import Batch

WEEKLY = Batch(every="week", first=datetime(2012, 12, 31, tzinfo=UTC))


def played(*marks: str) -> list[Played]:
    """`.` landed, `x` refused, `R` promoted a retrained model, `r` retrained but rejected."""
    return [
        Played(batch_id=str(i), is_landed=m != "x", seconds=1.0, retrain=m in "rR", is_promoted=m == "R")
        for i, m in enumerate("".join(marks))
    ]


def test_weeks_follow_the_first_release_without_gap() -> None:
    found = list(islice(batch_ids(WEEKLY, first_end=datetime(2013, 4, 1, tzinfo=UTC)), 3))
    assert found == ["2013-04-01", "2013-04-08", "2013-04-15"]


@pytest.mark.parametrize(
    ("marks", "weeks", "expected"),
    [
        ("", None, False),
        ("....", None, False),
        ("....R", None, False),
        ("....R.", None, False),
        ("....R..", None, True),
        ("....r..", None, False),
        ("....R.x", None, False),
        ("....R.x.", None, True),
        ("....R..", 9, False),
        (".........", 9, True),
        ("", 0, True),
        ("..xxx", None, True),
        ("..xxx", 39, True),
        ("..xx.x", None, False),
        ("...........", None, False),
        ("............", None, True),
    ],
)
def test_enough_is_enough(marks: str, weeks: int | None, expected: bool) -> None:
    assert is_enough(played(marks), weeks=weeks) is expected


@given(st.text(alphabet=".xrR", max_size=30), st.one_of(st.none(), st.integers(0, 30)))
def test_replay_always_ends(marks: str, weeks: int | None) -> None:
    """However a source behaves, refusing it often enough in a row ends the replay, and so does a promoted model."""
    assert is_enough(played(marks, "x" * MAX_REFUSED_IN_A_ROW), weeks=weeks)
    if weeks is None:
        assert is_enough(played(marks, "R", "." * WEEKS_AFTER_RETRAINING), weeks=None)


class FakeAirflow:
    """Runs that end at once; `chains` says which runs the events of a run start."""

    def __init__(self, chains: dict[str, list[Event]], *, failed: set[str] = frozenset(), deploys: bool = True) -> None:
        self.chains, self.failed, self.deploys = chains, set(failed), deploys
        self.triggered: list[tuple[str, str, dict[str, Any]]] = []
        self.cleared: list[str] = []

    def trigger(self, dag_id: str, run_id: str, *, conf: dict[str, Any], note: str) -> Run:
        assert note
        self.triggered.append((dag_id, run_id, conf))
        return self.run(dag_id, run_id)

    def run(self, dag_id: str, run_id: str) -> Run:
        start = datetime(2026, 1, 1, tzinfo=UTC)
        seconds = {"ingest": 5, "monitor": 9, "release": 14}[dag_id.removeprefix("shop_")]
        end = start + timedelta(seconds=seconds)
        state = "failed" if run_id in self.failed else "success"
        return Run(
            dag_id=dag_id,
            run_id=run_id,
            state=state,
            run_type="manual",
            queued=start,
            started=start,
            ended=end,
            conf={},
        )

    def clear_failed(self, _dag_id: str, run_id: str) -> None:
        self.cleared.append(run_id)
        self.failed.discard(run_id)

    def wait(self, run: Run, *, on_tasks: Any, timeout_s: float) -> Run:
        assert timeout_s > 0
        found = self.run(run.dag_id, run.run_id)
        on_tasks(found, self.tasks(run.dag_id, run.run_id))
        return found

    def tasks(self, _dag_id: str, run_id: str) -> tuple[Task, ...]:
        state = "failed" if run_id in self.failed else "success"
        return (Task(task_id="train", state=state, started=None, ended=None, try_number=1),)

    def events_of(self, _dag_id: str, run_id: str) -> list[Event]:
        return self.chains.get(run_id, [])

    def outputs(self, _dag_id: str, _run_id: str, _task_id: str) -> dict[str, Any]:
        return {"verdict": "pass" if self.deploys else "fail"}


def loop(api: FakeAirflow) -> Loop:
    return Loop(api, "shop", on_tasks=lambda _run, _tasks: None)  # type: ignore[arg-type]


LANDED = [Event(asset_name="shop_batches", extra={}, created=(("shop_monitor", "m1"),))]
RETRAIN = [Event(asset_name="shop_retrain", extra={}, created=(("shop_release", "r1"),))]


def test_a_quiet_batch_is_landed_and_watched() -> None:
    api = FakeAirflow({"replay-2013-04-01": LANDED})
    found = loop(api).batch("2013-04-01")
    assert found == Played(batch_id="2013-04-01", is_landed=True, seconds=9.0)
    assert api.triggered == [("shop_ingest", "replay-2013-04-01", {"batch_id": "2013-04-01"})]


@pytest.mark.parametrize("deploys", [True, False], ids=["promoted", "rejected"])
def test_a_drifting_batch_is_followed_to_the_end_of_its_release(deploys: bool) -> None:
    api = FakeAirflow({"replay-2013-04-01": LANDED, "m1": RETRAIN}, deploys=deploys)
    found = loop(api).batch("2013-04-01")
    assert (found.retrain, found.released, found.is_promoted) == (True, "r1", deploys)
    assert found.closed_s == (14.0 if deploys else None)


def test_a_refused_batch_starts_nothing() -> None:
    assert not loop(FakeAirflow({})).batch("2013-04-01").is_landed


def test_events_of_other_assets_are_not_waited_for() -> None:
    other = [Event(asset_name="shop_champion", extra={}, created=())]
    assert not loop(FakeAirflow({"replay-2013-04-01": other})).batch("2013-04-01").is_landed


def test_a_run_that_failed_before_is_repeated_from_where_it_failed() -> None:
    api = FakeAirflow({}, failed={"first"})
    assert loop(api).release("first", as_of=datetime(2013, 4, 1, tzinfo=UTC), note="n").state == "success"
    assert api.cleared == ["first"]
    assert api.triggered == [("shop_release", "first", {"as_of": "2013-04-01T00:00:00Z"})]


def test_a_run_that_fails_again_names_the_task() -> None:
    class Hopeless(FakeAirflow):
        def clear_failed(self, _dag_id: str, run_id: str) -> None:
            self.cleared.append(run_id)

    with pytest.raises(JobFailed, match=r"run 'first' of 'shop_release' failed in \['train'\]"):
        loop(Hopeless({}, failed={"first"})).release("first", as_of=None, note="n")
