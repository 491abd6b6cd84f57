"""Steps that mirror: which rows are asked for, what they say, and what the machine does about it."""

import dataclasses
import json

import numpy as np
import pytest

from clearway.contracts.codec import from_jsonable, to_jsonable
from clearway.contracts.observed import Mirrored, MirroredRow
from clearway.contracts.release_document import Phase, ReleaseDocument, Version
from clearway.contracts.rollout import PlanStep, Rollout, StepKind
from clearway.contracts.verdict import Check, Verdict
from clearway.deploy.machine import step
from clearway.deploy.rollout import CheckGolden, ReadMirrored, Seen, SetWeights, Wait
from clearway.deploy.strategies import begin
from clearway.infra.endpoint import Mirror
from clearway.product_rollout import Rollout as Settings
from clearway.product_rollout import Shadow

OLD = Version(uri="file:///m/old", digest="b" * 64, release_id="r1")
NEW = Version(uri="file:///m/new", digest="0" * 64, release_id="r2")
PLAN = begin(
    Settings(
        strategy=("shadow", "canary"),
        min_step_s=0.0,
        shadow=Shadow(min_rows=300, margin=0.1, slices={"origin": ("JFK", "EWR"), "hour": ("7",)}),
    )
)
ALL_OLD = {OLD.digest: 100.0}


def document(rollout: Rollout = PLAN) -> ReleaseDocument:
    return ReleaseDocument(
        product="p", champion=OLD, candidate=NEW, phase=Phase.DEPLOYING, release_id="r2", epoch=3, rollout=rollout
    )


def seen(mirror: str | None = NEW.digest, mirrored: Mirrored | None = None, weights=None) -> Seen:
    return Seen(
        loaded=frozenset({OLD.digest, NEW.digest}),
        weights_pct=ALL_OLD if weights is None else weights,
        endpoint_epoch=3,
        golden=Check(name="golden", verdict=Verdict.PASS, reason="fine"),
        mirror=mirror,
        mirrored=mirrored,
    )


def rows(num: int, *, mean: float = 0.0, first: int = 0, num_dropped: int = 0, slices=("origin=JFK", "hour=7")):
    differences = np.random.default_rng(5).normal(mean, 0.02, num).clip(-1, 1)
    return Mirrored(
        log_id="one", first=first, at_s=10.0, epoch=3, candidate=NEW.digest, control=OLD.digest,
        rows=tuple(MirroredRow(difference=float(d), slices=slices) for d in differences), num_dropped=num_dropped,
    )  # fmt: skip


def entered() -> ReleaseDocument:
    return step(document(), seen(), now_s=10.0).document


def test_no_caller_meets_the_candidate_while_it_is_mirrored() -> None:
    made = step(document(), seen(mirror=None), now_s=10.0)
    wanted = Mirror(digest=NEW.digest, columns=("origin", "hour"))
    assert made.action == SetWeights(ALL_OLD, has_dead_man=True, mirror=wanted)


def test_a_table_from_elsewhere_is_mended_before_anything_is_judged() -> None:
    halves = {NEW.digest: 50.0, OLD.digest: 50.0}
    assert isinstance(step(document(), seen(weights=halves), now_s=10.0).action, SetWeights)


def test_rows_are_asked_for_from_the_first_that_is_not_known() -> None:
    begun = entered()
    assert step(begun, seen(), now_s=10.0).action == ReadMirrored(next_row={})
    after = step(begun, seen(mirrored=rows(40)), now_s=10.0)
    assert after.action == Wait(1.0)
    assert step(after.document, seen(), now_s=11.0).action == ReadMirrored(next_row={"one": 40})


def both(num: int, **changes) -> Mirrored:
    """Rows in both slices of the origin."""
    made = rows(num, **changes)
    mixed = tuple(
        dataclasses.replace(row, slices=("hour=7", f"origin={('JFK', 'EWR')[i % 2]}"))
        for i, row in enumerate(made.rows)
    )
    return dataclasses.replace(made, rows=mixed)


def test_rows_that_agree_in_every_slice_lead_to_the_first_share_of_callers() -> None:
    after = step(entered(), seen(mirrored=both(2_000)), now_s=10.0).document
    assert after.rollout and after.rollout.index == 1 and after.rollout.step.kind is StepKind.SPLIT
    stored = from_jsonable(ReleaseDocument, json.loads(json.dumps(to_jsonable(after))))
    assert stored == after
    shared = step(after, seen(), now_s=10.0).document
    made = step(shared, seen(), now_s=10.0)
    assert made.action == SetWeights({NEW.digest: 1.0, OLD.digest: 99.0}, has_dead_man=True, mirror=None)


def test_a_shift_ends_the_release_and_names_the_slice() -> None:
    calm, shifted = both(2_000), rows(2_000, mean=0.3, first=2_000, slices=("origin=EWR",))
    begun = step(entered(), seen(mirrored=dataclasses.replace(calm, rows=calm.rows[:50])), now_s=10.0).document
    far = dataclasses.replace(shifted, first=50)
    after = step(begun, seen(mirrored=far), now_s=10.0).document
    assert after.phase is Phase.ABORTING
    assert "slice[origin=EWR]: harm shown" in after.reason
    assert after.rollout and after.rollout.trail[-1].verdict is Verdict.FAIL
    cleared = step(after, seen(), now_s=10.0)
    assert cleared.action == SetWeights(ALL_OLD)


def test_a_slice_that_nobody_asked_about_clears_nothing() -> None:
    after = step(entered(), seen(mirrored=rows(2_000)), now_s=10.0).document
    assert after.rollout and after.rollout.index == 0
    assert "slice[origin=EWR]: too few rows: 0" in after.rollout.waits_for


@pytest.mark.parametrize(
    ("mirrored", "says"),
    [
        (both(2_000, first=500), "rows 0 to 499 of one were overwritten"),
        (both(400, num_dropped=401), "the candidate cannot keep up"),
        (dataclasses.replace(both(2_000), epoch=2), "epoch 2"),
        (dataclasses.replace(both(2_000), candidate=OLD.digest), "answered by"),
    ],
)
def test_rows_that_are_lost_dropped_or_not_ours_clear_nobody(mirrored: Mirrored, says: str) -> None:
    after = step(entered(), seen(mirrored=mirrored), now_s=10.0).document
    assert after.phase is Phase.DEPLOYING and after.rollout and after.rollout.index == 0
    assert says in after.rollout.waits_for


def test_after_lost_rows_the_next_ones_count_again() -> None:
    after = step(entered(), seen(mirrored=both(10, first=500)), now_s=10.0).document
    found = step(after, seen(mirrored=both(2_000, first=510)), now_s=10.0).document
    assert found.rollout and found.rollout.index == 1


@pytest.mark.parametrize(
    ("strategy", "kinds"),
    [
        ("blue_green", ["split"]),
        (("blue_green", "watch"), ["watch"]),
        (("shadow", "canary", "watch"), ["mirror", "split", "split", "split", "split", "watch"]),
        (("shadow", "ab_test"), ["mirror", "split", "split"]),
    ],
)
def test_chains_make_one_plan_whose_judges_share_alpha(strategy, kinds) -> None:
    made = begin(Settings(strategy=strategy))
    assert [s.kind.value for s in made.plan] == kinds
    assert set(made.rules) == {s.kind.value for s in made.plan if s.asks_evidence}
    assert sum(rule["alpha"] for rule in made.rules.values()) == pytest.approx(0.01 if made.rules else 0.0)
    assert made.plan[-1].weight_pct == 100


@pytest.mark.parametrize(
    "strategy", [(), "shadow", "watch", ("canary", "shadow"), ("canary", "ab_test"), ("watch",) * 2]
)
def test_a_chain_that_is_none_is_refused(strategy) -> None:
    with pytest.raises(ValueError, match="is no chain; allowed: one of blue_green, canary, ab_test"):
        Settings(strategy=strategy)


def test_a_pause_between_two_shares_moves_to_neither() -> None:
    split = begin(Settings(strategy="canary"))
    between = dataclasses.replace(split, index=1, is_paused=True)
    held = dataclasses.replace(document(between), weight_pct=1.0)
    assert step(held, seen(mirror=None, weights={NEW.digest: 1.0, OLD.digest: 99.0}), now_s=10.0).action == Wait(1.0)


def test_a_plan_step_says_whether_it_asks_for_evidence() -> None:
    assert not PlanStep(weight_pct=100).asks_evidence


def unaskable(**changes) -> Seen:
    """As an endpoint is seen that cannot ask who is given copies, by a driver that has just come."""
    return dataclasses.replace(seen(**changes), golden=None, unaskable=frozenset({NEW.digest}))


def test_who_cannot_be_asked_beside_its_copies_is_judged_by_them() -> None:
    assert step(entered(), unaskable(), now_s=10.0).action == ReadMirrored(next_row={})
    late = step(entered(), unaskable(mirrored=rows(40)), now_s=10.0 + PLAN.step.max_s)
    assert late.action == Wait(1.0)
    assert late.document.rollout and not late.document.rollout.is_probed
    asked = step(entered(), seen(mirrored=rows(40)), now_s=10.0 + PLAN.step.max_s)
    assert asked.action == CheckGolden(NEW)


def test_golden_answers_are_asked_for_before_callers_meet_who_could_not_be_asked() -> None:
    after = step(entered(), unaskable(mirrored=both(2_000)), now_s=10.0).document
    assert after.rollout and after.rollout.step.kind is StepKind.SPLIT
    assert step(after, unaskable(), now_s=10.0).action == SetWeights(ALL_OLD, has_dead_man=True)
    back = dataclasses.replace(unaskable(mirror=None), unaskable=frozenset())
    assert step(after, back, now_s=10.0).action == CheckGolden(NEW)
