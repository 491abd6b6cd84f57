"""Random histories of deployers that crash, sleep, race and roll back, on the real SQL store, against a tiny model.

The endpoint is a dictionary that fences epochs as every real one does (the conformance suite holds them to it).
"""

import tempfile
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from clearway.contracts import release_document as documents
from clearway.contracts.errors import CompareAndSwapFailed, LeaseHeld, StaleWriter, Unavailable
from clearway.contracts.release_document import Outcome, Phase, Version
from clearway.contracts.rollout import ALL_TRAFFIC_PCT
from clearway.contracts.verdict import Check, Verdict
from clearway.deploy import machine
from clearway.deploy.rollout import CheckGolden, Load, Seen, SetWeights
from clearway.infra.sql_release_store import SqlReleaseStore

TTL_S = 10.0
BAD = {"m3"}  # versions whose golden answers are wrong
MODELS = ["m1", "m2", "m3", "m4"]


def digest_of(model):
    return model[1] * 64


class Deployer:
    """One holder: what it last read, and what it proved itself. It may sleep and go on with stale eyes."""

    def __init__(self, name, document, version):
        self.name, self.document, self.version, self.checks = name, document, version, {}


class ReleaseMachine(RuleBasedStateMachine):
    """Rules are single steps of up to three deployers; invariants hold between any two of them."""

    @initialize()
    def begin(self):
        # In memory where the machine has such a folder: thousands of commits, and no power cut to survive.
        self.folder = tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None)  # noqa: S108
        self.store = SqlReleaseStore(f"sqlite:///{Path(self.folder.name) / 'release.db'}")
        self.now_s, self.deployers, self.num_orders = 0.0, {}, 0
        self.loaded, self.weights, self.endpoint_epoch = set(), {}, 0
        self.model_version, self.model_epoch = 0, 0
        self.max_epoch_seen, self.proved = 0, set()

    def teardown(self):
        if hasattr(self, "folder"):
            self.folder.cleanup()

    # --- what a holder does, one effect at a time

    def _swap(self, deployer, document):
        before = self.store.read("p")[1]
        try:
            deployer.version = self.store.swap(document, expected_version=deployer.version)
        except CompareAndSwapFailed:
            assert deployer.version != before, "an up-to-date writer was refused"
            raise
        assert deployer.version == before + 1, "a stale writer was accepted"
        deployer.document = document
        self.model_version, self.model_epoch = self.model_version + 1, document.epoch

    def _fence(self, epoch):
        if epoch < self.endpoint_epoch:
            raise StaleWriter(f"epoch {epoch} is older than {self.endpoint_epoch}")
        self.endpoint_epoch = epoch

    @rule(slot=st.sampled_from(["a", "b", "c"]), model=st.sampled_from(MODELS))
    def start_deploy(self, slot, model):
        document, version = self.store.read("p")
        deployer = Deployer(f"r{self.num_orders}", document, version)
        self.num_orders += 1
        candidate = Version(uri=f"file:///{model}", digest=digest_of(model), release_id=deployer.name)
        try:
            owned = documents.take_lease(document, holder=deployer.name, now_s=self.now_s, ttl_s=TTL_S)
        except LeaseHeld:
            assert document.lease.expires_s > self.now_s
            return
        self._swap(deployer, owned)
        self.deployers[slot] = deployer
        if owned.phase is Phase.DEPLOYING:
            self._swap(deployer, documents.begin_abort(owned, epoch=owned.epoch, reason="x", ending=Outcome.SUPERSEDED))
        elif owned.phase is Phase.IDLE:
            self._swap(deployer, documents.begin_deploy(owned, candidate, epoch=owned.epoch))

    @rule(slot=st.sampled_from(["a", "b", "c"]))
    def start_rollback(self, slot):
        document, version = self.store.read("p")
        deployer = Deployer(f"o{self.num_orders}", document, version)
        self.num_orders += 1
        owned = documents.take_lease(document, holder=deployer.name, now_s=self.now_s, ttl_s=TTL_S, is_seized=True)
        if owned.phase is Phase.IDLE and owned.previous is None:
            return
        self._swap(deployer, owned)
        self.deployers[slot] = deployer
        if owned.phase is Phase.IDLE:
            ordered = documents.begin_rollback(owned, epoch=owned.epoch, release_id=deployer.name, reason="x")
            self._swap(deployer, ordered)
        elif owned.phase is Phase.DEPLOYING:
            self._swap(deployer, documents.begin_abort(owned, epoch=owned.epoch, reason="x"))

    @rule(slot=st.sampled_from(["a", "b", "c"]), num_steps=st.integers(1, 8))
    def advance(self, slot, num_steps):
        for _ in range(num_steps):
            deployer = self.deployers.get(slot)
            if deployer is None:
                return
            try:
                self._advance(deployer)
            except (StaleWriter, CompareAndSwapFailed):
                stored = self.store.read("p")[0]
                assert stored.epoch > deployer.document.epoch or self.endpoint_epoch > deployer.document.epoch
                del self.deployers[slot]
                return
            except Unavailable:
                return
            if deployer.document.phase is Phase.IDLE:
                del self.deployers[slot]

    def _advance(self, deployer):
        seen = Seen(
            loaded=frozenset(self.loaded),
            weights_pct=dict(self.weights),
            endpoint_epoch=self.endpoint_epoch,
            **deployer.checks,
        )
        result = machine.step(deployer.document, seen, now_s=self.now_s)
        if result.document != deployer.document:
            if result.document.phase is Phase.ABORTING and deployer.document.phase is Phase.DEPLOYING:
                deployer.checks = {}
            self._swap(deployer, result.document)
        if result.action is not None:
            self._act(deployer, result.action)

    def _act(self, deployer, action):
        if isinstance(action, Load):
            self._fence(deployer.document.epoch)
            self.loaded.add(action.version.digest)
        elif isinstance(action, SetWeights):
            self._fence(deployer.document.epoch)
            assert set(action.weights_pct) <= self.loaded
            self.weights = dict(action.weights_pct)
            deployer.checks.pop("live", None)
        elif isinstance(action, CheckGolden):
            is_good = action.version.digest not in {digest_of(model) for model in BAD}
            deployer.checks["golden"] = self._check(is_good)
            if is_good:
                self.proved.add(action.version.digest)
        else:
            deployer.checks["live"] = self._check(self.weights == {action.digest: 100.0})

    @staticmethod
    def _check(is_good):
        return Check(name="proof", verdict=Verdict.PASS if is_good else Verdict.FAIL, reason="as told")

    @rule(slot=st.sampled_from(["a", "b", "c"]))
    def crash(self, slot):
        self.deployers.pop(slot, None)

    @rule(seconds=st.sampled_from([1.0, 9.0, 11.0]))
    def time_passes(self, seconds):
        self.now_s += seconds

    @precondition(lambda self: hasattr(self, "store") and self.store.read("p")[0].phase is not Phase.IDLE)
    @rule(slot=st.sampled_from(["a", "b", "c"]))
    def resume(self, slot):
        document, version = self.store.read("p")
        deployer = Deployer("reconcile", document, version)
        try:
            owned = documents.take_lease(document, holder=deployer.name, now_s=self.now_s, ttl_s=TTL_S)
        except LeaseHeld:
            return
        self._swap(deployer, owned)
        self.deployers[slot] = deployer

    # --- what always holds

    @invariant()
    def store_and_model_agree(self):
        if hasattr(self, "store"):
            document, version = self.store.read("p")
            assert (version, document.epoch) == (self.model_version, self.model_epoch)

    @invariant()
    def epochs_only_rise(self):
        if hasattr(self, "store"):
            epoch = self.store.read("p")[0].epoch
            assert epoch >= self.max_epoch_seen
            assert self.endpoint_epoch <= epoch
            self.max_epoch_seen = epoch

    @invariant()
    def no_unproved_version_takes_traffic(self):
        if hasattr(self, "weights"):
            assert set(self.weights) <= self.proved

    @invariant()
    def an_idle_document_owns_the_traffic_unless_a_stale_holder_is_awake(self):
        if hasattr(self, "store"):
            document = self.store.read("p")[0]
            if document.phase is Phase.IDLE and self.endpoint_epoch == document.epoch:
                wanted = {document.champion.digest: 100.0} if document.champion else {}
                assert self.weights == wanted

    @invariant()
    def a_version_is_never_its_own_way_back(self):
        if hasattr(self, "store"):
            document = self.store.read("p")[0]
            if document.champion and document.previous:
                assert document.champion.digest != document.previous.digest


TestReleaseMachine = ReleaseMachine.TestCase
TestReleaseMachine.settings = settings(max_examples=25, stateful_step_count=30, deadline=None)


TestReleaseMachine.pytestmark = [pytest.mark.slow]


class Unfenced(ReleaseMachine):
    """A known-bad design: the endpoint takes writes of any epoch."""

    def _fence(self, epoch):
        self.endpoint_epoch = max(self.endpoint_epoch, epoch)


def sleeper_wakes_up_after_two_others(machine):
    """a is about to switch when it falls asleep; b and then c are promoted; a wakes up and switches."""
    machine.begin()
    machine.start_deploy("a", "m1")
    while machine.deployers["a"].document.weight_pct != ALL_TRAFFIC_PCT:
        machine.advance("a", 1)
    for slot, model in (("b", "m2"), ("c", "m4")):
        machine.now_s += TTL_S + 1
        machine.start_deploy(slot, model)
        machine.advance(slot, 30)
        machine.now_s += TTL_S + 1
        machine.start_deploy(slot, model)
        machine.advance(slot, 30)
    machine.advance("a", 1)
    machine.an_idle_document_owns_the_traffic_unless_a_stale_holder_is_awake()


def test_a_sleeper_is_harmless_behind_the_fence():
    machine = ReleaseMachine()
    sleeper_wakes_up_after_two_others(machine)
    assert machine.weights == {digest_of("m4"): 100.0}
    assert "a" not in machine.deployers
    machine.teardown()


def test_the_invariants_catch_an_endpoint_without_a_fence():
    machine = Unfenced()
    with pytest.raises(AssertionError):
        sleeper_wakes_up_after_two_others(machine)
    assert machine.weights == {digest_of("m1"): 100.0}
    machine.teardown()
