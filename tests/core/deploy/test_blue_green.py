"""Blue-green through the state machine as a table: (document, seen) → (document, action), and properties of paths."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clearway.contracts import release_document as documents
from clearway.contracts.errors import Unavailable
from clearway.contracts.release_document import Outcome, Phase, ReleaseDocument, Version
from clearway.contracts.verdict import Check, Verdict
from clearway.deploy.machine import step
from clearway.deploy.rollout import CheckGolden, Load, ProbeLive, Seen, SetWeights

BLUE = Version(uri="file:///m/blue", digest="b" * 64, release_id="r1")
GREEN = Version(uri="file:///m/green", digest="0" * 64, release_id="r2")
OLD = Version(uri="file:///m/old", digest="a" * 64, release_id="r0")
PASS = Check(name="proof", verdict=Verdict.PASS, reason="fine")
FAIL = Check(name="proof", verdict=Verdict.FAIL, reason="differs")
ALL_BLUE, ALL_GREEN = {BLUE.digest: 100.0}, {GREEN.digest: 100.0}
BOTH = frozenset({BLUE.digest, GREEN.digest})


def document(phase, *, champion=BLUE, previous=OLD, candidate=GREEN, weight_pct=0.0, epoch=7):
    ending = Outcome.ABORTED if phase is Phase.ABORTING else None
    return ReleaseDocument(
        product="p",
        champion=champion,
        previous=previous,
        candidate=candidate,
        phase=phase,
        release_id="r2",
        reason="why",
        ending=ending,
        weight_pct=weight_pct,
        epoch=epoch,
        lease=documents.Lease(holder="r2", expires_s=1e9),
    )


def seen(loaded=BOTH, weights=None, *, epoch=7, golden=None, live=None):
    return Seen(
        loaded=frozenset(loaded),
        weights_pct=ALL_BLUE if weights is None else weights,
        endpoint_epoch=epoch,
        golden=golden,
        live=live,
    )


DEPLOYING = [
    ("green is not loaded", document(Phase.DEPLOYING), seen({BLUE.digest}), Load(GREEN)),
    ("the endpoint does not know our epoch", document(Phase.DEPLOYING), seen(epoch=6), Load(GREEN)),
    ("blue, the way back, is not loaded", document(Phase.DEPLOYING), seen({GREEN.digest}), Load(BLUE)),
    ("green has proved nothing", document(Phase.DEPLOYING), seen(), CheckGolden(GREEN)),
    (
        "the share is stored, the table is not set",
        document(Phase.DEPLOYING, weight_pct=100.0),
        seen(golden=PASS),
        SetWeights(ALL_GREEN),
    ),
    (
        "half of the table is set",
        document(Phase.DEPLOYING, weight_pct=100.0),
        seen(golden=PASS, weights={BLUE.digest: 50.0, GREEN.digest: 50.0}),
        SetWeights(ALL_GREEN),
    ),
    (
        "the table is set, nobody asked live",
        document(Phase.DEPLOYING, weight_pct=100.0),
        seen(golden=PASS, weights=ALL_GREEN),
        ProbeLive(GREEN.digest),
    ),
    (
        "the first release has no blue to load",
        document(Phase.DEPLOYING, champion=None, previous=None),
        seen({GREEN.digest}, {}),
        CheckGolden(GREEN),
    ),
    (
        "a resumed deploy that is live proves itself again",
        document(Phase.DEPLOYING, weight_pct=100.0),
        seen(weights=ALL_GREEN),
        CheckGolden(GREEN),
    ),
]  # fmt: skip

FIRST_ABORT = document(Phase.ABORTING, champion=None)
WAY_BACK = [
    ("abort: green has the traffic", document(Phase.ABORTING), seen(weights=ALL_GREEN), SetWeights(ALL_BLUE)),
    ("abort: blue is gone", document(Phase.ABORTING), seen({GREEN.digest}, ALL_GREEN), Load(BLUE)),
    ("abort: blue was never left, epoch is old", document(Phase.ABORTING), seen(epoch=6), Load(BLUE)),
    ("abort: is it really blue", document(Phase.ABORTING), seen(), ProbeLive(BLUE.digest)),
    ("abort of a first release", FIRST_ABORT, seen({GREEN.digest}, ALL_GREEN), SetWeights({})),
    ("abort of a first release, old epoch", FIRST_ABORT, seen((), {}, epoch=6), SetWeights({})),
    ("rollback: loaded, one switch", document(Phase.ROLLING_BACK), seen(), SetWeights(ALL_GREEN)),
    ("rollback: not loaded", document(Phase.ROLLING_BACK), seen({BLUE.digest}), Load(GREEN)),
    ("rollback: ask live", document(Phase.ROLLING_BACK), seen(weights=ALL_GREEN), ProbeLive(GREEN.digest)),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "before", "now", "action"), DEPLOYING + WAY_BACK, ids=lambda v: v if isinstance(v, str) else ""
)
def test_the_next_action_follows_from_what_is_seen(name, before, now, action):
    result = step(before, now, now_s=1.0)
    assert (result.document, result.action) == (before, action), name


def test_a_proved_green_first_stores_its_share_then_switches():
    result = step(document(Phase.DEPLOYING), seen(golden=PASS), now_s=1.0)
    assert (result.document.weight_pct, result.document.phase, result.action) == (100.0, Phase.DEPLOYING, None)


def test_no_timer_outlives_the_promotion_or_the_way_back():
    armed = dataclasses.replace(seen(golden=PASS, weights=ALL_GREEN, live=PASS), dead_man=BLUE.digest)
    assert step(document(Phase.DEPLOYING, weight_pct=100.0), armed, now_s=5.0).action == SetWeights(ALL_GREEN)
    going_back = dataclasses.replace(seen(weights=ALL_BLUE, live=PASS), dead_man=BLUE.digest)
    assert step(document(Phase.ABORTING), going_back, now_s=5.0).action == SetWeights(ALL_BLUE)


def test_a_green_that_answers_live_is_promoted_and_blue_is_the_way_back():
    before = document(Phase.DEPLOYING, weight_pct=100.0)
    after = step(before, seen(golden=PASS, live=PASS, weights=ALL_GREEN), now_s=5.0).document
    assert (after.champion, after.previous, after.phase, after.lease) == (GREEN, BLUE, Phase.IDLE, None)
    assert (after.history[-1].outcome, after.history[-1].at_s) == (Outcome.PROMOTED, 5.0)


@pytest.mark.parametrize("verdict", [v for v in Verdict if v is not Verdict.PASS])
@pytest.mark.parametrize("proof", ["golden", "live"])
def test_only_a_passed_proof_advances(verdict, proof):
    check = Check(name=proof, verdict=verdict, reason="not proved")
    now = seen(golden=PASS if proof == "live" else check, live=check if proof == "live" else None, weights=ALL_GREEN)
    after = step(document(Phase.DEPLOYING, weight_pct=100.0), now, now_s=1.0).document
    assert (after.phase, after.ending, after.weight_pct) == (Phase.ABORTING, Outcome.ABORTED, 0.0)
    assert "not proved" in after.reason


@pytest.mark.parametrize(
    ("phase", "weights", "champion"), [(Phase.ABORTING, ALL_BLUE, BLUE), (Phase.ROLLING_BACK, ALL_GREEN, GREEN)]
)
def test_the_way_back_ends_when_it_is_proved_live(phase, weights, champion):
    after = step(document(phase), seen(weights=weights, live=PASS), now_s=1.0).document
    assert (after.phase, after.champion, after.lease) == (Phase.IDLE, champion, None)


@pytest.mark.parametrize(("phase", "weights"), [(Phase.ABORTING, ALL_BLUE), (Phase.ROLLING_BACK, ALL_GREEN)])
def test_a_way_back_that_others_answer_is_an_error_and_stays_intended(phase, weights):
    with pytest.raises(Unavailable, match="differs"):
        step(document(phase), seen(weights=weights, live=FAIL), now_s=1.0)


def test_an_aborted_first_release_leaves_nothing_serving():
    after = step(document(Phase.ABORTING, champion=None), seen((), {}), now_s=1.0).document
    assert (after.phase, after.champion) == (Phase.IDLE, None)


def test_an_idle_document_needs_nothing():
    idle = ReleaseDocument(product="p", champion=BLUE, epoch=7)
    result = step(idle, seen(weights={}), now_s=1.0)
    assert (result.document, result.action) == (idle, None)


CHECKS = st.sampled_from([None, PASS, FAIL, Check(name="p", verdict=Verdict.INCONCLUSIVE, reason="?")])


@given(
    phase=st.sampled_from([Phase.DEPLOYING, Phase.ABORTING, Phase.ROLLING_BACK]),
    has_blue=st.booleans(),
    weight_pct=st.sampled_from([0.0, 100.0]),
    loaded=st.sets(st.sampled_from(sorted(BOTH))),
    weights=st.sampled_from([{}, ALL_BLUE, ALL_GREEN, {BLUE.digest: 40.0, GREEN.digest: 60.0}]),
    epoch=st.sampled_from([5, 7]),
    golden=CHECKS,
    live=CHECKS,
)
def test_green_takes_traffic_only_after_its_golden_answers(
    phase, has_blue, weight_pct, loaded, weights, epoch, golden, live
):
    before = document(phase, champion=BLUE if has_blue else None, weight_pct=weight_pct)
    now = seen(loaded, weights, epoch=epoch, golden=golden, live=live)
    try:
        result = step(before, now, now_s=1.0)
    except Unavailable:
        assert live is not None
        assert live.verdict is not Verdict.PASS
        assert phase is not Phase.DEPLOYING
        return
    action, after = result.action, result.document
    assert after.epoch == before.epoch
    if phase is Phase.DEPLOYING and isinstance(action, SetWeights):
        assert golden is PASS
        assert GREEN.digest in loaded
        assert epoch == before.epoch
    if isinstance(action, SetWeights) and action.weights_pct:
        assert sum(action.weights_pct.values()) == 100.0
        assert set(action.weights_pct) <= loaded
    if after.phase is Phase.IDLE and after.champion:
        # Whatever ended, traffic is owned by the champion, and a live answer said so.
        assert weights == {after.champion.digest: 100.0}
        assert live is PASS
    if after.phase is Phase.IDLE and phase is Phase.DEPLOYING:
        assert golden is PASS


class ToyEndpoint:
    """An endpoint as the strategy sees it; proofs answer as told."""

    def __init__(self, *, golden, live, weights, epoch):
        self.loaded, self.weights, self.epoch = set(weights), dict(weights), epoch
        self.answers = {"golden": golden, "live": live}
        self.checks = {}

    def seen(self):
        return Seen(loaded=frozenset(self.loaded), weights_pct=self.weights, endpoint_epoch=self.epoch, **self.checks)

    def act(self, action, epoch):
        self.epoch = max(self.epoch, epoch)
        if isinstance(action, Load):
            self.loaded.add(action.version.digest)
        elif isinstance(action, SetWeights):
            self.weights, self.checks = action.weights_pct, {k: v for k, v in self.checks.items() if k == "golden"}
        elif isinstance(action, CheckGolden):
            self.checks["golden"] = self.answers["golden"]
        else:
            is_right = self.weights == {action.digest: 100.0}
            lies = self.answers["live"] is not PASS and action.digest == GREEN.digest
            self.checks["live"] = PASS if is_right and not lies else FAIL


@given(
    golden=st.sampled_from([PASS, FAIL]),
    live=st.sampled_from([PASS, FAIL]),
    has_blue=st.booleans(),
    crashes=st.sets(st.integers(0, 20), max_size=6),
)
def test_every_path_with_any_crashes_ends_in_full_success_or_full_return(golden, live, has_blue, crashes):
    weights = ALL_BLUE if has_blue else {}
    current = document(Phase.DEPLOYING, champion=BLUE if has_blue else None, previous=None)
    endpoint = ToyEndpoint(golden=golden, live=live, weights=weights, epoch=6)
    for number in range(60):
        if current.phase is Phase.IDLE:
            break
        if number in crashes:  # a new holder: newer epoch, nothing remembered
            current = dataclasses.replace(current, epoch=current.epoch + 1)
            endpoint.checks = {}
        result = step(current, endpoint.seen(), now_s=1.0)
        if result.document.phase is Phase.ABORTING and current.phase is Phase.DEPLOYING:
            endpoint.checks = {}
        current = result.document
        if result.action:
            endpoint.act(result.action, current.epoch)
    assert current.phase is Phase.IDLE
    is_good = golden is PASS and live is PASS
    assert current.champion == (GREEN if is_good else BLUE if has_blue else None)
    assert endpoint.weights == (ALL_GREEN if is_good else weights)
