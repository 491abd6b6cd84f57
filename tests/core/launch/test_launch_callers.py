"""The stand-in callers: they ask only while a canary waits, and survive everything that goes away."""

import dataclasses
import itertools

import pytest

from clearway.contracts import release_document as documents
from clearway.contracts.release_document import Phase, ReleaseDocument, Version
from clearway.contracts.rollout import PlanStep, Rollout
from clearway.infra.release_store import open_release_store
from clearway.launch import callers
from clearway.launch.callers import Callers, are_wanted, ask_all
from serving_kit import PRODUCT, client_of, environment_at, free_port, make_package, running_server

ONE = Version(uri="file:///m/one", digest="1" * 64, release_id="r1")
TWO = Version(uri="file:///m/two", digest="2" * 64, release_id="r2")
PLAN = (PlanStep(weight_pct=20, min_requests=10), PlanStep(weight_pct=100))


def canary(champion: Version = ONE, candidate: Version = TWO) -> ReleaseDocument:
    document = ReleaseDocument(product=PRODUCT, champion=champion)
    return documents.begin_deploy(document, candidate, epoch=0, rollout=Rollout(strategy="canary", plan=PLAN))


def test_they_are_wanted_only_where_evidence_is_asked_for() -> None:
    document = canary()
    assert are_wanted(document)
    assert not are_wanted(ReleaseDocument(product=PRODUCT, champion=ONE))
    assert not are_wanted(documents.begin_abort(document, epoch=0, reason="why"))
    assert document.rollout is not None
    assert not are_wanted(dataclasses.replace(document, rollout=dataclasses.replace(document.rollout, index=1)))


@pytest.mark.slow
def test_they_ask_the_live_server_and_are_counted(env, monkeypatch) -> None:
    monkeypatch.setattr(callers, "IDLE_S", 0.01)
    monkeypatch.setattr(callers, "BURST_S", 0.2)
    local = environment_at(env, free_port())
    one, two = make_package(local, 0.1), make_package(local, 0.2)
    versions = [Version(uri=ref.uri, digest=ref.digest, release_id="r") for ref in (one, two)]
    store, endpoint = open_release_store(local), client_of(local)
    crowd = Callers(store, endpoint, url=local.endpoint.url, product=PRODUCT)
    store.swap(canary(*versions), expected_version=0)
    assert ask_all([crowd], should_stop=iter([False, True])) == 0  # nothing answers yet
    with running_server(local):
        for ref in (one, two):
            endpoint.load(uri=ref.uri, digest=ref.digest, epoch=1)
        endpoint.set_weights({two.digest: 50.0, one.digest: 50.0}, epoch=1)
        assert ask_all([crowd], should_stop=itertools.chain([False] * 2, [True])) == 2 * int(
            callers.REQUESTS_PER_S * 0.2
        )
        counted = [endpoint.observe(epoch=1).arms[ref.digest].num_requests for ref in (one, two)]
    assert sum(counted) == 120
    assert min(counted) > 20
    assert store.read(PRODUCT)[0].phase is Phase.DEPLOYING
