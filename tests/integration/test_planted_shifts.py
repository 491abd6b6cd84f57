"""One thing changes on purpose: the right answer comes, and no retraining where training would be wrong."""

import pytest

from clearway.monitor.decide import Answer, Decision
from clearway.product_monitor import Monitor
from shifts_kit import CASES, NUM_CALM, decisions

POLICY = Monitor()
# Weeks to watch: what creeps in takes longer.
WEEKS = {"gradual": 8, "seasonal": 12}
# What the sentence about a broken delivery must name.
NAMED = {
    "unit change": ("held for a person", "x3"),
    "new category names": ("held for a person", "(c)"),
    "feed outage": ("6 features lost nearly all of their values",),
    "late batch": ("the batch has 90 rows",),
    "label outage": ("look at the source of the labels",),
}


def answers(found: list[Decision]) -> list[Answer]:
    return [decision.answer for decision in found]


@pytest.mark.parametrize("case", CASES)
def test_the_right_answer_comes_and_no_wrong_retraining(case: str) -> None:
    found = decisions(case, POLICY, seed=1, num_after=WEEKS.get(case, 5))
    right = CASES[case][1]
    after = answers(found)[NUM_CALM:]
    assert right & set(after), [d.reasons for d in found]
    came = next(i for i, answer in enumerate(after) if answer in right)
    assert Answer.RETRAIN not in after[:came]
    if Answer.RETRAIN not in right:
        assert Answer.RETRAIN not in after
    assert all(part in found[NUM_CALM + came].reasons[0] for part in NAMED.get(case, ()))
    if case != "concept only, no labels":
        assert set(answers(found)[:NUM_CALM]) == {Answer.HOLD}


def test_a_changed_meaning_without_labels_is_never_called_fine() -> None:
    found = decisions("concept only, no labels", POLICY, seed=2, num_after=5)
    assert set(answers(found)[NUM_CALM:]) == {Answer.UNKNOWN}
    assert all("cannot be said" in decision.reasons[0] for decision in found[NUM_CALM:])
