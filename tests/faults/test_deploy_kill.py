"""kill -9 of the deploying process at every named point, then a retry or the reconciler: always the same end.

The points are not listed here: they are recorded from an undisturbed run, so a new one is killed as soon as it exists.
"""

import signal
import time
from collections import Counter

import psutil
import pytest

from clearway.contracts import release_document as documents
from clearway.contracts.release_document import Outcome, Phase
from clearway.contracts.verdict import Verdict
from clearway.deploy import drive, rollback, run
from clearway.deploy.reconcile import repair
from clearway.deploy.spec import RollbackInputs
from clearway.infra.clock import FakeClock
from clearway.infra.environment import Environment
from serving_kit import (
    PRODUCT,
    ROW,
    InProcessEndpoint,
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
LEASE_TTL_S = 60.0  # of victims: longer than this machine ever stands still
STORIES = ["promote", pytest.param("abort", marks=pytest.mark.long), "rollback"]


def order(release_id):
    return RollbackInputs(product=PRODUCT, release_id=release_id, reason="a test")


def record_points(env, story, monkeypatch):
    """(point, nth visit) of one undisturbed run on the server core itself."""
    visits, endpoint = [], InProcessEndpoint(env)
    try:
        controls = controls_of(env, endpoint)
        deploy_all(env, controls, [0.11, 0.12])
        with monkeypatch.context() as patch:
            for module in (run, drive, rollback):
                patch.setattr(module, "fault", visits.append)
            if story == "rollback":
                rollback.roll_back(order("story"), controls=controls)
            else:
                ref = make_package(env, 0.13, golden_shift=0.0 if story == "promote" else 0.1)
                run.deploy(approved(env, ref, "story"), controls=controls, project=lambda _: None)
    finally:
        endpoint.close()
    seen = Counter()
    numbered = []
    for point in visits:
        seen[point] += 1
        numbered.append((point, seen[point]))
    return numbered


def deploy_all(env, controls, biases):
    for bias in biases:
        ref = make_package(env, bias)
        assert (
            run.deploy(approved(env, ref, f"base-{bias}"), controls=controls, project=lambda _: None).verdict
            is Verdict.PASS
        )


@pytest.fixture(scope="module")
def live(tmp_path_factory):
    """One real server for all stories."""
    home = tmp_path_factory.mktemp("home")
    env = Environment.load({"CLEARWAY__HOME": str(home), "CLEARWAY__STORAGE__ROOT": (home / "store").as_uri()})
    env = environment_at(env, free_port())
    with running_server(env):
        yield env


def fingerprint(controls, story_id):
    """What must not depend on crashes: how it ended, what serves, what is loaded, and that nothing is left over."""
    document, _ = controls.store.read(PRODUCT)
    state = controls.endpoint.state()
    entry = documents.outcome_of(document, story_id)
    return {
        "outcome": entry.outcome,
        "ended": [e.release_id for e in document.history].count(story_id),
        "champion": document.champion.digest,
        "previous": document.previous.digest if document.previous else None,
        "idle": (document.phase, document.lease, document.candidate),
        "weights": state.weights_pct,
        "loaded": set(state.loaded),
        "answers": controls.endpoint.predict([ROW])[1],
    }


def expected(story, before, after):
    champion, previous = {"promote": (after, before[1]), "abort": before[::-1], "rollback": (before[0], None)}[story]
    return {
        "outcome": {"promote": Outcome.PROMOTED, "abort": Outcome.ABORTED, "rollback": Outcome.ROLLED_BACK}[story],
        "ended": 1,
        "champion": champion,
        "previous": previous,
        "idle": (Phase.IDLE, None, None),
        "weights": {champion: 100.0},
        "loaded": {d for d in (champion, previous) if d},
        "answers": champion,
    }


@pytest.mark.parametrize("healer", ["retry", "reconcile"])
@pytest.mark.parametrize("story", STORIES)
def test_a_kill_at_any_point_ends_like_the_undisturbed_run(live, env, story, healer, monkeypatch):
    points = record_points(env, story, monkeypatch)
    assert len(points) >= {"promote": 12, "abort": 10, "rollback": 7}[story]
    controls = controls_of(live, client_of(live))
    for number, (point, nth) in enumerate(points):
        name = f"{story}-{healer}-{number}"
        biases = [1 + hash_free(name, i) for i in range(3)]
        document = with_a_way_back(live, controls, name, biases[:2])
        before = [document.previous.digest, document.champion.digest]
        if story == "rollback":
            inputs, verb, after = order(name), "rollback", None
        else:
            ref = make_package(live, biases[2], golden_shift=0.0 if story == "promote" else 0.1)
            inputs, verb, after = approved(live, ref, name), "deploy", ref.digest
        victim = start_verb(live, verb, inputs, fault=f"{point}=kill@{nth}", lease_ttl_s=LEASE_TTL_S)
        victim.communicate(timeout=60)
        assert victim.returncode == -signal.SIGKILL, (point, nth)
        heal(live, controls, healer, story, inputs, name)
        assert fingerprint(controls, name) == expected(story, before, after), (point, nth, healer)


def heal(live, controls, healer, story, inputs, name):
    clock = FakeClock(controls.clock.now_s() + 2 * LEASE_TTL_S)  # its lease is long over
    later = controls_of(live, controls.endpoint, clock=clock)
    if healer == "reconcile":
        repair(PRODUCT, controls=later, read_alias=lambda: "", project=lambda _: None)
        document, _ = controls.store.read(PRODUCT)
        if documents.outcome_of(document, name) is not None and story != "rollback":
            return  # the stored intent was finished without its owner
    # Before the intent is stored there is nothing to finish: then the retry of the task does it.
    if story == "rollback":
        rollback.roll_back(inputs, controls=later)
    else:
        run.deploy(inputs, controls=later, project=lambda _: None)


def hash_free(name, index):
    """A different model for every story: a bias no other package has."""
    return (sum(ord(mark) * 31**i for i, mark in enumerate(name)) % 99_991) / 99_991 + index


def with_a_way_back(env, controls, name, biases):
    """Where the story before ended, after as many releases as it takes to have a champion and one before it."""
    for i, bias in enumerate(biases):
        document, _ = controls.store.read(PRODUCT)
        if document.champion and document.previous:
            break
        ref = make_package(env, bias)
        outputs = run.deploy(approved(env, ref, f"{name}-base{i}"), controls=controls, project=lambda _: None)
        assert outputs.verdict is Verdict.PASS
    return controls.store.read(PRODUCT)[0]


def test_a_stopped_process_that_wakes_after_its_lease_changes_nothing(live):
    controls = controls_of(live, client_of(live), lease_ttl_s=3.0)
    slow, fast = make_package(live, 7.1), make_package(live, 7.2)
    sleeper = start_verb(
        live, "deploy", approved(live, slow, "sleeper"), fault="deploy.before_weights=stop", lease_ttl_s=3.0
    )
    wait_for(lambda: psutil.Process(sleeper.pid).status() == psutil.STATUS_STOPPED)
    winner = run.deploy(approved(live, fast, "winner"), controls=controls, project=lambda _: None)
    sleeper.send_signal(signal.SIGCONT)
    loser = finish_verb(sleeper)
    assert winner.verdict is Verdict.PASS
    assert loser.verdict is Verdict.FAIL
    assert loser.reason.startswith("superseded")
    assert controls.endpoint.predict([ROW])[1] == fast.digest
    outcomes = {e.release_id: e.outcome for e in controls.store.read(PRODUCT)[0].history}
    assert (outcomes["sleeper"], outcomes["winner"]) == (Outcome.SUPERSEDED, Outcome.PROMOTED)


def wait_for(condition, timeout_s=120.0):
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)
