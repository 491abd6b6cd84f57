"""Real processes that deploy and roll back at once: one order of events, one owner, traffic never un-owned."""

import pytest

from clearway.contracts.release_document import Outcome, Phase
from clearway.contracts.verdict import Verdict
from clearway.deploy.run import deploy
from clearway.deploy.spec import RollbackInputs
from clearway.infra.environment import Environment
from serving_kit import (
    PRODUCT,
    ROW,
    approved,
    client_of,
    controls_of,
    environment_at,
    finish_verb,
    free_port,
    make_package,
    running_server,
    start_verb,
)

pytestmark = pytest.mark.slow


@pytest.fixture
def live(tmp_path):
    env = Environment.load({"CLEARWAY__HOME": str(tmp_path), "CLEARWAY__STORAGE__ROOT": (tmp_path / "store").as_uri()})
    env = environment_at(env, free_port())
    with running_server(env):
        yield env, controls_of(env, client_of(env))


def outcomes_of(controls):
    return {e.release_id: e.outcome for e in controls.store.read(PRODUCT)[0].history}


def check_at_rest(controls):
    document, _ = controls.store.read(PRODUCT)
    assert (document.phase, document.lease, document.candidate) == (Phase.IDLE, None, None)
    assert controls.endpoint.state().weights_pct == {document.champion.digest: 100.0}
    assert controls.endpoint.predict([ROW])[1] == document.champion.digest
    return document


def test_two_releases_at_once_happen_one_after_the_other(live):
    env, controls = live
    refs = {name: make_package(env, 1.0 + i) for i, name in enumerate(["a", "b", "c"])}
    workers = [start_verb(env, "deploy", approved(env, ref, name), lease_ttl_s=10) for name, ref in refs.items()]
    outputs = [finish_verb(worker) for worker in workers]
    assert [o.verdict for o in outputs] == [Verdict.PASS] * 3
    document = check_at_rest(controls)
    assert outcomes_of(controls) == dict.fromkeys(refs, Outcome.PROMOTED)
    # One line of history: each release found the champion the one before it left.
    chain = [(entry.before, entry.after) for entry in document.history]
    assert [before for before, _ in chain] == [None, *(after for _, after in chain[:-1])]


def test_the_same_release_triggered_many_times_at_once_is_one_deployment(live):
    env, controls = live
    inputs = approved(env, make_package(env, 1.0), "once")
    workers = [start_verb(env, "deploy", inputs, lease_ttl_s=10) for _ in range(5)]
    outputs = [finish_verb(worker) for worker in workers]
    assert {o.verdict for o in outputs} == {Verdict.PASS}
    assert {o.status.digest for o in outputs} == {inputs.model.digest}
    document = check_at_rest(controls)
    assert [entry.release_id for entry in document.history] == ["once"]


def test_a_rollback_against_a_running_release_leaves_one_clear_owner(live):
    env, controls = live
    one, two, three = (make_package(env, 1.0 + i) for i in range(3))
    for name, ref in (("r1", one), ("r2", two)):
        assert deploy(approved(env, ref, name), controls=controls, project=lambda _: None).verdict is Verdict.PASS
    release = start_verb(env, "deploy", approved(env, three, "r3"), fault="deploy.after_intent=sleep:1", lease_ttl_s=10)
    order = start_verb(env, "rollback", RollbackInputs(product=PRODUCT, release_id="o1", reason="now"), lease_ttl_s=10)
    reverted, released = finish_verb(order), finish_verb(release)
    assert reverted.verdict is Verdict.PASS
    document = check_at_rest(controls)
    outcomes = outcomes_of(controls)
    assert outcomes["o1"] is Outcome.ROLLED_BACK
    # Whichever came first: the order met the release under way, returned before it began, or undid it.
    possible = {
        (Outcome.ABORTED, Verdict.FAIL, two.digest),
        (Outcome.PROMOTED, Verdict.PASS, three.digest),
        (Outcome.PROMOTED, Verdict.PASS, two.digest),
    }
    assert (outcomes["r3"], released.verdict, document.champion.digest) in possible
