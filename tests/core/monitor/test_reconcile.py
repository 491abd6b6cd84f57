"""Decisions that no release took are found again; nothing else is."""

from hypothesis import given
from hypothesis import strategies as st

from clearway.monitor.reconcile import StoredDecision, unclaimed


def decision(number: int, decided_at_s: float | None) -> StoredDecision:
    return StoredDecision(
        evidence_digest=f"{number:064x}",
        batch_id=f"2013-05-{number + 1:02d}",
        as_of="2013-06-01T00:00:00Z",
        decided_at_s=decided_at_s,
    )


def test_an_old_decision_without_a_claim_is_emitted_again() -> None:
    lost, taken, young = decision(0, 100.0), decision(1, 100.0), decision(2, 950.0)
    found = unclaimed([young, taken, lost], {taken.evidence_digest}, now_s=1_000.0, min_age_s=60.0)
    assert found == (lost,)


def test_a_decision_without_a_time_is_old_enough() -> None:
    assert unclaimed([decision(0, None)], set(), now_s=0.0, min_age_s=60.0) == (decision(0, None),)


def test_a_decision_from_before_the_clock_was_set_back_is_old_enough() -> None:
    assert unclaimed([decision(0, 4_600.0)], set(), now_s=1_000.0, min_age_s=60.0) == (decision(0, 4_600.0),)


def test_oldest_batch_first() -> None:
    found = unclaimed([decision(2, 0), decision(0, 5), decision(1, 0)], set(), now_s=99, min_age_s=1)
    assert [d.batch_id for d in found] == ["2013-05-01", "2013-05-02", "2013-05-03"]


@given(st.lists(st.tuples(st.floats(0, 1e6), st.booleans()), max_size=20), st.floats(0, 1e6), st.floats(0, 1e5))
def test_every_decision_is_claimed_or_young_or_emitted(
    entries: list[tuple[float, bool]], now_s: float, min_age_s: float
) -> None:
    decisions = [decision(i, at) for i, (at, _) in enumerate(entries)]
    claimed = {d.evidence_digest for d, (_, is_claimed) in zip(decisions, entries, strict=True) if is_claimed}
    found = unclaimed(decisions, claimed, now_s=now_s, min_age_s=min_age_s)
    for one in decisions:
        is_young = one.decided_at_s is not None and 0 <= now_s - one.decided_at_s < min_age_s
        assert (one in found) == (one.evidence_digest not in claimed and not is_young)
