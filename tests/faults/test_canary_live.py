"""Canaries on a real server process with live callers: a good model goes up, every sabotaged copy goes back."""

import itertools
import threading
import time

import pytest

from clearway.contracts.errors import ConfigError
from clearway.contracts.verdict import Verdict
from clearway.deploy.run import deploy
from clearway.deploy.strategies import begin
from clearway.infra.clock import SystemClock
from clearway.infra.release_store import open_release_store
from clearway.launch.callers import Callers, ask_all
from clearway.launch.drill import HEARD, drill, plan_of
from clearway.launch.sabotage import Defect
from clearway.product_rollout import Rollout, Shadow, Watch
from clearway.product_yaml import find_product
from clearway.serve.app import WATCH_S
from serving_kit import (
    PRODUCT,
    approved,
    client_of,
    controls_of,
    environment_at,
    free_port,
    make_package,
    running_server,
)

pytestmark = pytest.mark.slow

CANARY = Rollout(
    strategy="canary",
    steps_pct=(20.0, 100.0),
    min_requests=50,
    min_step_s=1.0,
    max_step_s=60.0,
    error_margin=0.05,
    slow_s=0.05,
    slow_margin=0.1,
    dry_run=(),
)
# Where slowness is not the story: on a busy machine a candidate, asked in another process, is slow now and then.
PATIENT = CANARY.model_copy(update={"slow_s": 10.0})


def release(env, ref, release_id, **plan):
    controls = controls_of(env, client_of(env), clock=SystemClock(), lease_ttl_s=30.0)
    return deploy(approved(env, ref, release_id), controls=controls, project=lambda _: None, **plan)


@pytest.fixture
def live(env):
    """(environment, product, champion's digest) of a running server with a champion and callers."""
    local = environment_at(env, free_port())
    product = find_product(local.products, PRODUCT)
    product = product.model_copy(update={"spec": product.spec.model_copy(update={"rollout": CANARY})})
    with running_server(local):
        champion = make_package(local, 0.1)
        assert release(local, champion, "r1").verdict is Verdict.PASS
        crowd = Callers(open_release_store(local), client_of(local), url=local.endpoint.url, product=PRODUCT)
        stop = threading.Event()
        stopping = (stop.is_set() for _ in itertools.count())
        thread = threading.Thread(target=ask_all, args=([crowd],), kwargs={"should_stop": stopping})
        thread.start()
        try:
            yield local, product, champion.digest
        finally:
            stop.set()
            thread.join(60)


def test_a_good_model_takes_all_traffic(live):
    env, _, champion = live
    candidate = make_package(env, 0.11)
    outputs = release(env, candidate, "r2", rollout=begin(PATIENT))
    assert outputs.verdict is Verdict.PASS, outputs.reason
    endpoint = client_of(env)
    assert endpoint.state().weights_pct == {candidate.digest: 100.0}
    arms = endpoint.observe(epoch=endpoint.state().epoch).arms
    assert min(arms[digest].num_requests for digest in (champion, candidate.digest)) >= 50
    assert {arm.num_errors for arm in arms.values()} == {0}


def test_a_watched_model_keeps_the_traffic_once_nobody_drives_any_more(live, monkeypatch):
    """The timer that guards a rollout must not take the traffic from the champion that the rollout made."""
    dead_man_s = 2.0
    monkeypatch.setattr("clearway.deploy.drive.DEAD_MAN_S", dead_man_s)
    env, _, _ = live
    candidate = make_package(env, 0.11)
    watched = PATIENT.model_copy(
        update={
            "strategy": ("shadow", "canary", "watch"),
            "shadow": Shadow(min_rows=100),
            "watch": Watch(min_s=1.0, min_requests=100),
        }
    )
    outputs = release(env, candidate, "r2", rollout=begin(watched))
    assert outputs.verdict is Verdict.PASS, outputs.reason
    time.sleep(dead_man_s + 2 * WATCH_S)
    state = client_of(env).state()
    assert (state.weights_pct, state.dead_man, state.mirror) == ({candidate.digest: 100.0}, None, None)


@pytest.mark.parametrize(
    ("defect", "finding"),
    [(Defect.SLOW, "slow: harm shown"), (Defect.WRONG, "score: shifted"), (Defect.CRASHING, "errors: harm shown")],
)
def test_a_sabotaged_copy_goes_back_by_itself_and_its_callers_are_few(live, defect, finding):
    env, product, champion = live
    if defect is not Defect.SLOW:
        product = product.model_copy(update={"spec": product.spec.model_copy(update={"rollout": PATIENT})})
    drilled = drill(env, product, defect, say=lambda _: None)
    assert drilled.is_safe, drilled.reason
    assert finding in drilled.reason
    assert 0 < drilled.num_requests <= 400
    assert client_of(env).state().weights_pct == {champion: 100.0}


def test_behind_a_mirror_one_copy_still_meets_callers_and_each_event_is_a_line(live, caplog):
    env, product, champion = live
    mirrored = PATIENT.model_copy(update={"strategy": ("shadow", "canary"), "shadow": Shadow(min_rows=100)})
    product = product.model_copy(update={"spec": product.spec.model_copy(update={"rollout": mirrored})})
    lines = []
    caplog.set_level("INFO", "clearway.deploy")
    drilled = drill(env, product, HEARD, say=lines.append)
    assert drilled.is_safe, drilled.reason
    assert 0 < drilled.num_unanswered <= drilled.num_requests <= 400
    told = [line.removeprefix(f"    {drilled.release_id}").strip() for line in lines]
    assert "20 % of traffic from here on" in told
    assert not any("mirror" in line for line in told)
    assert told[-1].startswith("idle: errors: harm shown"), told
    assert "clearway.deploy" not in {record.name for record in caplog.records}, "raw log lines between the others"
    assert client_of(env).state().weights_pct == {champion: 100.0}


@pytest.mark.parametrize("chain", [("shadow", "blue_green", "watch"), ("shadow", "blue_green")], ids=str)
def test_no_copy_skips_the_mirror_where_all_callers_would_meet_it_next(chain):
    settings = CANARY.model_copy(update={"strategy": chain})
    assert plan_of(settings, HEARD) is settings


def test_a_product_whose_rollout_compares_nothing_is_not_drilled(live):
    env, product, champion = live
    blind = product.model_copy(update={"spec": product.spec.model_copy(update={"rollout": Rollout()})})
    with pytest.raises(ConfigError, match="blue_green, which compares nothing"):
        drill(env, blind, Defect.WRONG, say=lambda _: None)
    assert client_of(env).state().weights_pct == {champion: 100.0}
