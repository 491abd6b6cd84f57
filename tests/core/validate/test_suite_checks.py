"""A suite result that is missing, raised, foreign or vague is never a pass."""

from typing import Any

import pytest

from clearway.contracts.verdict import Verdict, judge
from clearway.product import Expectation
from clearway.validate.suite_checks import checks_of

SUITE = (
    Expectation(expect="column_values_to_not_be_null", args={"column": "temp"}),
    Expectation(expect="table_row_count_to_be_between", args={"min_value": 1}),
)
IDS = ("a", "b")


def _result(x: str, *, success: Any = True, exceptions: tuple[str, ...] = (), **result: Any) -> dict[str, Any]:
    return {"id": x, "success": success, "exceptions": list(exceptions), "result": result}


def test_one_check_per_expectation_and_one_for_the_set() -> None:
    checks = checks_of(SUITE, IDS, [_result("b", observed_value=7), _result("a", unexpected_count=0, element_count=9)])
    assert [c.name for c in checks] == [
        "suite_complete",
        "expect[0]_column_values_to_not_be_null[temp]",
        "expect[1]_table_row_count_to_be_between[table]",
    ]
    assert judge(checks).verdict is Verdict.PASS
    assert [c.value for c in checks] == [2.0, 0.0, 7.0]


@pytest.mark.parametrize(
    ("results", "verdict"),
    [
        pytest.param([_result("a"), _result("b", success=False)], Verdict.FAIL, id="one expectation fails"),
        pytest.param([_result("a")], Verdict.ERROR, id="one result dropped"),
        pytest.param([], Verdict.ERROR, id="no result at all"),
        pytest.param([_result("a"), _result("a")], Verdict.ERROR, id="one result twice, one missing"),
        pytest.param([_result("a"), _result("x")], Verdict.ERROR, id="result of another expectation"),
        pytest.param([_result("a"), _result("b"), _result("x")], Verdict.ERROR, id="one result too many"),
        pytest.param([_result("a"), _result("b", exceptions=("boom",))], Verdict.ERROR, id="raised, yet success"),
        pytest.param([_result("a"), _result("b", success=False, exceptions=("boom",))], Verdict.ERROR, id="raised"),
        pytest.param([_result("a"), _result("b", success=None)], Verdict.ERROR, id="neither yes nor no"),
        pytest.param([_result("a"), _result("b", success="True")], Verdict.ERROR, id="text instead of yes"),
        pytest.param([_result("a"), _result("b", success=float("nan"))], Verdict.ERROR, id="NaN instead of yes"),
    ],
)
def test_what_is_not_a_plain_yes_is_no_pass(results: list[dict[str, Any]], verdict: Verdict) -> None:
    assert judge(checks_of(SUITE, IDS, results)).verdict is verdict


def test_an_empty_suite_is_an_error() -> None:
    assert judge(checks_of((), (), [])).verdict is Verdict.ERROR


def test_ids_that_were_lost_or_doubled_are_an_error() -> None:
    assert judge(checks_of(SUITE, ("a",), [_result("a")])).verdict is Verdict.ERROR
    assert judge(checks_of(SUITE, ("a", "a"), [_result("a"), _result("a")])).verdict is Verdict.ERROR


def test_a_failure_says_how_much_was_unexpected() -> None:
    failed = _result("a", success=False, unexpected_count=3, element_count=10, missing_count=2)
    check = checks_of(SUITE[:1], ("a",), [failed])[1]
    assert (check.verdict, check.value) == (Verdict.FAIL, 3.0)
    assert "3 unexpected of 8 values" in check.reason
