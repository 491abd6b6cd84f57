"""From suite results to checks; pure.

Great Expectations counts what it evaluated and calls an empty set a success; in released versions results have gone
missing and exceptions have passed as success. So every expectation is looked up by its own id, and what is missing,
raised, looked at no value or without a plain yes or no is an error, never a pass.
"""

from collections.abc import Sequence
from typing import Any

from clearway.contracts.verdict import Check, Verdict
from clearway.product import Expectation


def checks_of(
    expectations: Sequence[Expectation], ids: Sequence[str], results: Sequence[dict[str, Any]]
) -> tuple[Check, ...]:
    """One check per declared expectation, plus one on the set as a whole; pure.

    Args: results: dicts with `id`, `success`, `exceptions` (texts) and `result`.
    """
    by_id = {r["id"]: r for r in results}
    num_matched = len(set(ids) & set(by_id))
    is_complete = 0 < len(expectations) == len(ids) == len(results) == num_matched
    counted = Check(
        name="suite_complete",
        verdict=Verdict.PASS if is_complete else Verdict.ERROR,
        value=float(len(results)),
        bound=float(len(expectations)),
        reason=f"{len(results)} results for {len(expectations)} expectations, {num_matched} with a known id",
    )
    found = (_check(i, e, by_id.get(x)) for i, (e, x) in enumerate(zip(expectations, ids, strict=False)))
    return (counted, *found)


def _check(index: int, expectation: Expectation, result: dict[str, Any] | None) -> Check:
    target = expectation.args.get("column") or expectation.args.get("column_list") or "table"
    name = f"expect[{index}]_{expectation.expect}[{target}]"
    if result is None:
        return Check(
            name=name, verdict=Verdict.ERROR, reason="no result came back for it; a check that did not run is no pass"
        )
    if result["exceptions"]:
        return Check(name=name, verdict=Verdict.ERROR, reason=f"raised instead of answering: {result['exceptions'][0]}")
    if not isinstance(result["success"], bool):
        return Check(name=name, verdict=Verdict.ERROR, reason=f"answered {result['success']!r}, neither yes nor no")
    if _saw_nothing(result["result"]):
        return Check(name=name, verdict=Verdict.ERROR, reason="saw no value at all; a check of nothing is no pass")
    value, text = _observed(result["result"])
    verdict = Verdict.PASS if result["success"] else Verdict.FAIL
    return Check(name=name, verdict=verdict, value=value, reason=f"{_arguments(expectation)}: {text}")


def _arguments(expectation: Expectation) -> str:
    return ", ".join(f"{k} {v}" for k, v in expectation.args.items() if k != "column") or expectation.expect


def _saw_nothing(result: dict[str, Any]) -> bool:
    """Whether every row lacked a value. Great Expectations calls that a success for rules about single values."""
    if "observed_value" in result:
        return result["observed_value"] is None
    return "element_count" in result and (result["element_count"] or 0) - (result.get("missing_count") or 0) <= 0


def _observed(result: dict[str, Any]) -> tuple[float | None, str]:
    if isinstance(result.get("observed_value"), (int, float)):
        return float(result["observed_value"]), f"observed {result['observed_value']:.6g}"
    if "unexpected_count" in result:
        rows, missing = result.get("element_count", 0), result.get("missing_count") or 0
        return float(result["unexpected_count"]), f"{result['unexpected_count']} unexpected of {rows - missing} values"
    return None, f"observed {result.get('observed_value')}"
