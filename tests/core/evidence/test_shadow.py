"""Rows that both versions answered: which are counted, which are refused, and what they show, per slice."""

import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clearway.contracts.codec import from_jsonable, to_jsonable
from clearway.contracts.errors import ConfigError
from clearway.contracts.observed import Mirrored, MirroredRow
from clearway.contracts.verdict import Judgement, Verdict
from clearway.evidence.shadow import ALL, Direction, Group, Looked, Rules, State, look

LOSSES = Rules(alpha=0.01, beta=0.05, direction=Direction.WORSE, margin=0.02)
SHIFTS = dataclasses.replace(LOSSES, direction=Direction.SHIFTED)


def rows(*differences: float | None, slices: tuple[str, ...] = ()) -> tuple[MirroredRow, ...]:
    return tuple(MirroredRow(difference=x, slices=slices) for x in differences)


def noise(num: int, mean: float = 0.0, *, seed: int = 1, slices: tuple[str, ...] = ()) -> tuple[MirroredRow, ...]:
    return rows(*np.random.default_rng(seed).normal(mean, 0.05, num).clip(-1, 1).tolist(), slices=slices)


def batch(what: tuple[MirroredRow, ...], **changes) -> Mirrored:
    made = Mirrored(log_id="one", first=0, at_s=100.0, epoch=3, candidate="new", control="old", rows=what)
    return dataclasses.replace(made, **changes)


def looked(state: State, what: Mirrored, rules: Rules = LOSSES, *, min_rows: int = 10, now_s: float = 100.0) -> Looked:
    return look(rules, state, what, candidate="new", control="old", epoch=3, now_s=now_s, min_rows=min_rows)


def verdict(what: tuple[MirroredRow, ...], rules: Rules = LOSSES) -> Verdict:
    return looked(State(), batch(what), rules).judgement.verdict


def reasons(judgement: Judgement) -> str:
    return " ".join(check.reason for check in judgement.checks)


@pytest.mark.parametrize(
    ("rules", "mean", "expected"),
    [
        (LOSSES, 0.0, Verdict.PASS),
        (LOSSES, -0.1, Verdict.PASS),
        (LOSSES, 0.05, Verdict.FAIL),
        (SHIFTS, 0.0, Verdict.PASS),
        (SHIFTS, 0.05, Verdict.FAIL),
        (SHIFTS, -0.05, Verdict.FAIL),
    ],
)
def test_what_rows_show(rules: Rules, mean: float, expected: Verdict) -> None:
    assert verdict(noise(2_000, mean), rules) is expected


def test_rows_that_came_before_are_named_and_none_are_no_fault() -> None:
    found = looked(State(), batch(noise(2_000)))
    assert looked(found.state, batch((), first=2_000)) == found
    again = looked(found.state, batch(noise(2_000)))
    assert again.state == found.state
    assert "came twice" in reasons(again.judgement)


def test_what_is_tolerated_is_no_harm() -> None:
    slightly = noise(20_000, 0.004)
    assert verdict(slightly) is Verdict.FAIL
    assert verdict(slightly, dataclasses.replace(LOSSES, tolerated=0.01)) is Verdict.PASS


def test_no_rows_and_few_rows_are_no_pass() -> None:
    assert verdict(()) is Verdict.INCONCLUSIVE
    found = looked(State(), batch(noise(2_000)), min_rows=2_001).judgement
    assert found.verdict is Verdict.INCONCLUSIVE
    assert "too few rows: 2000, 2001 are asked for" in reasons(found)


def test_rows_the_candidate_cannot_answer_count_against_it() -> None:
    assert verdict((*noise(2_000), *rows(*(None,) * 200))) is Verdict.FAIL


def test_harm_in_a_slice_is_found_and_named() -> None:
    rules = dataclasses.replace(LOSSES, groups=(Group(name=ALL), Group(name="JFK"), Group(name="LGA")))
    mixed = (*noise(5_000, -0.03, slices=("LGA",)), *noise(500, 0.05, seed=2, slices=("JFK",)))
    found = looked(State(), batch(mixed), rules).judgement
    assert {c.name: c.verdict for c in found.checks} == {
        "all rows": Verdict.PASS, "slice[JFK]": Verdict.FAIL, "slice[LGA]": Verdict.PASS
    }  # fmt: skip
    assert found.verdict is Verdict.FAIL
    dry = dataclasses.replace(rules, groups=(Group(name=ALL), Group(name="JFK", is_decisive=False)))
    assert looked(State(), batch(mixed), dry).judgement.verdict is Verdict.PASS


def test_harm_once_shown_stays_shown() -> None:
    state = looked(State(), batch(noise(300, 0.1))).state
    assert looked(state, batch(noise(5_000, -0.1), first=300)).judgement.verdict is Verdict.FAIL


REFUSED = {
    "another epoch": ({"epoch": 2}, "epoch 2"),
    "another candidate": ({"candidate": "older"}, "answered by older"),
    "another control": ({"control": "older"}, "and older"),
    "too old": ({"at_s": 10.0}, "90 s old"),
    "no time": ({"at_s": float("nan")}, "old"),
    "a gap": ({"first": 7}, "rows 0 to 6 of one are missing"),
    "NaN": ({"rows": rows(0.0, float("nan"))}, "not within"),
    "infinite": ({"rows": rows(0.0, float("inf"))}, "not within"),
    "too large": ({"rows": rows(0.0, 1.5)}, "not within"),
    "before the first row": ({"first": -1}, "below 0"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_rows_are_named_and_not_counted(name: str) -> None:
    changes, reason = REFUSED[name]
    found = looked(State(), batch(noise(2_000), **changes))
    assert found.judgement.verdict is Verdict.INCONCLUSIVE
    assert reason in reasons(found.judgement)
    assert found.state.tallies[0].band.num == 0
    assert found.state.next_row == {}


def test_nonsense_clears_nobody_any_more_but_can_still_convict() -> None:
    state = looked(State(), batch(rows(2.0))).state
    found = looked(state, batch(noise(2_000)))
    assert found.judgement.verdict is Verdict.INCONCLUSIVE
    assert "not trusted any more" in reasons(found.judgement)
    assert looked(state, batch(noise(2_000, 0.1))).judgement.verdict is Verdict.FAIL


@given(st.lists(st.tuples(st.integers(0, 11), st.integers(1, 6), st.sampled_from("ab")), max_size=20))
def test_rows_delivered_again_in_any_order_are_counted_once(deliveries: list[tuple[int, int, str]]) -> None:
    """Pieces of two logs of 12 rows, repeated and overlapping, then both logs whole: as if each had come once."""
    logs = {"a": noise(12, seed=1), "b": noise(12, 0.1, seed=2)}
    state = State()
    for first, num, name in [*deliveries, (0, 12, "a"), (0, 12, "b")]:
        piece = batch(logs[name][first : first + num], log_id=name, first=first)
        state = from_jsonable(State, json.loads(json.dumps(to_jsonable(state), allow_nan=False)))
        state = looked(state, piece).state
    once = looked(looked(State(), batch(logs["a"], log_id="a")).state, batch(logs["b"], log_id="b")).state
    assert state.next_row == once.next_row
    assert state.tallies[0].harm_above == pytest.approx(once.tallies[0].harm_above, abs=1e-9)
    assert state.tallies[0].band.num == 24


@pytest.mark.parametrize(
    "wrong",
    [
        {"alpha": 0.0},
        {"beta": 1.0},
        {"margin": float("nan")},
        {"tolerated": 0.5},
        {"groups": ()},
        {"groups": (Group(name=ALL), Group(name=ALL))},
        {"groups": (Group(name=ALL, is_decisive=False),)},
    ],
    ids=str,
)
def test_rules_that_decide_nothing_are_refused(wrong: dict) -> None:
    with pytest.raises(ConfigError):
        looked(State(), batch(noise(10)), dataclasses.replace(LOSSES, **wrong))


@pytest.mark.parametrize("rules", [LOSSES, SHIFTS], ids=["worse", "shifted"])
def test_error_rates_hold_under_repeated_looks(rules: Rules) -> None:
    """200 streams of 20 looks at the edge of each hypothesis: at most 7 alarms at 1 %, at most 18 passes at 5 %."""
    rng, edge = np.random.default_rng(9), rules.margin if rules.direction is Direction.SHIFTED else rules.tolerated
    alarms = passes = 0
    for _ in range(200):
        harmless, harmful = State(), State()
        found = {Verdict.FAIL: False, Verdict.PASS: False}
        for i in range(20):
            new = rng.normal(0, 0.05, 25)
            one = looked(harmless, batch(rows(*(new + edge).tolist()), first=25 * i), rules)
            other = looked(harmful, batch(rows(*(new + rules.margin).tolist()), first=25 * i), rules)
            harmless, harmful = one.state, other.state
            found[Verdict.FAIL] |= one.judgement.verdict is Verdict.FAIL
            found[Verdict.PASS] |= other.state.tallies[0].is_safe
        alarms, passes = alarms + found[Verdict.FAIL], passes + found[Verdict.PASS]
    assert alarms <= 7
    assert passes <= 18
