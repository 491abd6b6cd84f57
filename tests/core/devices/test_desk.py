"""The desk on a real store: asking, starting, making room once, what goes on record."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clearway.contracts.errors import ConfigError
from clearway.devices.board import Board, folder_of
from clearway.devices.desk import Desk
from clearway.devices.ledger import Ledger, Use, faded_usage
from clearway.devices.override import Override, order_override, overrides
from clearway.devices.sharing import Ask
from clearway.devices.want import Want
from clearway.infra.clock import FakeClock
from clearway.infra.environment import Environment
from clearway.infra.storage import open_storage

HOUR_S, DAY_S = 3600.0, 86_400.0


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(at_s=1_000_000.0)


@pytest.fixture
def shared(env: Environment) -> Environment:
    """Four slots of one class."""
    classes = env.devices.classes | {"cpu": env.devices.classes["cpu"].model_copy(update={"slots": 4})}
    return env.model_copy(update={"devices": env.devices.model_copy(update={"classes": classes})})


def want(product: str, **changes: object) -> Want:
    return Want(**({"product": product, "team": product, "risk_tier": "low"} | changes))


def ask(desk: Desk, wanted: Want) -> Ask:
    return desk.ask(f"train-{wanted.product}", wanted, task=(wanted.product, "run", "train"))


def board_of(env: Environment) -> Board:
    return Board(open_storage(env.store_root), folder_of(env.store_root, "cpu"))


def test_a_more_urgent_job_gets_its_slots_and_the_other_one_waits_again(shared: Environment, clock: FakeClock) -> None:
    desk = Desk(shared, "cpu", clock=clock)
    low = ask(desk, want("low", slots=4, is_preemptible=True))
    assert desk.refusal(low) == ""
    desk.hold(low, "train-low.0001")
    high = ask(desk, want("high", risk_tier="high", slots=2))
    assert high.priority > low.priority
    assert not desk.must_yield("train-low.0001"), "it has only just begun"
    clock.sleep(shared.devices.min_run_s)
    assert desk.must_yield("train-low.0001")
    assert desk.must_yield("train-low.0001"), "asked again, the answer stands"
    desk.leave("train-low.0001", will_return=True)
    (line,) = board_of(shared).yields()
    assert (line.job_id, line.for_ask, line.at_s) == ("train-low.0001", "train-high", clock.now_s())
    assert desk.refusal(high) == ""
    desk.hold(high, "train-high.0001")
    (waiting,) = board_of(shared).asks()
    assert (waiting.id, waiting.num_yields, waiting.priority) == ("train-low", 1, low.priority)
    assert "2 free" in desk.refusal(ask(desk, want("low", slots=4)))
    desk.leave("train-high.0001")
    assert desk.refusal(waiting) == ""


def test_device_seconds_go_on_record_once_and_lower_the_teams_share(shared: Environment, clock: FakeClock) -> None:
    desk = Desk(shared, "cpu", clock=clock)
    before = desk.priority_of(want("eager"))
    desk.hold(ask(desk, want("eager", slots=3)), "train-eager.0001")
    clock.sleep(100.0)
    assert desk.priority_of(want("eager")) < before, "what runs counts before it ends"
    desk.leave("train-eager.0001")
    desk.leave("train-eager.0001")
    ledger = Ledger(open_storage(shared.store_root), folder_of(shared.store_root, "cpu"))
    (use,) = ledger.recent(now_s=clock.now_s(), half_life_s=DAY_S)
    assert (use.team, use.slots, use.ended_s - use.started_s) == ("eager", 3, 100.0)
    assert desk.priority_of(want("eager")) < desk.priority_of(want("idle"))


def test_an_ask_nobody_stands_behind_is_withdrawn(shared: Environment, clock: FakeClock) -> None:
    gone = Desk(shared, "cpu", clock=clock, is_waiting=lambda waiting: waiting.product != "gone")
    running = ask(gone, want("running", slots=2))
    gone.hold(running, "train-running.0001")
    ask(gone, want("gone", risk_tier="high", slots=4))
    assert gone.refusal(ask(gone, want("small"))) == ""
    assert {waiting.product for waiting in board_of(shared).asks()} == {"small"}


def test_an_ask_made_ahead_keeps_nobody_out_while_its_own_run_is_not_that_far(
    shared: Environment, clock: FakeClock
) -> None:
    """A stage asks for the next one as it passes, and may have to run again: its worker died before Airflow knew."""
    desk = Desk(shared, "cpu", clock=clock)
    asked = want("flights", slots=4, is_preemptible=True)
    desk.ask("train-flights", asked, task=("flights", "run", "train"))
    again = desk.ask("tune-flights", asked, task=("flights", "run", "tune"))
    assert desk.refusal(again) == ""
    desk.hold(again, "tune-flights.0002")
    clock.sleep(shared.devices.min_run_s)
    assert not desk.must_yield("tune-flights.0002")
    desk.leave("tune-flights.0002")
    assert "would delay train-flights" in desk.refusal(ask(desk, want("later", slots=4))), "it counts for other runs"


def test_a_job_that_died_unseen_holds_nothing(shared: Environment, clock: FakeClock) -> None:
    desk = Desk(shared, "cpu", clock=clock, is_running=lambda job_id: job_id != "train-dead.0001")
    desk.hold(ask(desk, want("dead", slots=4)), "train-dead.0001")
    assert desk.refusal(ask(desk, want("next", slots=4))) == ""
    assert board_of(shared).held() == []


def test_who_made_room_waits_again_whoever_sees_it_first(shared: Environment, clock: FakeClock) -> None:
    alive = {"train-low.0001"}
    desk = Desk(shared, "cpu", clock=clock, is_running=lambda job_id: job_id in alive)
    desk.hold(ask(desk, want("low", slots=4, is_preemptible=True)), "train-low.0001")
    high = ask(desk, want("high", risk_tier="high", slots=4))
    clock.sleep(shared.devices.min_run_s)
    assert desk.must_yield("train-low.0001")
    alive.clear()
    assert desk.refusal(high) == ""
    desk.leave("train-low.0001", will_return=True)
    assert {(a.product, a.num_yields) for a in board_of(shared).asks()} == {("low", 1), ("high", 0)}


def test_more_slots_than_there_are_and_a_class_nobody_has_are_refused(shared: Environment, clock: FakeClock) -> None:
    with pytest.raises(ConfigError, match=r"5 slots of 'cpu'; allowed: 4"):
        ask(Desk(shared, "cpu", clock=clock), want("big", slots=5))
    with pytest.raises(ConfigError, match=r"'tpu' is unknown; allowed: \['cpu'\]"):
        Desk(shared, "tpu", clock=clock)


def override(**changes: object) -> Override:
    values = {"product": "p", "amount": 0.5, "ordered_by": "ada", "reason": "audit on Friday", "from_s": 1_000_000.0}
    return Override(**(values | {"until_s": 1_000_000.0 + HOUR_S} | changes))


def test_an_override_counts_until_it_runs_out_and_stays_on_record(shared: Environment, clock: FakeClock) -> None:
    storage, folder = open_storage(shared.store_root), folder_of(shared.store_root, "cpu")
    desk = Desk(shared, "cpu", clock=clock)
    before = desk.priority_of(want("p"))
    order_override(storage, folder, override())
    assert desk.priority_of(want("p")) == before + 0.5
    assert desk.priority_of(want("q")) == before
    clock.sleep(1.0)
    order_override(storage, folder, override(amount=-1.0, ordered_by="bob", from_s=clock.now_s()))
    assert desk.priority_of(want("p")) == 0.0
    clock.sleep(HOUR_S)
    assert desk.priority_of(want("p")) == before
    assert [(o.ordered_by, o.amount) for o in overrides(storage, folder, "p")] == [("ada", 0.5), ("bob", -1.0)]
    with pytest.raises(ConfigError, match="exists already"):
        order_override(storage, folder, override())


@pytest.mark.parametrize(
    "changes", [{"amount": 1.5}, {"ordered_by": " "}, {"reason": ""}, {"until_s": 1e9}, {"until_s": 0.0}]
)
def test_an_override_without_a_person_a_reason_or_an_end_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="override of 'p'"):
        override(**changes)


USES = st.builds(
    lambda team, slots, start, length: Use(
        team=team, product="p", job_id="j", slots=slots, started_s=start, ended_s=start + length
    ),
    st.sampled_from("ab"),
    st.integers(1, 64),
    st.floats(0, 1e6),
    st.floats(0, 1e6),
)


@given(st.lists(USES, max_size=5), st.floats(0, 3e6), st.floats(1.0, 1e7))
def test_faded_usage_is_bounded_by_what_was_used(uses: list[Use], now_s: float, half_life_s: float) -> None:
    faded = faded_usage(uses, now_s=now_s, half_life_s=half_life_s)
    for team, seconds in faded.items():
        total = sum(u.slots * (u.ended_s - u.started_s) for u in uses if u.team == team)
        assert 0.0 <= seconds <= total * (1 + 1e-6) + 1e-6


def test_usage_halves_in_a_half_life_and_pieces_count_like_the_whole() -> None:
    whole = Use(team="a", product="p", job_id="j", slots=8, started_s=0.0, ended_s=HOUR_S)
    fresh = faded_usage([whole], now_s=HOUR_S, half_life_s=DAY_S)["a"]
    assert faded_usage([whole], now_s=HOUR_S + DAY_S, half_life_s=DAY_S)["a"] == pytest.approx(fresh / 2)
    cut = [
        Use(team="a", product="p", job_id=f"j{i}", slots=8, started_s=i * 360.0, ended_s=(i + 1) * 360.0)
        for i in range(10)
    ]
    assert faded_usage(cut, now_s=HOUR_S, half_life_s=DAY_S)["a"] == pytest.approx(fresh)
