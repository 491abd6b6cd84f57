"""The decision table of every gate: what passes, what fails, what stays open, and that no NaN ever passes."""

import dataclasses
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clearway.contracts.verdict import Verdict
from clearway.evaluate.evidence import CANDIDATE, CHAMPION, LINE, TREES, Comparison, Evidence, Figures
from clearway.evaluate.gates import Case, floor_of, judge_model, non_inferior
from clearway.evaluate.margins import Margins
from clearway.evaluate.slices import SliceFigures
from clearway.measures.resample import Interval
from clearway.product import Features, Gates

MARGINS = Margins(
    skill_floor=0.05,
    logloss=0.015,
    auc=0.02,
    line_slack=0.006,
    slice_auc=0.09,
    slice_calibration=0.10,
    slice_logloss=0.03,
)
FEATURES = Features(
    function="features.py:build", key="key", time="t", lookback_days=0, numeric=("a", "b"), deny=("outcome",)
)
GATES = Gates(auc_floor=0.70, auc_ceiling=0.85)
SOUND = Figures(auc=0.76, average_precision=0.5, logloss=0.45, skill=0.15, brier=0.15, ece=0.02, calibration_gap=0.01)
SLICE = SliceFigures(
    name="origin=JFK",
    num_rows=900,
    num_positives=200,
    auc=0.75,
    auc_gap=-0.01,
    auc_lag=0.005,
    calibration_gap=0.01,
    calibration_excess=0.01,
    logloss=0.45,
    logloss_excess=0.001,
    is_gated=True,
)


def _interval(estimate: float, half: float = 0.004) -> Interval:
    return Interval(
        estimate=estimate, lower=estimate - half, upper=estimate + half, standard_error=half / 1.65, num_days=14
    )


def _comparison(
    other: str, *, logloss: float = 0.0, auc: float = 0.0, half: float = 0.004, **changes: Any
) -> Comparison:
    return Comparison(
        other=other,
        num_rows=12_000,
        num_days=14,
        auc_other=changes.get("auc_other", 0.76),
        logloss_other=0.45,
        auc=_interval(auc, half),
        logloss=_interval(logloss, half),
    )


def _case(**changes: Any) -> Case:
    """A sound candidate against a sound champion; `changes` replace parts."""
    figures = {CANDIDATE: SOUND, TREES: SOUND, LINE: SOUND} | changes.pop("figures", {})
    pairs = {n: _comparison(n) for n in (CHAMPION, TREES)} | {LINE: _comparison(LINE, auc=0.02)}
    pairs |= changes.pop("comparisons", {})
    evidence = Evidence(
        num_rows=12_000,
        num_days=changes.pop("num_days", 14),
        num_positives=3_000,
        figures=figures,
        comparisons={k: v for k, v in pairs.items() if v is not None},
        slices=changes.pop("slices", (SLICE,)),
    )
    options = {"margins": MARGINS, "gates": GATES, "features": FEATURES, "has_champion": True, "schema": ("a", "b")}
    return Case(evidence=evidence, **(options | changes))


def _not_passed(case: Case) -> dict[str, Verdict]:
    return {c.name: c.verdict for c in judge_model(case).checks if c.is_decisive and c.verdict is not Verdict.PASS}


def test_a_sound_candidate_passes_everything() -> None:
    judgement = judge_model(_case())
    assert judgement.verdict is Verdict.PASS
    assert len(judgement.checks) == 16


def _with(**changes: float) -> dict[str, Any]:
    return {"figures": {CANDIDATE: dataclasses.replace(SOUND, **changes)}}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        pytest.param(_with(auc=0.69), {"auc_floor": "fail"}, id="below the floor"),
        pytest.param(_with(auc=0.86), {"auc_ceiling": "fail"}, id="too good to be true"),
        pytest.param(_with(skill=0.04), {"logloss_skill": "fail"}, id="no skill"),
        pytest.param(_with(ece=0.11), {"ece": "fail"}, id="not calibrated"),
        pytest.param(
            {"schema": ("a", "b", "outcome")}, {"columns_denied": "fail", "columns_declared": "fail"}, id="denied"
        ),
        pytest.param({"schema": ("a",)}, {"columns_declared": "fail"}, id="declared column unused"),
        pytest.param({"num_days": 4}, {"holdout_days": "inconclusive"}, id="too few days"),
        pytest.param(
            {"comparisons": {CHAMPION: _comparison(CHAMPION, auc=0.09)}}, {"auc_jump": "fail"}, id="jump over champion"
        ),
        pytest.param(
            {"comparisons": {CHAMPION: _comparison(CHAMPION, auc=0.09, auc_other=0.6)}}, {}, id="jump over a broken one"
        ),
        pytest.param(
            {"comparisons": {CHAMPION: _comparison(CHAMPION, logloss=0.02)}},
            {"not_worse_logloss[champion]": "fail"},
            id="worse than the champion",
        ),
        pytest.param(
            {"comparisons": {CHAMPION: _comparison(CHAMPION, logloss=0.013)}},
            {"not_worse_logloss[champion]": "inconclusive"},
            id="perhaps worse than the champion",
        ),
        pytest.param(
            {"comparisons": {TREES: _comparison(TREES, auc=-0.03)}},
            {"not_worse_auc[trees]": "fail"},
            id="worse than trees",
        ),
        pytest.param(
            {"comparisons": {TREES: _comparison(TREES, auc=-0.018)}},
            {"not_worse_auc[trees]": "inconclusive"},
            id="perhaps worse than trees",
        ),
        pytest.param({"comparisons": {TREES: None}}, {"not_worse_logloss[trees]": "error"}, id="trees not compared"),
        pytest.param({"comparisons": {LINE: None}}, {"auc_over_line": "error"}, id="line not compared"),
        pytest.param(
            {"comparisons": {LINE: _comparison(LINE, auc=-0.01)}}, {"auc_over_line": "fail"}, id="worse than a line"
        ),
        pytest.param(
            {"comparisons": {CHAMPION: None}}, {"champion_comparable": "inconclusive"}, id="champion saw it all"
        ),
        pytest.param(
            {"comparisons": {CHAMPION: None}, "has_champion": False}, {}, id="first model, other gates decide"
        ),
        pytest.param(
            {
                "comparisons": {CHAMPION: None},
                "has_champion": False,
                "gates": GATES.model_copy(update={"first_model": "person"}),
            },
            {"first_model": "inconclusive"},
            id="first model, a person decides",
        ),
    ],
)
def test_each_gate_on_its_own(changes: dict[str, Any], expected: dict[str, str]) -> None:
    assert {k: v.value for k, v in _not_passed(_case(**changes)).items()} == expected


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"auc_lag": 0.10}, "slice_auc[origin=JFK]"),
        ({"calibration_excess": 0.11}, "slice_calibration[origin=JFK]"),
        ({"logloss_excess": 0.031}, "slice_logloss[origin=JFK]"),
    ],
)
def test_a_slice_hidden_by_the_mean_fails_unless_it_is_small(change: dict[str, float], name: str) -> None:
    broken = dataclasses.replace(SLICE, **change)
    assert _not_passed(_case(slices=(SLICE, broken))) == {name: Verdict.FAIL}
    assert _not_passed(_case(slices=(SLICE, dataclasses.replace(broken, is_gated=False)))) == {}


@pytest.mark.parametrize("field", ["auc", "skill", "ece"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_figure_that_is_no_number_never_passes(field: str, value: float) -> None:
    assert Verdict.ERROR in _not_passed(_case(**_with(**{field: value}))).values()


@given(estimate=st.floats(allow_nan=True), half=st.floats(0, 1), is_auc=st.booleans())
def test_non_inferiority_passes_exactly_when_the_bound_is_within_the_margin(
    estimate: float, half: float, is_auc: bool
) -> None:
    comparison = _comparison(TREES, auc=estimate, logloss=estimate, half=half)
    check = non_inferior("x", comparison, MARGINS, is_auc=is_auc)
    worse = -(estimate - half) if is_auc else estimate + half
    margin = MARGINS.auc if is_auc else MARGINS.logloss
    assert (check.verdict is Verdict.PASS) == (math.isfinite(worse) and worse <= margin)
    if not math.isfinite(worse):
        assert check.verdict is Verdict.ERROR


@pytest.mark.parametrize(
    ("trees_auc", "floor"),
    [(0.76, 0.70), (0.72, 0.70), (0.70, 0.68), (0.685, 0.665), (0.55, 0.65), (0.5, 0.65)],
)
def test_a_hard_window_lowers_the_floor_with_the_trees_and_never_by_much(trees_auc: float, floor: float) -> None:
    trees = dataclasses.replace(SOUND, auc=trees_auc)
    assert floor_of(_case(figures={TREES: trees})) == pytest.approx(floor)
