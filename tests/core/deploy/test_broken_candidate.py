"""A candidate whose process ends while callers meet it: the release ends at once, with that reason, and callers noticed
nothing."""

import os
import signal
import time

import pytest

from clearway.contracts.release_document import Phase
from clearway.contracts.verdict import Verdict
from clearway.deploy.run import deploy
from clearway.deploy.strategies import begin
from rollout_kit import PLAN, Street
from serving_kit import PRODUCT, InProcessEndpoint, approved, controls_of, make_package

pytestmark = pytest.mark.slow  # every candidate is a process


@pytest.fixture
def endpoint(env):
    made = InProcessEndpoint(env, isolates=True)
    yield made
    made.close()


def test_a_candidate_whose_process_ends_is_given_up_at_once_and_can_be_released_again(env, endpoint):
    street = Street(endpoint)
    controls = controls_of(env, endpoint, clock=street, lease_ttl_s=6.0)
    champion, candidate = make_package(env, 0.1), make_package(env, 0.11)

    def release(ref, release_id):
        return deploy(approved(env, ref, release_id), controls=controls, project=lambda _: None, rollout=begin(PLAN))

    def kill():
        child = endpoint.server.versions.serving.loaded[candidate.digest]
        os.kill(child.pid, signal.SIGKILL)
        deadline = time.monotonic() + 60
        while not endpoint.state().broken:
            assert time.monotonic() < deadline
            time.sleep(0.01)

    assert release(champion, "r1").verdict is Verdict.PASS
    street.happenings[street.slept + 2] = kill
    outputs = release(candidate, "r2")
    assert outputs.verdict is Verdict.FAIL
    assert "the endpoint took it out of service: its process was ended by signal 9" in outputs.reason
    document = controls.store.read(PRODUCT)[0]
    assert (document.phase, document.champion.digest) == (Phase.IDLE, champion.digest)
    assert endpoint.state().weights_pct == {champion.digest: 100.0}
    assert set(street.answered) <= {champion.digest, candidate.digest}
    assert candidate.digest in street.answered
    assert release(candidate, "r3").verdict is Verdict.PASS
    assert endpoint.state().weights_pct == {candidate.digest: 100.0}
    assert endpoint.state().broken == {}
