"""What every endpoint owes its callers. Implementations: a real server process, the server core in-process, SageMaker.

SageMaker is tests/sagemaker_server.py, beside moto. What it cannot do (docs/decisions/0019) is marked here: its figures
come by the minute, hold probes too, and are read after a while.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from aws_kit import at_endpoint, make_bucket
from clearway.contracts.errors import ConfigError, IntegrityError, StaleWriter, Unavailable
from clearway.infra.clock import FakeClock
from clearway.infra.endpoint import DeadMan, Endpoint, LoggedRows, Mirror, TrafficState, open_endpoint
from clearway.infra.environment import Environment, Storage
from clearway.infra.layout import Layout
from clearway.infra.storage import join, open_storage
from clearway.serve.app import WATCH_S
from clearway.serve.logged import logged_by
from sagemaker_kit import at_sagemaker, opened_account
from serving_kit import (
    PRODUCT,
    ROW,
    InProcessEndpoint,
    client_of,
    environment_at,
    expected_score,
    free_port,
    golden_rows,
    make_package,
    running_server,
)

NUM_TRIES = 20


@dataclass(frozen=True, kw_only=True)
class Opened:
    """An implementation at work.

    Args:
        now_s, pause: the implementation's clock; pausing lets that many seconds pass.
        notices_s: after which it has noticed that a time is over.
        settle_s: after which everything that was done is counted.
        counts_probes: it cannot tell a probe from a caller.
    """

    env: Environment
    endpoint: Endpoint
    now_s: Callable[[], float] = time.monotonic
    pause: Callable[[float], None] = time.sleep
    notices_s: float = WATCH_S
    settle_s: float = 0.0
    counts_probes: bool = False


@pytest.fixture(scope="module", params=["http", "in-process", pytest.param("sagemaker", marks=pytest.mark.slow)])
def opened(request, tmp_path_factory):
    """One per implementation, so every test takes a newer epoch than the one before."""
    home = tmp_path_factory.mktemp("home")
    env = Environment.load({"CLEARWAY__HOME": str(home), "CLEARWAY__STORAGE__ROOT": (home / "store").as_uri()})
    env = environment_at(env, free_port())
    if request.param == "http":
        with running_server(env):
            yield Opened(env=env, endpoint=client_of(env))
    elif request.param == "in-process":
        endpoint = InProcessEndpoint(env)
        yield Opened(env=env, endpoint=endpoint, notices_s=0.0)
        endpoint.close()
    else:
        yield from sagemaker(env, request.getfixturevalue("moto"), tmp_path_factory.mktemp("containers"))


def sagemaker(env, moto, home):
    with pytest.MonkeyPatch.context() as patch:
        for _ in at_endpoint(moto, patch):
            storage = Storage(kind="s3", root=f"s3://{make_bucket()}/store")
            env = at_sagemaker(env, capture_pct=100).model_copy(update={"storage": storage})
            clock = FakeClock(1.7e9)
            with opened_account(env, clock, home=home, upstream=moto) as (account, endpoint):
                yield Opened(
                    env=env,
                    endpoint=endpoint,
                    now_s=clock.now_s,
                    pause=clock.sleep,
                    settle_s=300.0,
                    counts_probes=True,
                )
                assert account.misfits == []


@pytest.fixture
def env(opened):
    return opened.env


@pytest.fixture
def endpoint(opened):
    return opened.endpoint


@pytest.fixture
def epoch(endpoint):
    """An epoch nobody has used, with nothing loaded and no traffic."""
    state = endpoint.state()
    endpoint.set_weights({}, epoch=state.epoch + 1)
    for digest in state.loaded:
        endpoint.unload(digest, epoch=state.epoch + 1)
    return state.epoch + 1


def load(endpoint, ref, epoch):
    endpoint.load(uri=ref.uri, digest=ref.digest, epoch=epoch)


def test_a_loaded_version_takes_no_traffic_until_told(env, endpoint, epoch):
    ref = make_package(env, 0.1)
    load(endpoint, ref, epoch)
    load(endpoint, ref, epoch)
    assert endpoint.state() == TrafficState(weights_pct={}, loaded=(ref.digest,), epoch=epoch)
    with pytest.raises(Unavailable):
        endpoint.predict([ROW])


def test_live_and_direct_answers_name_their_version(env, endpoint, epoch):
    one, two = make_package(env, 0.1), make_package(env, 0.9)
    load(endpoint, one, epoch)
    load(endpoint, two, epoch)
    endpoint.set_weights({one.digest: 100.0}, epoch=epoch)
    scores, digest = endpoint.predict([ROW])
    assert (scores, digest) == ([pytest.approx(expected_score(0.1, ROW), abs=1e-6)], one.digest)
    scores, digest = endpoint.predict([ROW], digest=two.digest)
    assert (scores, digest) == ([pytest.approx(expected_score(0.9, ROW), abs=1e-6)], two.digest)
    endpoint.set_weights({two.digest: 100.0}, epoch=epoch)
    assert endpoint.predict([ROW])[1] == two.digest
    assert endpoint.state().weights_pct == {two.digest: 100.0}


def test_examples_are_rows_the_version_takes(env, endpoint, epoch):
    ref = make_package(env, 0.1)
    load(endpoint, ref, epoch)
    assert endpoint.examples(ref.digest) == golden_rows()
    assert len(endpoint.predict(endpoint.examples(ref.digest), digest=ref.digest)[0]) == 3


def test_an_older_epoch_is_stale(env, endpoint, epoch):
    ref, other = make_package(env, 0.1), make_package(env, 0.9)
    load(endpoint, ref, epoch)
    before = endpoint.state()
    for write in (
        lambda: load(endpoint, other, epoch - 1),
        lambda: endpoint.set_weights({ref.digest: 100.0}, epoch=epoch - 1),
        lambda: endpoint.unload(ref.digest, epoch=epoch - 1),
    ):
        with pytest.raises(StaleWriter):
            write()
        assert endpoint.state() == before


BAD_TABLES = [{"x": 99.0}, {"x": -1.0, "y": 101.0}, {"y": 100.0}, {"x": 50.0, "y": 50.0}]


def test_a_bad_table_changes_nothing(env, endpoint, epoch):
    ref = make_package(env, 0.1)
    load(endpoint, ref, epoch)
    endpoint.set_weights({ref.digest: 100.0}, epoch=epoch)
    names = {"x": ref.digest, "y": "0" * 64}
    for table in BAD_TABLES:
        with pytest.raises(ConfigError):
            endpoint.set_weights({names[name]: weight for name, weight in table.items()}, epoch=epoch)
        assert endpoint.state().weights_pct == {ref.digest: 100.0}, table


@pytest.mark.parametrize("damage", ["flip", "missing", "other digest"])
def test_a_package_that_does_not_verify_is_not_loaded(env, endpoint, epoch, damage):
    ref = make_package(env, {"flip": 0.2, "missing": 0.21, "other digest": 0.22}[damage])
    storage, model = open_storage(env.store_root), join(ref.uri, "model.onnx")
    if damage == "flip":
        storage.write(model, storage.read(model)[:-1] + b"\x00")
    elif damage == "missing":
        others = {uri: storage.read(uri) for uri in storage.list(ref.uri) if uri != model}
        storage.delete_tree(ref.uri)
        for uri, data in others.items():
            storage.write(uri, data)
    with pytest.raises(IntegrityError):
        endpoint.load(uri=ref.uri, digest="1" * 64 if damage == "other digest" else ref.digest, epoch=epoch)
    assert endpoint.state().loaded == ()


def test_what_takes_traffic_is_not_unloaded_and_what_is_absent_is_no_error(env, endpoint, epoch):
    one, two = make_package(env, 0.1), make_package(env, 0.9)
    load(endpoint, one, epoch)
    load(endpoint, two, epoch)
    endpoint.set_weights({one.digest: 100.0}, epoch=epoch)
    with pytest.raises(ConfigError):
        endpoint.unload(one.digest, epoch=epoch)
    endpoint.unload(two.digest, epoch=epoch)
    endpoint.unload(two.digest, epoch=epoch)
    assert endpoint.state().loaded == (one.digest,)


def test_rows_the_model_refuses_are_the_callers_mistake(env, endpoint, epoch):
    ref = make_package(env, 0.1)
    load(endpoint, ref, epoch)
    endpoint.set_weights({ref.digest: 100.0}, epoch=epoch)
    with pytest.raises(ConfigError, match="row 0"):
        endpoint.predict([{"hour": 1.0}])
    with pytest.raises(ConfigError, match="row 0"):
        endpoint.predict([{"hour": 1.0}], digest=ref.digest)


def test_what_is_not_loaded_cannot_be_asked(env, endpoint, epoch):
    for ask in (lambda: endpoint.predict([ROW], digest="0" * 64), lambda: endpoint.examples("0" * 64)):
        with pytest.raises(ConfigError, match="not loaded"):
            ask()


def test_logged_rows_can_be_read_after_a_flush_and_probes_never(env, endpoint, epoch):
    ref = make_package(env, 0.1)
    load(endpoint, ref, epoch)
    endpoint.set_weights({ref.digest: 100.0}, epoch=epoch)
    endpoint.predict([ROW])
    rows = LoggedRows(
        columns=("hour", "distance", "carrier"),
        rows=[(7.0, 500.0, "AA"), (None, float(epoch), None)],
        keys=(f"a{epoch}", f"b{epoch}"),
        event_times=("2013-04-01T00:00:00Z", "2013-04-01T01:00:00+00:00"),
        batch_id="2013-04-01",
    )
    scores, digest = endpoint.score_logged(rows)
    endpoint.flush_log()
    found = logged_by(open_storage(env.store_root), Layout(env.store_root, PRODUCT), "2013-04-01")
    assert (len(scores), digest) == (2, ref.digest)
    assert found == {f"a{epoch}": ref.digest, f"b{epoch}": ref.digest}


def test_a_server_that_is_not_there_is_unavailable(opened, env):
    if opened.counts_probes:
        changed = env.sagemaker.model_copy(update={"endpoint": "somewhere-else"})
        stranger = open_endpoint(env.model_copy(update={"sagemaker": changed}), product=PRODUCT)
        assert stranger.state() == TrafficState(weights_pct={}, loaded=(), epoch=0)  # made by the first load
        with pytest.raises(Unavailable):
            stranger.predict([ROW])
        return
    stranger = client_of(environment_at(env, free_port()))
    for ask in (stranger.state, lambda: stranger.predict([ROW]), stranger.flush_log):
        with pytest.raises(Unavailable):
            ask()


def test_another_product_that_is_given_this_address_is_refused_and_changes_nothing(env, endpoint, epoch):
    if isinstance(endpoint, InProcessEndpoint):
        pytest.skip("has no address")
    ref = make_package(env, 0.1)
    load(endpoint, ref, epoch)
    endpoint.set_weights({ref.digest: 100.0}, epoch=epoch)
    before, stranger = endpoint.state(), open_endpoint(env, product="deliveries")
    theirs = {"uri": ref.uri.replace(f"/{PRODUCT}/", "/deliveries/"), "digest": ref.digest}
    for change in (
        lambda: stranger.load(**theirs, epoch=epoch + 1),
        lambda: stranger.set_weights({}, epoch=epoch + 1),
        lambda: stranger.unload(ref.digest, epoch=epoch + 1),
    ):
        with pytest.raises(ConfigError, match=f"serves {PRODUCT}, .*deliveries was meant"):
            change()
    assert endpoint.state() == before


def test_the_environment_names_the_endpoint(env):
    wanted = {"local": "LocalEndpoint", "sagemaker": "SageMakerEndpoint"}[env.endpoint.kind]
    assert type(open_endpoint(env, product=PRODUCT)).__name__ == wanted


def test_a_wrong_address_is_a_config_error(env):
    wrong = {
        "endpoint": env.endpoint.model_copy(update={"url": "localhost:1"}),
        "sagemaker": env.sagemaker.model_copy(update={"endpoint": "no_name!"}),
    }
    with pytest.raises(ConfigError, match=r"allowed: (http://host:port|up to 63 letters)"):
        open_endpoint(env.model_copy(update=wrong), product=PRODUCT)


def test_each_version_is_counted_by_the_callers_it_answered(opened, env, endpoint, epoch):
    one, two = make_package(env, 0.1), make_package(env, 0.9)
    load(endpoint, one, epoch)
    load(endpoint, two, epoch)
    opened.pause(opened.settle_s)
    before = endpoint.observe(epoch=epoch).arms
    for ref, num_requests in ((one, 2), (two, 1)):
        endpoint.set_weights({ref.digest: 100.0}, epoch=epoch)
        for _ in range(num_requests):
            endpoint.score_logged(batch(2))
        endpoint.predict([ROW])  # a probe is no caller
    opened.pause(opened.settle_s)
    after = endpoint.observe(epoch=epoch)
    assert after.epoch == epoch
    assert len(after.arms[one.digest].latencies) == len(after.latency_bounds_s) + 1
    for ref, num_requests in ((one, 2), (two, 1)):
        found, earlier = after.arms[ref.digest], before.get(ref.digest)
        num_counted = num_requests + opened.counts_probes
        assert found.num_requests - (earlier.num_requests if earlier else 0) == num_counted
        assert found.num_scores - (earlier.num_scores if earlier else 0) == num_requests  # one per request of two rows
        assert found.num_errors == (earlier.num_errors if earlier else 0)
        assert sum(found.latencies) == found.num_requests


def test_watching_under_an_older_epoch_is_stale(endpoint, epoch):
    with pytest.raises(StaleWriter):
        endpoint.observe(epoch=epoch - 1)


def test_a_silent_controller_loses_the_share_and_a_watching_one_keeps_it(opened, env, endpoint, epoch):
    stable, candidate = make_package(env, 0.1), make_package(env, 0.9)
    load(endpoint, stable, epoch)
    load(endpoint, candidate, epoch)
    split = {candidate.digest: 5.0, stable.digest: 95.0}
    dead_man = DeadMan(stable=stable.digest, after_s=0.6)
    for _ in range(NUM_TRIES):
        weights_pct, silent_s = watched(opened, split, epoch, dead_man)
        if silent_s < dead_man.after_s:
            break
    else:
        pytest.fail("this machine stood still longer than the timer runs, at every try")
    assert weights_pct == split
    assert eventually(lambda: endpoint.state().weights_pct == {stable.digest: 100.0}, pause=opened.pause)
    endpoint.set_weights(split, epoch=epoch)  # the controller is back, and arms none
    opened.pause(dead_man.after_s + opened.notices_s + 0.1)
    assert endpoint.state().weights_pct == split


def watched(opened, weights_pct, epoch, dead_man):
    """Watch for longer than the timer runs: the table then, and for how long the server may have heard nothing."""
    endpoint, silent_s, asked_s = opened.endpoint, 0.0, opened.now_s()
    over_s = asked_s + dead_man.after_s + opened.notices_s + 0.1
    endpoint.set_weights(weights_pct, epoch=epoch, dead_man=dead_man)
    while opened.now_s() < over_s:
        opened.pause(0.1)
        asked_before_s, asked_s = asked_s, opened.now_s()
        endpoint.observe(epoch=epoch)
        silent_s = max(silent_s, opened.now_s() - asked_before_s)
    found = endpoint.state().weights_pct
    return found, max(silent_s, opened.now_s() - asked_s)


def test_a_dead_man_must_name_a_loaded_version(env, endpoint, epoch):
    ref = make_package(env, 0.1)
    load(endpoint, ref, epoch)
    with pytest.raises(ConfigError, match="not loaded"):
        endpoint.set_weights({ref.digest: 100.0}, epoch=epoch, dead_man=DeadMan(stable="f" * 64, after_s=1.0))
    assert endpoint.state().weights_pct == {}


def test_a_mirrored_version_answers_the_same_rows_and_nobody_hears_it(opened, env, endpoint, epoch):
    stable, candidate = make_package(env, 0.1), make_package(env, 0.9)
    load(endpoint, stable, epoch)
    load(endpoint, candidate, epoch)
    before = endpoint.observe(epoch=epoch).arms.get(candidate.digest)
    mirror = Mirror(digest=candidate.digest, columns=("carrier", "hour"))
    endpoint.set_weights({stable.digest: 100.0}, epoch=epoch, mirror=mirror)
    assert endpoint.state().mirror == candidate.digest
    assert endpoint.predict([ROW])[1] == stable.digest  # a probe is not mirrored
    assert endpoint.score_logged(batch(3))[1] == stable.digest
    seen = settled(opened, 3, epoch)
    assert (seen.candidate, seen.control, seen.first, seen.epoch) == (candidate.digest, stable.digest, 0, epoch)
    gap = expected_score(0.9, ROW) - expected_score(0.1, ROW)
    assert [row.difference for row in seen.rows] == [pytest.approx(gap, abs=1e-6)] * 3
    assert {row.slices for row in seen.rows} == {("carrier=AA", "hour=7.0")}
    assert len(endpoint.mirrored(first=2, epoch=epoch).rows) == 1
    assert endpoint.mirrored(first=9, epoch=epoch).rows == ()
    with pytest.raises(StaleWriter):
        endpoint.mirrored(first=0, epoch=epoch - 1)
    assert endpoint.observe(epoch=epoch).arms.get(candidate.digest) == before
    endpoint.set_weights({stable.digest: 100.0}, epoch=epoch)
    assert endpoint.state().mirror is None
    endpoint.score_logged(batch(1))
    assert len(endpoint.mirrored(first=0, epoch=epoch).rows) == 3


def test_a_dead_man_ends_mirroring_and_a_mirror_must_make_sense(opened, env, endpoint, epoch):
    stable, candidate = make_package(env, 0.1), make_package(env, 0.9)
    load(endpoint, stable, epoch)
    with pytest.raises(ConfigError, match="not loaded"):
        endpoint.set_weights({stable.digest: 100.0}, epoch=epoch, mirror=Mirror(digest=candidate.digest))
    with pytest.raises(ConfigError, match="answers callers itself"):
        endpoint.set_weights({stable.digest: 100.0}, epoch=epoch, mirror=Mirror(digest=stable.digest))
    load(endpoint, candidate, epoch)
    mirror = Mirror(digest=candidate.digest)
    endpoint.set_weights({stable.digest: 100.0}, epoch=epoch, mirror=mirror)
    with pytest.raises(ConfigError, match="copies of requests"):
        endpoint.unload(candidate.digest, epoch=epoch)
    dead_man = DeadMan(stable=stable.digest, after_s=0.3)
    endpoint.set_weights({stable.digest: 100.0}, epoch=epoch, dead_man=dead_man, mirror=mirror)
    assert eventually(lambda: endpoint.state().mirror is None, pause=opened.pause)
    assert endpoint.state().weights_pct == {stable.digest: 100.0}
    assert set(endpoint.state().loaded) == {stable.digest, candidate.digest}


def test_versions_are_the_same_before_and_after_a_mirror(env, endpoint, epoch):
    stable, candidate, previous = (make_package(env, bias) for bias in (0.1, 0.9, 0.5))
    for ref in (stable, previous, candidate):
        load(endpoint, ref, epoch)
    mirror = Mirror(digest=candidate.digest)
    endpoint.set_weights({stable.digest: 100.0}, epoch=epoch, mirror=mirror)
    load(endpoint, candidate, epoch)  # again, as the next driver does
    load(endpoint, stable, epoch)
    state = endpoint.state()
    assert (state.mirror, state.weights_pct, state.broken) == (candidate.digest, {stable.digest: 100.0}, {})
    assert {stable.digest, candidate.digest} <= set(state.loaded)
    endpoint.set_weights({stable.digest: 100.0}, epoch=epoch)
    assert set(endpoint.state().loaded) == {stable.digest, candidate.digest, previous.digest}
    assert (endpoint.state().mirror, endpoint.state().unaskable) == (None, ())
    endpoint.set_weights({stable.digest: 100.0}, epoch=epoch, mirror=mirror)
    load(endpoint, previous, epoch)  # the way back, in the middle of it
    endpoint.set_weights({previous.digest: 100.0}, epoch=epoch)
    assert endpoint.predict([ROW])[1] == previous.digest
    assert set(endpoint.state().loaded) == {stable.digest, candidate.digest, previous.digest}


def settled(opened, num_rows, epoch):
    """What was mirrored, once that many rows are there; the loop runs only while something is asked."""
    endpoint = opened.endpoint

    def is_settled():
        opened.pause(opened.settle_s)
        return endpoint.predict([ROW]) and len(endpoint.mirrored(first=0, epoch=epoch).rows) == num_rows

    assert eventually(is_settled)
    return endpoint.mirrored(first=0, epoch=epoch)


def batch(num_rows):
    """Rows as callers send them."""
    return LoggedRows(
        columns=("hour", "distance", "carrier"),
        rows=[(7.0, 500.0, "AA")] * num_rows,
        keys=[f"k{i}" for i in range(num_rows)],
        event_times=["2013-04-08T00:00:00Z"] * num_rows,
        batch_id="2013-04-08",
    )


def eventually(is_so, *, timeout_s=60.0, pause=time.sleep):
    """Whether a condition becomes true in time."""
    deadline = time.monotonic() + timeout_s
    while not is_so():
        if time.monotonic() > deadline:
            return False
        pause(0.05)
    return True
