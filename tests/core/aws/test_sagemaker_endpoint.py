"""A SageMaker endpoint beyond the conformance suite: names, strangers, moving endpoints, what it refuses."""

import pytest

from clearway.contracts.errors import ConfigError, IntegrityError, StaleWriter, Unavailable
from clearway.infra.aws.client import client
from clearway.infra.aws.container import DIGEST_VARIABLE
from clearway.infra.aws.endpoint import open_sagemaker
from clearway.infra.aws.endpoint_control import PER_FOLDER, Control, ControlLog
from clearway.infra.aws.tags import tagged
from clearway.infra.clock import FakeClock
from clearway.infra.endpoint import check_strategies, open_endpoint
from clearway.infra.storage import join, open_storage
from sagemaker_account import Fate
from sagemaker_kit import NAME, at_sagemaker, hurry, opened_account
from serving_kit import PRODUCT, ROW, make_package


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    hurry(monkeypatch)


@pytest.fixture
def cloud(env):
    return at_sagemaker(env)


@pytest.fixture
def opened(cloud, tmp_path):
    with opened_account(cloud, FakeClock(1.7e9), home=tmp_path / "containers") as opened:
        yield opened


@pytest.fixture
def account(opened):
    return opened[0]


@pytest.fixture
def endpoint(opened):
    return opened[1]


@pytest.fixture
def served(cloud, endpoint):
    """One version with all callers."""
    ref = make_package(cloud, 0.1)
    endpoint.load(uri=ref.uri, digest=ref.digest, epoch=1)
    endpoint.set_weights({ref.digest: 100.0}, epoch=1)
    return ref


def load(endpoint, ref, epoch=1):
    endpoint.load(uri=ref.uri, digest=ref.digest, epoch=epoch)


def test_names_follow_from_what_they_name(cloud, account, endpoint, served):
    other = make_package(cloud, 0.2)
    load(endpoint, other)
    endpoint.unload(other.digest, epoch=1)
    names = set(account.models), set(account.configs)
    load(endpoint, other)
    assert (set(account.models), set(account.configs)) == names
    assert all(served.digest[:24] in name or other.digest[:24] in name for name in account.models)
    assert account.misfits == []


def test_all_that_a_release_makes_carries_its_tags(cloud, account):
    seen = {}

    def note(params, model, **_):
        if "Tags" in params:
            seen[model.name] = {tag["Key"]: tag["Value"] for tag in params["Tags"]}

    client("sagemaker").meta.events.register("provide-client-params", note)
    named = tagged(cloud, team="ops", product="flights", release="manual-1", stage="deploy")
    load(open_sagemaker(named, product=PRODUCT, clock=account.clock), make_package(cloud, 0.1))
    tags = {
        "clearway:team": "ops",
        "clearway:product": "flights",
        "clearway:environment": cloud.name,
        "clearway:release": "manual-1",
        "clearway:stage": "deploy",
    }
    assert seen == dict.fromkeys(["CreateModel", "CreateEndpointConfig", "CreateEndpoint"], tags)
    assert account.misfits == []


def test_another_image_is_another_model(cloud, account, endpoint, served):
    changed = cloud.sagemaker.model_copy(update={"image": cloud.sagemaker.image.replace(":1", ":2")})
    newer = open_sagemaker(cloud.model_copy(update={"sagemaker": changed}), product=PRODUCT, clock=account.clock)
    load(newer, make_package(cloud, 0.2), epoch=2)
    images = {m["PrimaryContainer"]["Image"] for m in account.models.values()}
    assert len(images) == 2


def test_an_endpoint_of_somebody_else_is_left_alone(cloud, account, endpoint):
    account.handle("CreateModel", {"ModelName": "theirs", "PrimaryContainer": {"Image": "x", "Environment": {}}})
    variant = {"VariantName": "AllTraffic", "ModelName": "theirs", "InstanceType": "ml.m7i.large"}
    variant |= {"InitialInstanceCount": 1, "InitialVariantWeight": 1.0}
    account.handle("CreateEndpointConfig", {"EndpointConfigName": "theirs", "ProductionVariants": [variant]})
    account._start = lambda _: ""
    account.handle("CreateEndpoint", {"EndpointName": NAME, "EndpointConfigName": "theirs"})
    with pytest.raises(ConfigError, match="not ours"):
        load(endpoint, make_package(cloud, 0.1))
    assert account.endpoints[NAME].config == "theirs"


def test_a_model_name_that_holds_something_else_is_refused(cloud, account, endpoint, served):
    other = make_package(cloud, 0.2)
    load(endpoint, other)
    endpoint.unload(other.digest, epoch=1)
    name = next(name for name in account.models if other.digest[:24] in name)
    account.models[name]["PrimaryContainer"]["Environment"][DIGEST_VARIABLE] = "9" * 64
    with pytest.raises(ConfigError, match="is not ours"):
        load(endpoint, other)
    assert endpoint.state().loaded == (served.digest,)


def test_a_change_waits_for_an_update_under_way(cloud, account, endpoint, served):
    other = make_package(cloud, 0.2)
    account.update_s = 100.0
    load(endpoint, other)
    account.endpoints[NAME].status, account.endpoints[NAME].done_s = "Updating", account.clock.now_s() + 50.0
    account.endpoints[NAME].wanted = dict(account.endpoints[NAME].weights)
    endpoint.set_weights({other.digest: 100.0}, epoch=1)
    assert endpoint.state().weights_pct == {other.digest: 100.0}


def test_an_update_that_never_ends_is_unavailable_in_time_and_found_again(cloud, account, endpoint, served):
    other = make_package(cloud, 0.2)
    account.update_s = 1e6
    began_s = account.clock.now_s()
    with pytest.raises(Unavailable, match="for more than 600 s"):
        load(endpoint, other)
    assert account.clock.now_s() - began_s < 700
    account.endpoints[NAME].done_s = account.clock.now_s() + 10
    updates = [name for name, _ in account.asked].count("UpdateEndpoint")
    load(open_sagemaker(cloud, product=PRODUCT, clock=account.clock), other)
    assert [name for name, _ in account.asked].count("UpdateEndpoint") == updates
    assert set(endpoint.state().loaded) == {served.digest, other.digest}


def test_a_first_model_that_does_not_start_leaves_its_name_free(cloud, account, endpoint):
    good = make_package(cloud, 0.1)
    with pytest.raises(IntegrityError, match="could not be created"):
        endpoint.load(uri=good.uri, digest="1" * 64, epoch=1)
    assert account.endpoints == {}
    load(endpoint, good)
    assert endpoint.state().loaded == (good.digest,)


def test_a_version_that_the_endpoint_takes_back_later_is_broken(cloud, account, endpoint, served):
    other = make_package(cloud, 0.2)
    account.next_fate = lambda: Fate("late", after_s=60.0)
    load(endpoint, other)
    assert set(endpoint.state().loaded) == {served.digest, other.digest}
    account.next_fate = Fate
    account.clock.sleep(61.0)
    state = endpoint.state()
    assert state.loaded == (served.digest,)
    assert "went back by itself" in state.broken[other.digest]
    load(endpoint, other)
    assert endpoint.state().broken == {}


def test_the_last_version_takes_the_endpoint_with_it(account, endpoint, served):
    endpoint.set_weights({}, epoch=1)
    endpoint.unload(served.digest, epoch=1)
    assert account.endpoints == {}
    assert endpoint.state().loaded == ()


@pytest.mark.parametrize(
    ("chain", "changes", "match"),
    [
        (("ab_test",), {"capture_pct": 100}, "takes no outcomes"),
        (("shadow", "canary"), {"capture_pct": 0}, "capture_pct is 0"),
        (("shadow", "canary"), {"capture_pct": 100, "shifting": "canary"}, "shifting is 'canary'"),
    ],
)
def test_strategies_that_cannot_run_there_are_refused_before_anything_moves(env, chain, changes, match):
    with pytest.raises(ConfigError, match=match):
        check_strategies(at_sagemaker(env, **changes), chain)
    check_strategies(at_sagemaker(env, **changes), ("blue_green", "canary", "watch"))
    check_strategies(at_sagemaker(env, capture_pct=100), ("shadow", "canary", "watch"))
    check_strategies(env, chain)


@pytest.mark.parametrize("name", ["image", "role"])
def test_a_setting_that_is_missing_is_named(cloud, name):
    changed = cloud.sagemaker.model_copy(update={name: ""})
    with pytest.raises(ConfigError, match=f"sagemaker.{name}"):
        open_endpoint(cloud.model_copy(update={"sagemaker": changed}), product=PRODUCT)


def test_a_lease_shorter_than_an_update_is_refused(cloud):
    store = cloud.release_store.model_copy(update={"lease_ttl_s": 600.0})
    with pytest.raises(ConfigError, match="give the lease more"):
        open_endpoint(cloud.model_copy(update={"release_store": store}), product=PRODUCT)


def test_a_package_from_elsewhere_is_refused(endpoint):
    with pytest.raises(ConfigError, match="not one of flights in this store"):
        endpoint.load(uri="s3://elsewhere/flights/models/x", digest="1" * 64, epoch=1)


def test_an_endpoint_that_nobody_made_answers_nobody(endpoint):
    with pytest.raises(Unavailable, match="nothing takes traffic"):
        endpoint.predict([ROW])


def test_of_two_writers_the_newer_epoch_wins_and_old_states_go(env):
    log = ControlLog(open_storage(env.store_root), join(env.store_root, "endpoints", "x"))
    for epoch in range(1, 2 * PER_FOLDER + 3):
        log.change(epoch, lambda c: c)
    assert log.read() == Control(epoch=2 * PER_FOLDER + 2)
    with pytest.raises(StaleWriter):
        log.change(3, lambda c: c)
    kept = open_storage(env.store_root).list(join(env.store_root, "endpoints", "x", "control"))
    assert PER_FOLDER < len(kept) <= PER_FOLDER + 3
