"""The priority formula: bounded, monotone in each factor, the same every time, and never NaN."""

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clearway.contracts.errors import ConfigError
from clearway.devices.priority import (
    MAX_WEIGHT,
    Factors,
    priority,
    share_factor,
    tier_factor,
    urgency,
    weight,
)

SHARE = st.floats(0, 1)
FACTORS = st.builds(Factors, tier=SHARE, urgency=SHARE, share=SHARE, override=st.floats(-1, 1))
USAGE = st.dictionaries(st.sampled_from("abcd"), st.floats(0, 1e12))
SHARES = st.dictionaries(st.sampled_from("abcd"), st.floats(0.01, 1e6))


@given(FACTORS)
def test_a_priority_is_bounded_and_the_same_every_time(factors: Factors) -> None:
    value = priority(factors)
    assert 0.0 <= value <= 1.0
    assert priority(factors) == value
    assert 1 <= weight(value) <= MAX_WEIGHT + 1


@given(FACTORS, st.sampled_from(["tier", "urgency", "share", "override"]), SHARE)
def test_a_priority_never_falls_when_a_factor_rises(factors: Factors, name: str, rise: float) -> None:
    before = getattr(factors, name)
    more = replace(factors, **{name: before + rise * (1.0 - before)})
    assert priority(more) >= priority(factors)
    assert weight(priority(more)) >= weight(priority(factors))


def test_each_factor_counts_as_documented() -> None:
    nothing = Factors(tier=0, urgency=0, share=0)
    assert priority(nothing) == 0
    assert [priority(replace(nothing, **{name: 1.0})) for name in ("tier", "urgency", "share", "override")] == [
        0.5,
        0.25,
        0.25,
        1.0,
    ]


@pytest.mark.parametrize("name", ["tier", "urgency", "share", "override"])
@pytest.mark.parametrize("value", [math.nan, math.inf, 1.01, -1.01])
def test_a_factor_out_of_range_is_refused_by_name(name: str, value: float) -> None:
    with pytest.raises(ConfigError, match=name):
        Factors(**({"tier": 0.0, "urgency": 0.0, "share": 0.0} | {name: value}))


@given(USAGE, SHARES, st.sampled_from("abcde"))
def test_a_share_factor_is_bounded(usage: dict[str, float], shares: dict[str, float], team: str) -> None:
    assert 0.0 <= share_factor(team, usage=usage, shares=shares) <= 1.0


@given(USAGE, SHARES, st.sampled_from("abcd"), st.floats(0, 1e9))
def test_who_used_more_has_no_larger_share_factor(
    usage: dict[str, float], shares: dict[str, float], team: str, more: float
) -> None:
    # Both sides name the same teams: a team that appears is due its own part.
    before = usage | {team: usage.get(team, 0.0)}
    after = before | {team: before[team] + more}
    if sum(before.values()) > 0:
        assert share_factor(team, usage=after, shares=shares) <= share_factor(team, usage=before, shares=shares) + 1e-12


def test_a_team_at_its_due_has_half() -> None:
    usage, shares = {"a": 40.0, "b": 60.0}, {"a": 40, "b": 60}
    assert share_factor("a", usage=usage, shares=shares) == pytest.approx(0.5)
    assert share_factor("new", usage={}, shares={}) == 1.0


def test_urgency_rises_over_the_last_day() -> None:
    day_s = 86_400.0
    assert [urgency(slack_s=s) for s in (math.inf, day_s, day_s / 2, 0.0, -5.0)] == [0.0, 0.0, 0.5, 1.0, 1.0]


def test_a_tier_nobody_defined_is_refused() -> None:
    assert tier_factor("low") < tier_factor("medium") < tier_factor("high")
    with pytest.raises(ConfigError, match="'huge'"):
        tier_factor("huge")
