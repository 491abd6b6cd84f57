"""Which outcomes of stages are figures, and which a person is told of."""

import pytest

from clearway.contracts.verdict import Verdict
from clearway.infra.watch.notices import Kind
from clearway.infra.watch.outcomes import ENDED, notice_of, points_of

PASS, FAIL, OPEN = Verdict.PASS, Verdict.FAIL, Verdict.INCONCLUSIVE


@pytest.mark.parametrize(
    ("stage", "verdict", "is_release", "ends", "ending", "kind"),
    [
        ("train", PASS, True, False, None, None),
        ("evaluate", OPEN, True, False, None, None),  # goes on to a person
        ("evaluate", FAIL, True, True, "rejected", Kind.REJECTED),
        ("validate", OPEN, True, True, "rejected", Kind.REJECTED),
        ("approve", FAIL, True, True, "rejected", Kind.REJECTED),
        ("deploy", PASS, True, False, "promoted", None),
        ("deploy", FAIL, True, True, "rejected", Kind.REJECTED),
        ("revert", PASS, True, False, "rolled_back", Kind.ROLLED_BACK),
        ("revert", FAIL, True, True, "failed", Kind.FAILED),
        ("monitor", PASS, False, True, None, None),
        ("monitor", FAIL, False, False, None, Kind.ALERT),
        ("monitor", OPEN, False, True, None, Kind.ALERT),
        ("preprocess", FAIL, False, True, None, None),
    ],
)
def test_each_outcome_is_counted_once_and_told_where_it_must_be(stage, verdict, is_release, ends, ending, kind):
    points = points_of("flights", stage, verdict, is_release=is_release, ends=ends, retrains=False)
    (outcome,) = (point for point in points if point.name == "StageOutcomes")
    assert outcome.labels == {"Product": "flights", "Stage": stage, "Verdict": verdict.value}
    found = [dict(point.labels) for point in points if point.name == ENDED]
    assert found == ([{"Outcome": ending, "Product": "flights"}, {"Outcome": ending}] if ending else [])
    told = notice_of("flights", stage, verdict, "why", run="r-1", is_release=is_release, ends=ends)
    assert (told and told.kind) == kind
    assert told is None or "why" in told.text


@pytest.mark.parametrize(("verdict", "value"), [(PASS, 0.0), (FAIL, 1.0), (OPEN, 0.0)])
def test_every_monitored_batch_is_a_sign_of_life_and_drift_a_one(verdict, value):
    points = points_of("flights", "monitor", verdict, is_release=False, ends=True, retrains=True)
    assert [(p.value, dict(p.labels)) for p in points if p.name == "DriftAlerts"] == [
        (value, {"Product": "flights"}),
        (value, {}),
    ]
    assert [p.value for p in points if p.name == "RetrainingsAsked"] == [1.0]
