"""Small runs of the simulation that is published in docs/reference/canary_verdicts.md, through the shipping code."""

import pytest

from benchmarks import simulate_canary as simulated
from benchmarks.simulate_canary import DAMAGES, Line


def test_harmless_candidates_are_hardly_ever_taken_back_and_copied_rules_are_worse() -> None:
    """500 runs of 20 looks at alpha 1 %: at most 11 (99th percentile of the binomial)."""
    line: Line = simulated.side_by_side(500, 1.0, looks=20)
    assert line["clearway"]["num"] <= 11
    assert line["z per look"]["num"] > 100


@pytest.mark.parametrize(("factor", "most"), [(2.0, 3_000), (3.0, 1_000), (4.0, 600)])
def test_more_errors_are_always_found(factor: float, most: int) -> None:
    line = simulated.side_by_side(40, factor, looks=60)
    assert line["clearway"]["num"] == 40
    assert line["clearway"]["median requests"] <= most


def test_a_fifth_slower_is_found_and_equally_quick_is_not() -> None:
    assert simulated.slower(40, 1.2, looks=20)["clearway"]["num"] == 40
    assert simulated.slower(20, 1.0, looks=20)["clearway"]["num"] <= 2


@pytest.mark.slow
def test_one_per_cent_more_log_loss_is_found_and_none_more_passes() -> None:
    worse = simulated.worse_losses(10, 1.12, looks=100)
    assert (worse["clearway"]["num"], worse["passed first"]["num"]) == (10, 0)
    same = simulated.worse_losses(10, 1.0, looks=100)
    assert (same["clearway"]["num"], same["passed first"]["num"]) == (0, 10)


@pytest.mark.parametrize(("margin", "most"), [(0.01, 3_000), (0.02, 1_200)])
def test_a_healthy_candidate_passes_in_time(margin: float, most: int) -> None:
    line = simulated.until_passed(40, margin)
    assert line["passed"] >= 38
    assert line["median requests"] <= most


def test_a_candidate_worse_by_the_margin_hardly_ever_passes() -> None:
    """200 runs at beta 5 %: at most 18 (99th percentile)."""
    assert simulated.at_the_margin(200, 0.01)["passed"] <= 18


def test_a_fifth_of_errors_is_found_within_thirty_requests() -> None:
    line = simulated.one_by_one(200)
    assert line["found"] == 200
    assert line["median requests"] <= 30


@pytest.mark.slow
def test_healthy_requests_one_by_one_raise_no_alarm() -> None:
    """20 times 20,000 requests, a look after every tenth; at alpha 0.1 % more than one has chance 0.02 %."""
    assert simulated.false_alarms(20, (1, 9))["false alarms"] <= 1


def test_no_bad_candidate_with_broken_metrics_is_promoted() -> None:
    line = simulated.broken_metrics(15 * len(DAMAGES))
    assert line["promoted"] == 0, line["which"]
    assert line["rolled back"] > 0
    assert line["held"] > 0
