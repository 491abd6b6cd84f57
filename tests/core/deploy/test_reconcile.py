"""The reconciler: a table of what is found apart, and the repairs over the real store and server core."""

import dataclasses

import pytest

from clearway.contracts import release_document as documents
from clearway.contracts.errors import LeaseHeld, Unavailable
from clearway.contracts.release_document import Lease, Outcome, Phase, ReleaseDocument, Version
from clearway.deploy import drive as drive_module
from clearway.deploy.drive import take
from clearway.deploy.reconcile import Alias, Repair, decide, repair
from clearway.deploy.rollback import roll_back
from clearway.deploy.run import deploy
from clearway.deploy.spec import RollbackInputs
from clearway.infra.endpoint import TrafficState
from serving_kit import PRODUCT, ROW, InProcessEndpoint, approved, make_package

BLUE = Version(uri="file:///m/blue", digest="b" * 64, release_id="r1")
GREEN = Version(uri="file:///m/green", digest="0" * 64, release_id="r2")
IDLE = ReleaseDocument(product="p", champion=GREEN, previous=BLUE, epoch=4)
GOOD = TrafficState(weights_pct={GREEN.digest: 100.0}, loaded=(GREEN.digest, BLUE.digest), epoch=4)
ALIAS = Alias(digest=GREEN.digest, is_known=True)
DEPLOYING = dataclasses.replace(IDLE, champion=BLUE, previous=None, candidate=GREEN, phase=Phase.DEPLOYING)


def state(**changes):
    return dataclasses.replace(GOOD, **changes)


TABLE = [
    ("all is well", IDLE, GOOD, ALIAS, ()),
    ("nothing was ever released", ReleaseDocument(product="p"), state(weights_pct={}, loaded=()), ALIAS, ()),
    ("another serves", IDLE, state(weights_pct={BLUE.digest: 100.0}), ALIAS, (Repair.RESTORE_TRAFFIC,)),
    ("a timer waits for a driver that is gone", IDLE, state(dead_man=BLUE.digest), ALIAS, (Repair.RESTORE_TRAFFIC,)),
    ("copies go to a version nobody judges", IDLE, state(mirror=BLUE.digest), ALIAS, (Repair.RESTORE_TRAFFIC,)),
    ("nothing serves", IDLE, state(weights_pct={}), ALIAS, (Repair.RESTORE_TRAFFIC,)),
    ("the way back is not loaded", IDLE, state(loaded=(GREEN.digest,)), ALIAS, (Repair.RESTORE_TRAFFIC,)),
    ("a retired version is loaded", IDLE, state(loaded=(*GOOD.loaded, "a" * 64)), ALIAS, (Repair.UNLOAD_RETIRED,)),
    ("the alias is elsewhere", IDLE, GOOD, Alias(digest=BLUE.digest, is_known=True), (Repair.MOVE_ALIAS,)),
    ("there is no alias", IDLE, GOOD, Alias(digest=None, is_known=True), (Repair.MOVE_ALIAS,)),
    ("the registry is down", IDLE, GOOD, Alias(digest=None, is_known=False), ()),
    ("the endpoint is down", IDLE, None, Alias(digest=None, is_known=True), (Repair.MOVE_ALIAS,)),
    ("an intent is left", DEPLOYING, GOOD, ALIAS, (Repair.FINISH_INTENT,)),
    ("an intent is left, endpoint down", DEPLOYING, None, ALIAS, ()),
    (
        "a dead lease on an idle document",
        dataclasses.replace(IDLE, lease=Lease(holder="x", expires_s=10.0)),
        GOOD,
        ALIAS,
        (Repair.CLEAR_LEASE,),
    ),
    (
        "a living holder's half-done work",
        dataclasses.replace(DEPLOYING, lease=Lease(holder="x", expires_s=10.5)),
        state(weights_pct={}),
        Alias(digest=None, is_known=True),
        (),
    ),
    (
        "a lease from before the clock was set back",
        dataclasses.replace(DEPLOYING, lease=Lease(holder="x", expires_s=3600.0)),
        GOOD,
        ALIAS,
        (Repair.FINISH_INTENT,),
    ),
    (
        "everything apart",
        dataclasses.replace(IDLE, lease=Lease(holder="x", expires_s=1.0)),
        state(weights_pct={}, loaded=("a" * 64,)),
        Alias(digest=None, is_known=True),
        (Repair.CLEAR_LEASE, Repair.RESTORE_TRAFFIC, Repair.UNLOAD_RETIRED, Repair.MOVE_ALIAS),
    ),
]


@pytest.mark.parametrize(("name", "document", "now", "alias", "repairs"), TABLE, ids=[row[0] for row in TABLE])
def test_what_is_apart_decides_what_is_repaired(name, document, now, alias, repairs):
    assert decide(document, now, alias, now_s=10.0, lease_ttl_s=6.0) == repairs, name


class Registry:
    """The alias of a registry that may be down."""

    def __init__(self):
        self.digest, self.is_down = None, False

    def read(self):
        if self.is_down:
            raise Unavailable("registry does not answer")
        return self.digest

    def project(self, version):
        if not self.is_down:
            self.digest = version.digest


@pytest.fixture
def registry():
    return Registry()


@pytest.fixture
def reconcile(controls, registry):
    return lambda: repair(PRODUCT, controls=controls, read_alias=registry.read, project=registry.project)


@pytest.fixture
def two(env, controls, registry):
    """Two released versions: (previous, champion)."""
    refs = make_package(env, 0.1), make_package(env, 0.2)
    for number, ref in enumerate(refs):
        deploy(approved(env, ref, f"r{number}"), controls=controls, project=registry.project)
    return refs


def test_a_healthy_product_is_left_alone(controls, two, reconcile):
    before = controls.store.read(PRODUCT)
    assert reconcile() == ()
    assert controls.store.read(PRODUCT) == before


def test_traffic_that_differs_is_restored(endpoint, two, reconcile):
    previous, champion = two
    endpoint.set_weights({previous.digest: 100.0}, epoch=endpoint.state().epoch)
    assert reconcile() == (Repair.RESTORE_TRAFFIC,)
    assert endpoint.predict([ROW])[1] == champion.digest
    assert reconcile() == ()


def test_an_endpoint_that_lost_its_state_gets_champion_and_way_back(env, controls, two, registry):
    import shutil

    previous, champion = two
    shutil.rmtree(env.home / "serving" / PRODUCT)
    fresh = InProcessEndpoint(env)
    try:
        new_controls = dataclasses.replace(controls, endpoint=fresh)
        repaired = repair(PRODUCT, controls=new_controls, read_alias=registry.read, project=registry.project)
        assert repaired == (Repair.RESTORE_TRAFFIC,)
        assert set(fresh.state().loaded) == {previous.digest, champion.digest}
        assert fresh.predict([ROW])[1] == champion.digest
    finally:
        fresh.close()


def test_an_alias_that_lagged_behind_a_rollback_is_moved(controls, two, registry, reconcile):
    previous, champion = two
    roll_back(RollbackInputs(product=PRODUCT, release_id="o1", reason="x"), controls=controls)
    assert registry.digest == champion.digest
    assert reconcile() == (Repair.MOVE_ALIAS,)
    assert registry.digest == previous.digest
    assert reconcile() == ()


def test_a_registry_that_is_down_holds_nothing_else_up(endpoint, two, registry, reconcile):
    registry.is_down = True
    endpoint.set_weights({}, epoch=endpoint.state().epoch)
    assert reconcile() == (Repair.RESTORE_TRAFFIC,)


@pytest.mark.parametrize("is_good", [True, False])
def test_an_intent_a_dead_holder_left_is_finished(
    env, endpoint, controls, clock, two, registry, reconcile, monkeypatch, is_good
):
    _, champion = two
    ref = make_package(env, 0.3, golden_shift=0.0 if is_good else 0.1)

    def die(*_):
        raise KeyboardInterrupt  # nothing after this runs, as with a kill

    with monkeypatch.context() as patch:
        patch.setattr(drive_module, "check_golden", die)
        with pytest.raises(KeyboardInterrupt):
            deploy(approved(env, ref, "r9"), controls=controls, project=registry.project)
    assert reconcile() == ()  # its lease still runs
    clock.sleep(7.0)
    repaired = reconcile()
    assert repaired[0] is Repair.FINISH_INTENT
    document = controls.store.read(PRODUCT)[0]
    assert (document.phase, document.lease) == (Phase.IDLE, None)
    wanted = ref if is_good else champion
    assert endpoint.predict([ROW])[1] == document.champion.digest == wanted.digest == registry.digest
    outcome = documents.outcome_of(document, "r9").outcome
    assert outcome is (Outcome.PROMOTED if is_good else Outcome.ABORTED)
    assert reconcile() == ()


def test_a_dead_lease_is_cleared_and_a_living_one_respected(controls, clock, two, reconcile):
    take(controls, PRODUCT, holder="x")
    assert reconcile() == ()
    clock.sleep(7.0)
    assert reconcile() == (Repair.CLEAR_LEASE,)
    assert controls.store.read(PRODUCT)[0].lease is None


def test_a_lease_taken_between_look_and_act_is_respected(controls, clock, two, reconcile, endpoint, monkeypatch):
    endpoint.set_weights({}, epoch=endpoint.state().epoch)
    ask, taken = endpoint.state, []

    def take_meanwhile():
        answer = ask()
        if not taken:
            taken.append(take(controls, PRODUCT, holder="release"))
        return answer

    sleep = clock.sleep

    def sleep_and_renew(seconds):
        sleep(seconds)
        taken[0].store(taken[0].document)

    monkeypatch.setattr(endpoint, "state", take_meanwhile)
    monkeypatch.setattr(clock, "sleep", sleep_and_renew)
    with pytest.raises(LeaseHeld):
        reconcile()
    assert endpoint.state().weights_pct == {}
