import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clearway.contracts.verdict import Check, Verdict, at_least, at_most, judge, worst

VERDICTS = st.lists(st.sampled_from(Verdict))
FINITE = st.floats(allow_nan=False, allow_infinity=False)


def check(verdict: Verdict, *, is_decisive: bool = True, name: str = "c") -> Check:
    return Check(name=name, verdict=verdict, reason=f"says {verdict}", is_decisive=is_decisive)


@pytest.mark.parametrize(
    ("verdicts", "expected"),
    [
        ([], Verdict.ERROR),
        ([Verdict.PASS], Verdict.PASS),
        ([Verdict.PASS, Verdict.INCONCLUSIVE], Verdict.INCONCLUSIVE),
        ([Verdict.INCONCLUSIVE, Verdict.FAIL, Verdict.PASS], Verdict.FAIL),
        ([Verdict.FAIL, Verdict.ERROR], Verdict.ERROR),
    ],
)
def test_the_worst_verdict_wins_and_none_is_an_error(verdicts: list[Verdict], expected: Verdict) -> None:
    assert worst(verdicts) is expected


@given(VERDICTS, VERDICTS)
def test_the_worst_of_a_whole_is_the_worst_of_its_parts(left: list[Verdict], right: list[Verdict]) -> None:
    parts = [worst(part) for part in (left, right) if part]
    assert worst(left + right) is (worst(parts) if parts else Verdict.ERROR)


@given(VERDICTS)
def test_only_all_passes_make_a_pass(verdicts: list[Verdict]) -> None:
    is_pass = bool(verdicts) and set(verdicts) == {Verdict.PASS}
    assert (worst(verdicts) is Verdict.PASS) is is_pass


def test_a_dry_run_check_is_kept_but_never_counts() -> None:
    judgement = judge([check(Verdict.PASS), check(Verdict.FAIL, is_decisive=False, name="dry")])
    assert judgement.verdict is Verdict.PASS
    assert [c.name for c in judgement.checks] == ["c", "dry"]
    assert judgement.reasons == ()


def test_dry_run_checks_alone_decide_nothing() -> None:
    assert judge([check(Verdict.PASS, is_decisive=False)]).verdict is Verdict.ERROR


def test_reasons_name_what_did_not_pass_worst_first() -> None:
    judgement = judge([check(Verdict.INCONCLUSIVE, name="b"), check(Verdict.PASS), check(Verdict.FAIL, name="a")])
    assert judgement.reasons == ("a: says fail", "b: says inconclusive")


@given(FINITE, FINITE)
def test_a_bound_holds_exactly_when_the_comparison_does(value: float, bound: float) -> None:
    assert (at_least("x", value, bound).verdict is Verdict.PASS) is (value >= bound)
    assert (at_most("x", value, bound).verdict is Verdict.PASS) is (value <= bound)


@pytest.mark.parametrize("value", [None, math.nan, math.inf, -math.inf], ids=str)
@pytest.mark.parametrize("compare", [at_least, at_most])
def test_what_is_no_number_is_an_error_on_either_side(compare: object, value: float | None) -> None:
    assert callable(compare)
    for found in [compare("x", value, 0.5), *([compare("x", 0.5, value)] if value is not None else [])]:
        assert found.verdict is Verdict.ERROR
        assert "could not be measured" in found.reason


def test_the_reason_shows_value_bound_and_advice() -> None:
    assert at_least("auc", 0.61, 0.7, reason="train longer").reason == "0.61 >= 0.7 does not hold; train longer"
