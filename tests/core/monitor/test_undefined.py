"""Weeks in which a measure has no value: it is said so, and nothing that could not be measured counts as fine."""

from typing import Any

import numpy as np
import pytest

from clearway.contracts.verdict import Verdict


def all_are(label: int, town: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    truth = town.truth
    monkeypatch.setattr(town, "truth", lambda week, *n: (truth(week, *n)[0], np.full_like(truth(week, *n)[1], label)))


@pytest.mark.parametrize(("label", "promised"), [(0, "131 of 1"), (1, "269 of 0")])
def test_labels_of_one_class_where_scores_promise_both_are_held_for_a_person(
    town: Any, monkeypatch: pytest.MonkeyPatch, label: int, promised: str
) -> None:
    digest = town.release()
    all_are(label, town, monkeypatch)
    town.serve(8, digest)
    for week in (9, 10, 11):
        town.serve(week, digest)
        out = town.monitor(week, town.land(week, town.rows(week), labelled_week=week - 1))
        assert (out.verdict, out.retrain) == (Verdict.INCONCLUSIVE, False)
        assert f"all 400 labels that arrived are {label}, where the scores promise about" in out.reason
        if week == 9:
            assert promised in out.reason
        (model,) = town.summary(week)["performance"]["models"]
        assert model["auc"] is None


def test_labels_of_one_class_that_scores_promise_are_fine(town: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    digest = town.release()
    all_are(0, town, monkeypatch)
    for week in (8, 9):
        town.serve(week, digest, shift=-0.6)
        out = town.monitor(week, town.land(week, town.rows(week), labelled_week=week - 1))
    assert out.verdict is Verdict.PASS, out.reason


@pytest.mark.parametrize("is_back", [False, True], ids=["still missing", "back"])
def test_a_column_that_held_nothing_in_training_has_no_distance_and_no_say(
    town: Any, monkeypatch: pytest.MonkeyPatch, is_back: bool
) -> None:
    rows = town.rows
    monkeypatch.setattr(town, "rows", lambda week, **more: rows(week, lost=["x0"], **more))
    digest = town.release(through=7)  # a length that no other test trains on
    town.serve(8, digest)
    out = town.monitor(8, town.land(8, rows(8) if is_back else town.rows(8), labelled_week=None))
    assert out.verdict is Verdict.PASS
    x0 = next(f for f in town.summary(8)["drift"]["features"] if f["name"] == "x0")
    assert (x0["missing_reference"], x0["distance"], x0["is_over"]) == (1.0, None, None)
