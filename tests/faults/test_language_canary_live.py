"""Canaries of a language model on a real server process, with callers who send texts of their own."""

import threading

import httpx
import numpy as np
import pytest

from clearway.contracts.verdict import Verdict
from clearway.deploy.controls import open_controls
from clearway.deploy.run import deploy
from clearway.deploy.strategies import begin
from clearway.infra.environment import Environment
from clearway.launch.drill import drill
from clearway.launch.sabotage import Defect
from clearway.product_rollout import Rollout
from http_kit import PATIENCE_S
from language_kit import api_docs, make_world, text_of
from serving_kit import approved, client_of, environment_at, free_port, running_server

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

NUM_CALLERS = 2
PAUSE_S = 0.01  # between a caller's requests: what is tried needs time on the processor too
CANARY = Rollout(
    strategy="canary",
    steps_pct=(50.0, 100.0),
    min_requests=30,
    min_step_s=0.5,
    max_step_s=120.0,
    error_margin=0.2,
    slow_s=10.0,  # a machine that stands still for a moment is no story
    slow_margin=0.3,
    score_margin=0.5,
    dry_run=(),
)


@pytest.fixture(scope="module")
def live(tmp_path_factory):
    """(environment, world, champion) of a running server, and callers that never stop asking."""
    home = tmp_path_factory.mktemp("home")
    env = Environment.load({"CLEARWAY__HOME": str(home), "CLEARWAY__STORAGE__ROOT": (home / "store").as_uri()})
    env = environment_at(env, free_port())
    world = make_world(env)
    champion = world.package(home / "champion", num_epochs=4)
    with running_server(env, product="api_docs"):
        assert release(env, champion, "r1").verdict is Verdict.PASS
        stop, wrong = threading.Event(), []
        threads = [threading.Thread(target=call, args=(env, n, stop, wrong)) for n in range(NUM_CALLERS)]
        for thread in threads:
            thread.start()
        try:
            yield env, world, champion.digest
        finally:
            stop.set()
            for thread in threads:
                thread.join(PATIENCE_S)
        assert wrong == [], "every text was answered, whoever was chosen for it"


def call(env, number, stop, wrong):
    """Ask for the bits of texts that nobody has seen, until told to stop."""
    rng, asked = np.random.default_rng(number), 0
    with httpx.Client(base_url=env.endpoint.url, timeout=PATIENCE_S) as client:
        while not stop.is_set():
            asked += 1
            body = {"instances": [{"text": text_of(rng)}]}
            answer = client.post("/invocations", json=body, headers={"x-clearway-sticky-key": f"{number}-{asked}"})
            if answer.status_code != 200:
                wrong.append(answer.text)
            stop.wait(PAUSE_S)


def release(env, ref, release_id, **plan):
    controls = open_controls(env, product="api_docs")
    inputs = approved(env, ref, release_id, product="api_docs")
    return deploy(inputs, controls=controls, project=lambda _: None, **plan)


@pytest.mark.parametrize(
    ("defect", "finding", "changes"),
    [
        (Defect.SLOW, "slow: harm shown", {"slow_s": 0.05}),
        pytest.param(Defect.WRONG, "score: shifted", {}, marks=pytest.mark.long),
        (Defect.CRASHING, "errors: harm shown", {}),
    ],
)
def test_a_bad_copy_goes_back_by_itself(live, monkeypatch, defect, finding, changes):
    monkeypatch.setattr("clearway.launch.sabotage_text.SLOW_S", 0.2)  # on a slow machine some seconds
    env, _, champion = live
    rollout = CANARY.model_copy(update=changes)
    product = api_docs().model_copy(update={"spec": api_docs().spec.model_copy(update={"rollout": rollout})})
    drilled = drill(env, product, defect, say=lambda _: None)
    assert drilled.is_safe, drilled.reason
    assert finding in drilled.reason
    assert drilled.num_requests > 0
    assert client_of(env, product="api_docs").state().weights_pct == {champion: 100.0}


def test_a_good_model_takes_all_callers_by_its_own_verdict(live):
    """The last of these tests: from here on another champion serves."""
    env, world, champion = live
    candidate = world.package(env.home / "candidate", num_epochs=5)
    outputs = release(env, candidate, "r2", rollout=begin(CANARY))
    assert outputs.verdict is Verdict.PASS, outputs.reason
    endpoint = client_of(env, product="api_docs")
    assert endpoint.state().weights_pct == {candidate.digest: 100.0}
    arms = endpoint.observe(epoch=endpoint.state().epoch).arms
    assert min(arms[digest].num_requests for digest in (champion, candidate.digest)) >= CANARY.min_requests
    assert {arms[digest].num_errors for digest in (champion, candidate.digest)} == {0}
