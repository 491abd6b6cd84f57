"""Copies of requests on a SageMaker endpoint: what is ordered of SageMaker, and what it is never asked."""

import pytest

from clearway.contracts.errors import ConfigError
from clearway.infra.aws.container import COLUMNS_VARIABLE, SHADOW_VARIABLE
from clearway.infra.aws.endpoint import open_sagemaker
from clearway.infra.clock import FakeClock
from clearway.infra.endpoint import Mirror
from sagemaker_account import Fate, Refused, variants_of
from sagemaker_kit import NAME, at_sagemaker, hurry, opened_account
from serving_kit import PRODUCT, ROW, make_package


@pytest.fixture
def opened(env, tmp_path, monkeypatch):
    hurry(monkeypatch)
    cloud = at_sagemaker(env, capture_pct=40, instance_count=2)
    with opened_account(cloud, FakeClock(1.7e9), home=tmp_path / "containers") as (account, endpoint):
        yield cloud, account, endpoint


@pytest.fixture
def account(opened):
    return opened[1]


@pytest.fixture
def endpoint(opened):
    return opened[2]


@pytest.fixture
def versions(opened):
    """Champion with all callers, the way back, and a candidate."""
    cloud, _, endpoint = opened
    found = [make_package(cloud, bias) for bias in (0.1, 0.2, 0.3)]
    for ref in found:
        endpoint.load(uri=ref.uri, digest=ref.digest, epoch=1)
        endpoint.set_weights({found[0].digest: 100.0}, epoch=1)
    return found


def copy_to(endpoint, versions, *columns):
    champion, _, candidate = versions
    mirror = Mirror(digest=candidate.digest, columns=columns)
    endpoint.set_weights({champion.digest: 100.0}, epoch=1, mirror=mirror)


def config_now(account):
    return account.configs[account.endpoints[NAME].config]


def shape_now(account):
    """What is captured, and each variant's name, model and weight."""
    config = config_now(account)
    names = ("VariantName", "ModelName", "InitialVariantWeight")
    return config["DataCaptureConfig"], [[variant[name] for name in names] for variant in variants_of(config)]


def test_one_variant_answers_and_one_gets_a_copy_of_each_request(account, endpoint, versions):
    copy_to(endpoint, versions, "carrier")
    config = config_now(account)
    (answering,), (shadow,) = config["ProductionVariants"], config["ShadowProductionVariants"]
    assert (answering["VariantName"], shadow["VariantName"]) == ("variant-1", "variant-3-shadow")
    assert answering["InitialVariantWeight"] == shadow["InitialVariantWeight"] == 100.0
    assert shadow["InitialInstanceCount"] == answering["InitialInstanceCount"]
    capture = config["DataCaptureConfig"]
    assert capture["InitialSamplingPercentage"] == 100  # whatever the setting is: answers have to be paired
    assert capture["CaptureOptions"] == [{"CaptureMode": "Input"}, {"CaptureMode": "Output"}]
    told = account.models[shadow["ModelName"]]["PrimaryContainer"]["Environment"]
    assert (told[SHADOW_VARIABLE], told[COLUMNS_VARIABLE]) == ("true", '["carrier"]')
    assert SHADOW_VARIABLE not in account.models[answering["ModelName"]]["PrimaryContainer"]["Environment"]
    account.invoke(NAME, b'{"instances": [{"hour": 1.0, "distance": 2.0, "carrier": "AA"}]}', {})
    assert {name: len(calls) for (_, name), minutes in account.calls.items() for calls in minutes.values()} == {
        "variant-1": 1,
        "variant-3-shadow": 1,
    }
    # What is captured goes to a folder here, and to S3 in test_endpoint_conformance.py.
    assert [text for text in account.misfits if "DestinationS3Uri" not in text] == []


def test_afterwards_everything_is_as_it_was(account, endpoint, versions):
    before = shape_now(account)
    copy_to(endpoint, versions)
    assert set(endpoint.state().loaded) == {versions[0].digest, versions[2].digest}
    endpoint.set_weights({versions[0].digest: 100.0}, epoch=1)
    assert shape_now(account) == before
    assert set(endpoint.state().loaded) == {ref.digest for ref in versions}


def test_weights_are_never_ordered_while_a_shadow_stands(account, endpoint, versions):
    account.asked.clear()
    copy_to(endpoint, versions)
    copy_to(endpoint, versions)  # again, as a retry does
    endpoint.observe(epoch=1)
    endpoint.set_weights({versions[2].digest: 20.0, versions[0].digest: 80.0}, epoch=1)
    orders = [name for name, _ in account.asked if name.startswith("Update")]
    assert orders == ["UpdateEndpoint", "UpdateEndpoint", "UpdateEndpointWeightsAndCapacities"]


def test_who_gets_copies_cannot_be_asked_nor_unloaded(endpoint, versions):
    copy_to(endpoint, versions)
    candidate = versions[2].digest
    assert endpoint.state().unaskable == (candidate,)
    for ask in (lambda: endpoint.predict([ROW], digest=candidate), lambda: endpoint.examples(candidate)):
        with pytest.raises(ConfigError, match="cannot be asked itself"):
            ask()
    with pytest.raises(ConfigError, match="copies of requests"):
        endpoint.unload(candidate, epoch=1)
    endpoint.unload(versions[1].digest, epoch=1)  # it waited outside, and does not come back
    endpoint.set_weights({versions[0].digest: 100.0}, epoch=1)
    assert set(endpoint.state().loaded) == {versions[0].digest, candidate}


def test_copies_beside_two_answering_versions_are_refused_and_nothing_moves(account, endpoint, versions):
    split = {versions[0].digest: 50.0, versions[1].digest: 50.0}
    endpoint.set_weights(split, epoch=1)
    before = config_now(account)
    with pytest.raises(ConfigError, match="one production variant beside a shadow"):
        endpoint.set_weights(split, epoch=1, mirror=Mirror(digest=versions[2].digest))
    assert config_now(account) == before
    assert endpoint.state().weights_pct == split


def test_slices_that_no_container_can_be_told_are_refused_before_anything_moves(account, endpoint, versions):
    before = config_now(account)
    with pytest.raises(ConfigError, match="name fewer"):
        copy_to(endpoint, versions, *(f"column number {i}" for i in range(80)))
    assert config_now(account) == before
    assert endpoint.state().mirror is None
    endpoint.unload(versions[2].digest, epoch=1)  # nobody holds it for copies


def test_the_account_refuses_what_sagemaker_refuses(account, endpoint, versions):
    copy_to(endpoint, versions)
    config = {name: value for name, value in config_now(account).items() if name != "EndpointConfigName"}
    (answering,), (shadow,) = config["ProductionVariants"], config["ShadowProductionVariants"]
    two = [answering, answering | {"VariantName": "variant-2"}]
    for number, wrong in enumerate(
        [
            {"ProductionVariants": two},
            {"ShadowProductionVariants": [shadow, shadow | {"VariantName": "other"}]},
            {"ShadowProductionVariants": [shadow | {"VariantName": "variant-1"}]},
            {"ShadowProductionVariants": [shadow | {"ModelName": "nobody"}]},
        ]
    ):
        with pytest.raises(Refused):
            account.handle("CreateEndpointConfig", config | wrong | {"EndpointConfigName": f"wrong-{number}"})
    weights = [{"VariantName": "variant-3-shadow", "DesiredWeight": 50.0}]
    with pytest.raises(Refused, match="Could not find variant"):
        account.handle(
            "UpdateEndpointWeightsAndCapacities", {"EndpointName": NAME, "DesiredWeightsAndCapacities": weights}
        )
    with pytest.raises(Refused, match="not hosted"):
        account.invoke(NAME, b"{}", {"x-amzn-sagemaker-target-variant": "variant-3-shadow"})


def test_a_shadow_of_half_the_weight_gets_half_of_the_requests(account, endpoint, versions):
    copy_to(endpoint, versions)
    account.endpoints[NAME].shadow = ("variant-3-shadow", 50.0)
    for _ in range(400):
        account.call(NAME, ROW, failing={})
    num = sum(len(calls) for calls in account.calls[NAME, "variant-3-shadow"].values())
    assert 150 < num < 250


def test_copies_that_went_away_by_themselves_are_ordered_anew(account, endpoint, versions):
    account.next_fate = lambda: Fate("late", after_s=60.0)
    copy_to(endpoint, versions)
    account.next_fate = Fate
    account.clock.sleep(61.0)
    assert "went back by itself" in endpoint.state().broken[versions[2].digest]
    assert endpoint.state().mirror is None
    copy_to(endpoint, versions)
    assert (endpoint.state().mirror, endpoint.state().broken) == (versions[2].digest, {})
    assert "ShadowProductionVariants" in config_now(account)


def test_who_reads_first_after_a_while_knows_all_that_was_not_answered(opened, versions):
    cloud, account, endpoint = opened
    copy_to(endpoint, versions)
    for _ in range(5):
        account.call(NAME, ROW, failing={versions[2].digest: 1.0})
    account.clock.sleep(600.0)
    found = open_sagemaker(cloud, product=PRODUCT, clock=account.clock).mirrored(first=0, epoch=1)
    assert [row.difference for row in found.rows] == [None] * 5
    account.call(NAME, ROW, failing={})
    account.clock.sleep(600.0)
    again = open_sagemaker(cloud, product=PRODUCT, clock=account.clock).mirrored(first=5, epoch=1)
    assert (again.first, len(again.rows), again.log_id) == (5, 1, found.log_id)
    assert again.rows[0].difference is not None
