"""A version that has all the callers: what convicts it, what clears it, and how often a healthy one is convicted."""

import dataclasses
import json
import math

import numpy as np
import pytest

from clearway.contracts.codec import from_jsonable, to_jsonable
from clearway.contracts.errors import ConfigError
from clearway.contracts.observed import ArmCounts, Observed
from clearway.contracts.verdict import Judgement, Verdict
from clearway.evidence import two_rates
from clearway.evidence.engine import Kind
from clearway.evidence.slo import Objective, Rules, State, begin, e_value, look

ERRORS = Objective(kind=Kind.ERRORS, limit=0.02)
SLOW = Objective(kind=Kind.SLOW, limit=0.05, above_s=0.1)
RULES = Rules(alpha=0.01, objectives=(ERRORS, SLOW))


def seen(at_s: float, num: int, *, errors: int = 0, slow: int = 0, **changes) -> Observed:
    arm = ArmCounts(
        num_requests=num, num_errors=errors, latencies=(num - slow, 0, slow), num_scores=0, score_sum=0.0,
        score_square_sum=0.0,
    )  # fmt: skip
    found = Observed(server_id="one", at_s=at_s, epoch=3, latency_bounds_s=(0.01, 0.1), arms={"new": arm})
    return dataclasses.replace(found, **changes)


def looked(state: State, observed: Observed, *, min_requests: int = 100, rules: Rules = RULES):
    found = look(rules, state, observed, version="new", epoch=3, now_s=observed.at_s, min_requests=min_requests)
    return found.state, found.judgement


def started(**changes) -> State:
    return looked(State(), seen(1.0, 0, **changes))[0]


def reasons(judgement: Judgement) -> str:
    return " ".join(judgement.reasons)


@pytest.mark.parametrize(
    ("counts", "expected", "says"),
    [
        ({"num": 1_000, "errors": 10, "slow": 30}, Verdict.PASS, ""),
        ({"num": 1_000, "errors": 60}, Verdict.FAIL, "errors: limit exceeded: 6.00% of 1000, allowed 2.00%"),
        ({"num": 1_000, "slow": 120}, Verdict.FAIL, "slow: limit exceeded"),
        ({"num": 1_000, "errors": 25}, Verdict.INCONCLUSIVE, "not within its limit, and not shown to exceed it"),
        ({"num": 99}, Verdict.INCONCLUSIVE, "too little traffic: 99 requests, 100 are asked for"),
        ({"num": 0}, Verdict.INCONCLUSIVE, "too little traffic"),
    ],
)
def test_what_counts_say(counts: dict[str, int], expected: Verdict, says: str) -> None:
    _, judgement = looked(started(), seen(2.0, **counts))
    assert judgement.verdict is expected
    assert says in reasons(judgement)


def test_what_came_before_the_watch_is_not_counted() -> None:
    state, _ = looked(State(), seen(1.0, 1_000, errors=500))
    state, judgement = looked(state, seen(2.0, 1_500, errors=505))
    assert (judgement.verdict, state.num_requests) == (Verdict.PASS, 500)
    state, _ = looked(begin(state), seen(9.0, 9_000, errors=4_000))
    assert state.num_requests == 500


@pytest.mark.parametrize(
    "changes",
    [{"epoch": 2}, {"server_id": "two"}, {"arms": {}}, {"latency_bounds_s": ()}],
    ids=["another epoch", "another process", "no counts", "no histogram"],
)
def test_a_reading_that_cannot_be_trusted_clears_nobody(changes) -> None:
    _, judgement = looked(started(), seen(2.0, 1_000, **changes))
    assert judgement.verdict is Verdict.INCONCLUSIVE


def test_counters_that_fall_need_a_person_from_then_on() -> None:
    state, _ = looked(started(), seen(2.0, 1_000))
    state, _ = looked(state, seen(3.0, 900))
    state, judgement = looked(state, seen(4.0, 5_000))
    assert judgement.verdict is Verdict.INCONCLUSIVE
    assert "not trusted any more" in reasons(judgement)


def test_the_e_value_is_the_mixture_of_likelihood_ratios() -> None:
    state, _ = looked(started(), seen(2.0, 200, errors=9))
    expected = []
    for odds in two_rates.ODDS_RATIOS:
        worse = 0.02 * odds / (0.98 + 0.02 * odds)
        expected.append((worse / 0.02) ** 9 * ((1 - worse) / 0.98) ** 191)
    assert e_value(state.tallies[0]) == pytest.approx(math.fsum(expected) / len(expected))


def test_the_state_survives_json_and_looks_may_be_cut_anywhere() -> None:
    state, at_once = started(), looked(started(), seen(9.0, 900, errors=30))[0]
    for i in range(1, 10):
        stored = json.loads(json.dumps(to_jsonable(state)))
        state, _ = looked(from_jsonable(State, stored), seen(1.0 + i, 100 * i, errors=30 * i // 9))
    assert e_value(state.tallies[0]) == pytest.approx(e_value(at_once.tallies[0]))


def test_a_version_at_its_limit_is_rarely_convicted_however_often_it_is_looked_at() -> None:
    """200 versions exactly at both limits, 50 looks of 40 requests; at alpha 5 %, 22 or more have chance 0.05 %."""
    draw, num_failed = np.random.default_rng(7), 0
    rules = dataclasses.replace(RULES, alpha=0.05)
    for _ in range(200):
        errors, slow = (np.cumsum(draw.binomial(40, rate, 50)) for rate in (0.02, 0.05))
        state = started()
        for i in range(50):
            observed = seen(2.0 + i, 40 * (i + 1), errors=int(errors[i]), slow=int(slow[i]))
            state, judgement = looked(state, observed, rules=rules)
            if judgement.verdict is Verdict.FAIL:
                num_failed += 1
                break
    assert num_failed <= 21


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"objectives": ()}, "at least one objective"),
        ({"alpha": 0.0}, "no error rate"),
        ({"objectives": (Objective(kind=Kind.SCORE, limit=0.1),)}, "'score' has no limit"),
        ({"objectives": (Objective(kind=Kind.ERRORS, limit=1.0),)}, "limit 1.0 of errors"),
    ],
)
def test_rules_that_make_no_sense_are_refused(wrong, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        looked(State(), seen(1.0, 0), rules=dataclasses.replace(RULES, **wrong))
