"""Who may start and who makes room, over all small boards that hypothesis finds."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from clearway.devices.sharing import Ask, Held, Rules, free_slots, rank, refusal, reservation, victims

RULES = Rules(slots=10, margin=0.1, min_run_s=600.0, max_yields=2)
NOW_S = 10_000.0


def ask(name: str, slots: int, priority: float = 0.2, **changes: object) -> Ask:
    values = {"task": ("d", "r", "t"), "product": name, "team": "a", "asked_s": 0.0}
    return Ask(id=name, slots=slots, priority=priority, **(values | changes))


def held(name: str, slots: int, priority: float = 0.2, *, since_s: float = 0.0, **changes: object) -> Held:
    return Held(ask=ask(name, slots, priority, **changes), job_id=name, started_s=since_s)


@st.composite
def boards(draw: st.DrawFn) -> tuple[list[Ask], list[Held], set[str]]:
    """What waits, what runs within the ten slots, and who was told to leave."""
    number = st.integers(1, 10)
    common = {"priority": st.sampled_from([0.0, 0.1, 0.3, 0.5, 0.9]), "max_run_s": st.sampled_from([0.0, 5e3, 1e5])}
    running: list[Held] = []
    for index, slots in enumerate(draw(st.lists(number, max_size=6))):
        if slots <= RULES.slots - sum(h.ask.slots for h in running):
            extra = {name: draw(value) for name, value in common.items()}
            extra |= {"is_preemptible": draw(st.booleans()), "num_yields": draw(st.integers(0, 2))}
            since_s = draw(st.sampled_from([0.0, 9_000.0, 9_900.0]))
            running.append(held(f"h{index}", slots, since_s=since_s, **extra))
    asks = [
        ask(f"a{index}", slots, **{name: draw(value) for name, value in common.items()})
        for index, slots in enumerate(draw(st.lists(number, max_size=4)))
    ]
    leaving = {h.job_id for h in running if draw(st.booleans())}
    return asks, running, leaving


@given(boards())
def test_victims_are_enough_and_needed_and_allowed(board: tuple[list[Ask], list[Held], set[str]]) -> None:
    asks, running, leaving = board
    chosen = victims(asks=asks, held=running, leaving=leaving, rules=RULES, now_s=NOW_S)
    if not chosen:
        return
    first = min(asks, key=rank)
    coming = free_slots([h for h in running if h.job_id not in leaving], RULES)
    freed = sum(h.ask.slots for h in chosen)
    assert coming < first.slots <= coming + freed
    for job in chosen:
        assert coming + freed - job.ask.slots < first.slots, "one is not needed"
        assert job.ask.is_preemptible
        assert job.job_id not in leaving, "nobody is asked twice"
        assert job.ask.priority < first.priority
        assert NOW_S - job.started_s >= RULES.min_run_s
        assert job.ask.num_yields < RULES.max_yields


@given(boards(), st.randoms(use_true_random=False))
def test_nobody_else_is_asked_while_victims_leave_one_by_one(board, random) -> None:
    """Every running job decides for itself from the board: their decisions must add up to one."""
    asks, running, leaving = board
    chosen = victims(asks=asks, held=running, leaving=leaving, rules=RULES, now_s=NOW_S)
    todo = list(chosen)
    random.shuffle(todo)
    ordered = set(leaving)
    for job in todo:  # each puts its own order on record, then some of them are gone
        assert job in victims(asks=asks, held=running, leaving=ordered, rules=RULES, now_s=NOW_S)
        ordered.add(job.job_id)
        if random.random() < 0.5:
            running = [h for h in running if h.job_id != job.job_id]
    if chosen:
        assert victims(asks=asks, held=running, leaving=ordered, rules=RULES, now_s=NOW_S) == ()


@given(boards(), st.integers(1, 10), st.sampled_from([0.0, 1e3, 1e5]))
def test_a_start_never_delays_the_protected_job(board, slots: int, max_run_s: float) -> None:
    asks, running, leaving = board
    mine = ask("mine", slots, 0.0, max_run_s=max_run_s, asked_s=1.0)
    if not asks or refusal(mine, asks=asks, held=running, leaving=leaving, rules=RULES, now_s=NOW_S):
        return
    first = min(asks, key=rank)
    board_now = {"leaving": leaving, "rules": RULES, "now_s": NOW_S}
    before_s, _ = reservation(first, held=running, **board_now)
    started = Held(ask=mine, job_id="mine", started_s=NOW_S)
    after_s, _ = reservation(first, held=[*running, started], **board_now)
    assert slots <= free_slots(running, RULES)
    assert after_s <= before_s


def test_the_first_in_line_starts_as_soon_as_it_fits() -> None:
    gang, small = ask("gang", 7, 0.9), ask("small", 4)
    board = {"asks": [gang, small], "leaving": set(), "rules": RULES, "now_s": NOW_S}
    assert refusal(gang, held=[held("h", 3)], **board) == ""
    assert "4 free" in refusal(gang, held=[held("h", 6)], **board)
    assert "would delay gang" in refusal(small, held=[held("h", 6)], **board)


def test_gaps_are_filled_by_jobs_that_end_in_time() -> None:
    gang = ask("gang", 7, 0.9)
    board = {"asks": [gang], "leaving": set(), "rules": RULES, "now_s": NOW_S}
    bounded = [held("h", 6, since_s=NOW_S - 1_000.0, max_run_s=3_000.0)]
    assert refusal(ask("short", 4, max_run_s=2_000.0), held=bounded, **board) == ""
    assert "would delay" in refusal(ask("long", 4, max_run_s=2_001.0), held=bounded, **board)
    assert "would delay" in refusal(ask("unknown", 4), held=bounded, **board)
    assert refusal(ask("beside", 3), held=bounded, **board) == "", "it fits beside the gang"
    assert "would delay" in refusal(ask("short", 4, max_run_s=1.0), held=[held("h", 6)], **board), "no end is known"
    leaving = board | {"leaving": {"h"}}
    assert "would delay" in refusal(ask("short", 4, max_run_s=1.0), held=bounded, **leaving)


def test_the_least_urgent_and_youngest_make_room_and_no_more_than_needed() -> None:
    running = [
        held("old", 3, 0.1, is_preemptible=True),
        held("young", 3, 0.1, since_s=9_000.0, is_preemptible=True),
        held("urgent", 4, 0.85, is_preemptible=True),
    ]
    board = {"held": running, "leaving": set(), "rules": RULES, "now_s": NOW_S}

    def names(wanted: Ask) -> list[str]:
        return [h.job_id for h in victims(asks=[wanted], **board)]

    assert names(ask("g", 3, 0.9)) == ["young"]
    assert names(ask("g", 6, 0.9)) == ["young", "old"]
    assert names(ask("g", 7, 0.9)) == [], "all that are needed, or none"
    assert names(ask("g", 3, 0.15)) == [], "not urgent enough"
    stubborn = [replace(h, ask=replace(h.ask, num_yields=RULES.max_yields)) for h in running]
    assert victims(asks=[ask("g", 3, 0.9)], **(board | {"held": stubborn})) == ()
