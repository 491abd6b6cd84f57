"""Deploying, rolling back and repairing over the real store and the real server core."""

import dataclasses

import pytest

from clearway.contracts import release_document as documents
from clearway.contracts.errors import ConfigError, IntegrityError, LeaseHeld, StaleWriter, Unavailable
from clearway.contracts.release_document import Outcome, Phase, Version
from clearway.contracts.rollout import Order, OrderKind
from clearway.contracts.verdict import Verdict
from clearway.deploy import drive as drive_module
from clearway.deploy.drive import take
from clearway.deploy.orders import give_order
from clearway.deploy.rollback import roll_back
from clearway.deploy.run import deploy, finish_others
from clearway.deploy.spec import RollbackInputs
from clearway.infra.approvals import Decision
from clearway.infra.storage import to_path
from serving_kit import PRODUCT, ROW, approved, linear_onnx, make_package


@pytest.fixture
def projected():
    return []


@pytest.fixture
def release(env, controls, projected):
    """Deploy a model under a release id."""

    def run(ref, release_id, **changes):
        inputs = dataclasses.replace(approved(env, ref, release_id), **changes)
        return deploy(inputs, controls=controls, project=projected.append)

    return run


@pytest.fixture
def revert(controls):
    def run(order_id, reason="bad answers"):
        return roll_back(RollbackInputs(product=PRODUCT, release_id=order_id, reason=reason), controls=controls)

    return run


@pytest.fixture
def document(controls):
    return lambda: controls.store.read(PRODUCT)[0]


def test_the_first_release_serves_and_says_so(env, endpoint, release, document, projected):
    ref = make_package(env, 0.1)
    outputs = release(ref, "r1")
    assert outputs.verdict is Verdict.PASS
    assert (outputs.status.digest, outputs.status.uri, outputs.status.previous_digest) == (ref.digest, ref.uri, None)
    assert (outputs.status.weight_pct, outputs.status.epoch) == (100.0, document().epoch)
    assert endpoint.predict([ROW])[1] == ref.digest
    assert [version.digest for version in projected] == [ref.digest]
    assert (document().phase, document().lease) == (Phase.IDLE, None)


def test_the_next_release_keeps_blue_loaded_and_drops_what_nobody_can_need(env, endpoint, release, document):
    refs = [make_package(env, bias) for bias in (0.1, 0.2, 0.3)]
    for number, ref in enumerate(refs):
        assert release(ref, f"r{number}").verdict is Verdict.PASS
    assert document().previous.digest == refs[1].digest
    assert set(endpoint.state().loaded) == {refs[1].digest, refs[2].digest}


def test_the_same_release_again_is_a_no_op(env, endpoint, release, document):
    ref = make_package(env, 0.1)
    first, before, epoch = release(ref, "r1"), document(), endpoint.state().epoch
    assert release(ref, "r1") == first
    assert (document(), endpoint.state().epoch) == (before, epoch)


def test_an_old_release_run_again_does_not_take_the_traffic_back(env, endpoint, release):
    one, two = make_package(env, 0.1), make_package(env, 0.2)
    release(one, "r1")
    release(two, "r2")
    assert release(one, "r1").verdict is Verdict.PASS
    assert endpoint.state().weights_pct == {two.digest: 100.0}


def test_the_same_model_in_a_new_release_keeps_the_way_back(env, endpoint, release, document):
    one, two = make_package(env, 0.1), make_package(env, 0.2)
    release(one, "r1")
    release(two, "r2")
    assert release(two, "r3").verdict is Verdict.PASS
    assert document().previous.digest == one.digest
    assert one.digest in endpoint.state().loaded


@pytest.mark.parametrize("has_champion", [True, False], ids=["beside a champion", "as the first"])
def test_a_green_with_wrong_golden_answers_never_takes_traffic(
    env, endpoint, release, document, has_champion, monkeypatch
):
    good, bad = make_package(env, 0.1), make_package(env, 0.5, golden_shift=0.1)
    if has_champion:
        release(good, "r1")
    tables = []
    set_weights = endpoint.set_weights
    monkeypatch.setattr(endpoint, "set_weights", lambda w, *, epoch: (tables.append(w), set_weights(w, epoch=epoch)))
    outputs = release(bad, "r2")
    assert outputs.verdict is Verdict.FAIL
    assert "answers differ" in outputs.reason
    assert all(bad.digest not in table for table in tables)
    assert endpoint.state().weights_pct == ({good.digest: 100.0} if has_champion else {})
    assert endpoint.state().loaded == ((good.digest,) if has_champion else ())
    assert outputs.status == (None if not has_champion else outputs.status)
    assert documents.outcome_of(document(), "r2").outcome is Outcome.ABORTED
    assert release(bad, "r2") == outputs


def test_a_green_that_cannot_score_its_golden_rows_is_rejected_not_a_crash(env, endpoint, release, document):
    good = make_package(env, 0.1)
    broken = make_package(env, 0.2, model=linear_onnx(float("nan"), num_numeric=2, num_categorical=1))
    release(good, "r1")
    outputs = release(broken, "r2")
    assert outputs.verdict is Verdict.FAIL
    assert "not finite" in outputs.reason
    assert endpoint.state().weights_pct == {good.digest: 100.0}
    assert (document().phase, document().champion.digest) == (Phase.IDLE, good.digest)


def test_a_green_that_does_not_answer_live_is_taken_back(env, endpoint, release, document, monkeypatch):
    good, bad = make_package(env, 0.1), make_package(env, 0.2)
    release(good, "r1")
    predict = endpoint.predict

    def stuck(rows, *, digest=None):  # the table says green, a forgotten router still sends callers to blue
        return predict(rows, digest=digest) if digest else (predict(rows, digest=good.digest)[0], good.digest)

    monkeypatch.setattr(endpoint, "predict", stuck)
    outputs = release(bad, "r2")
    assert outputs.verdict is Verdict.FAIL
    assert "5 of 5 live answers came from" in outputs.reason
    assert endpoint.state().weights_pct == {good.digest: 100.0}
    assert document().champion.digest == good.digest


@pytest.mark.parametrize("damage", ["flip a byte", "remove a file"])
def test_a_damaged_package_moves_nothing(env, endpoint, release, document, damage):
    good, bad = make_package(env, 0.1), make_package(env, 0.2)
    release(good, "r1")
    before, model = document(), to_path(bad.uri) / "model.onnx"
    if damage == "flip a byte":
        model.write_bytes(model.read_bytes()[:-1] + b"\x00")
    else:
        model.unlink()
    with pytest.raises(IntegrityError):
        release(bad, "r2")
    assert document() == before
    assert endpoint.state().loaded == (good.digest,)


def test_a_package_damaged_between_check_and_load_ends_the_release(env, endpoint, release, document, monkeypatch):
    good, bad = make_package(env, 0.1), make_package(env, 0.2)
    release(good, "r1")
    load = endpoint.load

    def damage_then_load(*, uri, digest, epoch):
        (to_path(bad.uri) / "model.onnx").write_bytes(b"x")
        load(uri=uri, digest=digest, epoch=epoch)

    monkeypatch.setattr(endpoint, "load", damage_then_load)
    outputs = release(bad, "r2")
    assert outputs.verdict is Verdict.FAIL
    assert "model.onnx" in outputs.reason
    assert documents.outcome_of(document(), "r2").outcome is Outcome.ABORTED
    assert endpoint.state().weights_pct == {good.digest: 100.0}


def test_without_its_own_approval_nothing_moves(env, endpoint, release, document):
    one, two = make_package(env, 0.1), make_package(env, 0.2)
    release(one, "r1")
    before = document()
    foreign = approved(env, one, "r1").approval_uri
    for uri, words in ((foreign, "approve these bytes"), (env.store_root + "/none.json", "no approval at")):
        outputs = release(two, "r2", approval_uri=uri)
        assert outputs.verdict is Verdict.FAIL
        assert words in outputs.reason
        assert outputs.status.digest == one.digest
    assert document() == before
    assert endpoint.state().loaded == (one.digest,)


def test_a_rejected_model_never_moves(env, controls, document):
    inputs = approved(env, make_package(env, 0.1), "r1", answer=Decision.REJECT)
    outputs = deploy(inputs, controls=controls, project=lambda _: None)
    assert outputs.verdict is Verdict.FAIL
    assert "reject" in outputs.reason
    assert document().epoch == 0


def test_an_approval_for_another_product_does_not_count(env, controls):
    ref = make_package(env, 0.1)
    other = approved(env, ref, "r1", product="other")
    inputs = dataclasses.replace(other, product=PRODUCT)
    outputs = deploy(inputs, controls=controls, project=lambda _: None)
    assert outputs.verdict is Verdict.FAIL
    assert "'other'" in outputs.reason


def test_one_release_deploys_one_model(env, controls, release, monkeypatch):
    one, two = make_package(env, 0.1), make_package(env, 0.2)
    monkeypatch.setattr(drive_module, "probe_live", unreachable)
    with pytest.raises(Unavailable):
        release(one, "r1")
    with pytest.raises(ConfigError, match="one release deploys one model"):
        release(two, "r1")
    assert controls.store.read(PRODUCT)[0].lease is None


def unreachable(*_, **__):
    raise Unavailable("the endpoint does not answer")


@pytest.mark.parametrize("where", ["check_golden", "probe_live"])
def test_an_endpoint_that_goes_away_leaves_the_intent_for_a_retry(env, endpoint, release, document, monkeypatch, where):
    one, two = make_package(env, 0.1), make_package(env, 0.2)
    release(one, "r1")
    with monkeypatch.context() as patch:
        patch.setattr(drive_module, where, unreachable)
        with pytest.raises(Unavailable):
            release(two, "r2")
    assert (document().phase, document().candidate.digest, document().lease) == (Phase.DEPLOYING, two.digest, None)
    assert release(two, "r2").verdict is Verdict.PASS
    assert endpoint.state().weights_pct == {two.digest: 100.0}


def test_a_living_holder_is_waited_for_and_a_dead_one_outlived(env, controls, clock, release, document):
    ref = make_package(env, 0.1)
    take(controls, PRODUCT, holder="somebody")
    began_s = clock.now_s()
    assert release(ref, "r1").verdict is Verdict.PASS
    assert clock.now_s() - began_s == pytest.approx(6.0, abs=1.0)
    assert document().lease is None


def test_a_holder_that_renews_for_ever_is_not_waited_for_for_ever(env, controls, clock, release, monkeypatch):
    ref = make_package(env, 0.1)
    holder = take(controls, PRODUCT, holder="somebody")
    sleep = clock.sleep

    def sleep_and_renew(seconds):
        sleep(seconds)
        holder.store(holder.document)

    monkeypatch.setattr(clock, "sleep", sleep_and_renew)
    with pytest.raises(LeaseHeld, match="somebody"):
        release(ref, "r1")


def test_a_dead_holders_lease_is_waited_for_once_when_the_clock_was_set_back(
    env, endpoint, controls, clock, release, document
):
    take(controls, PRODUCT, holder="somebody")  # and dies
    clock.at_s -= 3600.0
    began_s = clock.at_s
    assert release(make_package(env, 0.1), "r1").verdict is Verdict.PASS
    assert clock.at_s - began_s <= 2 * controls.lease_ttl_s


def test_a_living_holder_is_waited_for_one_lease_long_whatever_the_clock_does(
    env, controls, clock, release, monkeypatch
):
    ref = make_package(env, 0.1)
    holder, sleep, slept = take(controls, PRODUCT, holder="somebody"), clock.sleep, []

    def sleep_while_the_clock_goes_back(seconds):
        sleep(seconds)
        clock.at_s -= 10 * seconds
        slept.append(seconds)
        assert len(slept) < 100, "waits for ever"
        holder.store(holder.document)

    monkeypatch.setattr(clock, "sleep", sleep_while_the_clock_goes_back)
    with pytest.raises(LeaseHeld, match="somebody"):
        release(ref, "r1")
    assert sum(slept) <= controls.lease_ttl_s + 1.0


def test_an_unfinished_deploy_of_another_release_is_superseded_first(
    env, endpoint, controls, clock, release, document, monkeypatch
):
    champion, left, ours = (make_package(env, bias) for bias in (0.1, 0.2, 0.3))
    release(champion, "r1")
    with monkeypatch.context() as patch:
        patch.setattr(drive_module, "probe_live", unreachable)
        with pytest.raises(Unavailable):
            release(left, "r2")
    assert endpoint.state().weights_pct == {left.digest: 100.0}  # moved, never proved
    assert release(ours, "r3").verdict is Verdict.PASS
    outcomes = {entry.release_id: entry.outcome for entry in document().history}
    assert outcomes == {"r1": Outcome.PROMOTED, "r2": Outcome.SUPERSEDED, "r3": Outcome.PROMOTED}
    assert document().previous.digest == champion.digest
    again = release(left, "r2")
    assert again.verdict is Verdict.FAIL
    assert again.reason.startswith("superseded")
    assert endpoint.state().weights_pct == {ours.digest: 100.0}


def test_a_holder_that_slept_through_its_lease_ends_superseded_and_changes_nothing(
    env, endpoint, controls, clock, release, document, monkeypatch
):
    champion, slow, fast = (make_package(env, bias) for bias in (0.1, 0.2, 0.3))
    release(champion, "r1")
    perform, is_asleep = drive_module.check_golden, [False]

    def sleep_then_check(controls_, version):
        if version.digest == slow.digest and not is_asleep[0]:
            is_asleep[0] = True
            clock.sleep(7.0)
            assert release(fast, "r3").verdict is Verdict.PASS
        return perform(controls_, version)

    monkeypatch.setattr(drive_module, "check_golden", sleep_then_check)
    outputs = release(slow, "r2")
    assert outputs.verdict is Verdict.FAIL
    assert outputs.reason.startswith("superseded")
    assert endpoint.state().weights_pct == {fast.digest: 100.0}
    assert document().champion.digest == fast.digest
    assert slow.digest not in endpoint.state().loaded


def test_a_release_run_again_after_the_document_forgot_it_moves_nothing(env, endpoint, controls, release, document):
    old, new = make_package(env, 0.1), make_package(env, 0.2)
    release(old, "r1")
    before = release(new, "r2")
    stored, version = controls.store.read(PRODUCT)
    later = [dataclasses.replace(stored.history[-1], release_id=f"r{n}") for n in range(3, 3 + documents.MAX_HISTORY)]
    controls.store.swap(dataclasses.replace(stored, history=tuple(later)), expected_version=version)
    again = release(old, "r1")
    assert (again.verdict, again.status.digest) == (Verdict.PASS, new.digest)
    assert document().champion.digest == new.digest
    assert endpoint.predict([ROW])[1] == new.digest
    assert release(new, "r2").reason == before.reason


def test_a_stale_holder_is_refused_by_store_and_endpoint(env, endpoint, controls, clock, release):
    ref = make_package(env, 0.1)
    release(ref, "r1")
    stale = take(controls, PRODUCT, holder="sleeper")
    clock.sleep(7.0)
    fresh = take(controls, PRODUCT, holder="other")
    endpoint.load(uri=ref.uri, digest=ref.digest, epoch=fresh.epoch)
    with pytest.raises(StaleWriter):
        stale.store(documents.drop_lease(stale.document, epoch=stale.epoch))
    with pytest.raises(StaleWriter):
        endpoint.set_weights({}, epoch=stale.epoch)


def test_a_lost_reply_of_the_store_is_recognised(controls, monkeypatch):
    tenure = take(controls, PRODUCT, holder="me")
    swap = controls.store.swap

    def swap_twice(document, *, expected_version):
        swap(document, expected_version=expected_version)  # took effect, the answer was lost, the client tried again
        return swap(document, expected_version=expected_version)

    monkeypatch.setattr(controls.store, "swap", swap_twice)
    tenure.store(documents.renew_lease(tenure.document, epoch=tenure.epoch, now_s=5, ttl_s=5))
    assert controls.store.read(PRODUCT) == (tenure.document, tenure.version)


def test_a_lost_reply_and_an_order_after_it_are_recognised(env, controls, monkeypatch):
    ref = make_package(env, 0.1)
    tenure = take(controls, PRODUCT, holder="r1")
    candidate = Version(uri=ref.uri, digest=ref.digest, release_id="r1")
    tenure.store(documents.begin_deploy(tenure.document, candidate, epoch=tenure.epoch))
    swap, order = controls.store.swap, Order(kind=OrderKind.PAUSE, by="ada", reason="wait", at_s=1.0)

    def swap_then_order(document, *, expected_version):
        monkeypatch.setattr(controls.store, "swap", swap)
        swap(document, expected_version=expected_version)  # took effect, the answer was lost
        give_order(controls.store, PRODUCT, order)
        return swap(document, expected_version=expected_version)

    monkeypatch.setattr(controls.store, "swap", swap_then_order)
    tenure.store(documents.set_candidate_weight(tenure.document, epoch=tenure.epoch, weight_pct=100.0))
    assert (tenure.document.weight_pct, tenure.document.rollout.order) == (100.0, order)
    assert controls.store.read(PRODUCT) == (tenure.document, tenure.version)


def test_an_endpoint_ahead_of_a_lost_store_is_a_clear_error(env, endpoint, release):
    endpoint.set_weights({}, epoch=50)
    with pytest.raises(ConfigError, match="the store was lost"):
        release(make_package(env, 0.1), "r1")


def test_an_endpoint_that_forgets_what_it_is_told_does_not_loop_for_ever(env, endpoint, release, monkeypatch):
    monkeypatch.setattr(endpoint, "set_weights", lambda weights, *, epoch, dead_man, mirror: None)
    with pytest.raises(Unavailable, match="does not keep what it is told"):
        release(make_package(env, 0.1), "r1")


def test_finishing_others_does_nothing_for_an_idle_or_own_document(env, controls, release, document):
    release(make_package(env, 0.1), "r1")
    tenure = take(controls, PRODUCT, holder="r2")
    before = tenure.document
    finish_others(tenure, "r2")
    assert tenure.document == before


# --- the way back


def test_a_rollback_returns_to_the_previous_champion_once(env, endpoint, release, revert, document):
    one, two = make_package(env, 0.1), make_package(env, 0.2)
    release(one, "r1")
    release(two, "r2")
    outputs = revert("o1")
    assert outputs.verdict is Verdict.PASS
    assert (outputs.status.digest, outputs.status.previous_digest) == (one.digest, None)
    assert endpoint.predict([ROW])[1] == one.digest
    before = document()
    assert revert("o1") == outputs
    assert document() == before
    again = revert("o2")
    assert again.verdict is Verdict.FAIL
    assert "nothing to return to" in again.reason
    assert endpoint.predict([ROW])[1] == one.digest


def test_without_any_release_there_is_nothing_to_return_to(revert, document):
    outputs = revert("o1")
    assert (outputs.verdict, outputs.status) == (Verdict.FAIL, None)
    assert document().epoch == 0


def test_a_rollback_needs_no_storage(env, endpoint, release, revert):
    import shutil

    one, two = make_package(env, 0.1), make_package(env, 0.2)
    release(one, "r1")
    release(two, "r2")
    shutil.rmtree(to_path(env.store_root))
    assert revert("o1").verdict is Verdict.PASS
    assert endpoint.predict([ROW])[1] == one.digest


def test_a_rollback_does_not_wait_for_a_living_holder(env, endpoint, controls, clock, release, revert):
    one, two = make_package(env, 0.1), make_package(env, 0.2)
    release(one, "r1")
    release(two, "r2")
    take(controls, PRODUCT, holder="a slow release")
    began_s = clock.now_s()
    assert revert("o1").verdict is Verdict.PASS
    assert clock.now_s() == began_s
    assert endpoint.predict([ROW])[1] == one.digest


@pytest.mark.parametrize("where", ["check_golden", "probe_live"])
def test_a_rollback_during_a_deploy_takes_that_deploy_back(
    env, endpoint, release, revert, document, monkeypatch, where
):
    one, two = make_package(env, 0.1), make_package(env, 0.2)
    release(one, "r1")
    ordered = []
    proof = getattr(drive_module, where)

    def revert_meanwhile(*arguments):
        if not ordered:
            ordered.append(True)
            ordered.append(revert("o1"))
        return proof(*arguments)

    monkeypatch.setattr(drive_module, where, revert_meanwhile)
    outputs = release(two, "r2")
    assert ordered[1].verdict is Verdict.PASS
    assert (outputs.verdict, outputs.status.digest) == (Verdict.FAIL, one.digest)
    assert endpoint.state().weights_pct == {one.digest: 100.0}
    outcomes = {entry.release_id: entry.outcome for entry in document().history}
    assert outcomes == {"r1": Outcome.PROMOTED, "r2": Outcome.ABORTED, "o1": Outcome.ROLLED_BACK}
    assert revert("o1").status.digest == one.digest
    assert document().champion.digest == one.digest


def test_a_rollback_whose_endpoint_goes_away_stays_ordered_and_blocks_promotion(
    env, endpoint, release, revert, document, monkeypatch
):
    one, two, three = (make_package(env, bias) for bias in (0.1, 0.2, 0.3))
    release(one, "r1")
    release(two, "r2")
    with monkeypatch.context() as patch:
        patch.setattr(drive_module, "probe_live", unreachable)
        with pytest.raises(Unavailable):
            revert("o1")
        assert document().phase is Phase.ROLLING_BACK
        with pytest.raises(Unavailable):
            release(three, "r3")
        assert document().phase is Phase.ROLLING_BACK
    assert release(three, "r3").verdict is Verdict.PASS
    outcomes = [(entry.release_id, entry.outcome) for entry in document().history]
    assert outcomes[2:] == [("o1", Outcome.ROLLED_BACK), ("r3", Outcome.PROMOTED)]
    assert document().previous.digest == one.digest


def test_two_orders_at_once_return_one_step_only(env, endpoint, release, revert, document, monkeypatch):
    refs = [make_package(env, bias) for bias in (0.1, 0.2, 0.3)]
    for number, ref in enumerate(refs):
        release(ref, f"r{number}")
    with monkeypatch.context() as patch:
        patch.setattr(drive_module, "probe_live", unreachable)
        with pytest.raises(Unavailable):
            revert("o1")
    assert revert("o2").verdict is Verdict.PASS
    assert revert("o1").verdict is Verdict.PASS
    assert document().champion.digest == refs[1].digest
    assert endpoint.state().weights_pct == {refs[1].digest: 100.0}
