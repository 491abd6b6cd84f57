"""Variants of a SageMaker endpoint are scaled while they stand: moto keeps targets and policies, over HTTP."""

import pytest

from clearway.contracts.errors import Unavailable
from clearway.infra.aws.client import client
from clearway.infra.aws.scaling import METRIC
from clearway.infra.clock import FakeClock
from sagemaker_account import Fate
from sagemaker_kit import NAME, at_sagemaker, hurry, opened_account
from serving_kit import make_package


@pytest.fixture
def opened(env, moto, tmp_path, monkeypatch):
    hurry(monkeypatch)
    cloud = at_sagemaker(env, instance_count=2, max_count=6, calls_per_minute=700.0)
    with opened_account(cloud, FakeClock(1.7e9), home=tmp_path / "containers", upstream=moto) as (account, endpoint):
        yield cloud, account, endpoint
        for target in targets():
            client("application-autoscaling").deregister_scalable_target(
                **{key: target[key] for key in ("ServiceNamespace", "ResourceId", "ScalableDimension")}
            )


def targets():
    return client("application-autoscaling").describe_scalable_targets(ServiceNamespace="sagemaker")["ScalableTargets"]


def scaled():
    return sorted(target["ResourceId"] for target in targets())


def of(number):
    return f"endpoint/{NAME}/variant/variant-{number}"


def load(endpoint, ref):
    endpoint.load(uri=ref.uri, digest=ref.digest, epoch=1)


def test_a_variant_is_scaled_once_it_stands_and_no_longer_before_it_goes(opened):
    cloud, account, endpoint = opened
    first, second = make_package(cloud, 0.1), make_package(cloud, 0.2)
    load(endpoint, first)
    load(endpoint, second)
    load(endpoint, second)  # again, as a retry does
    assert scaled() == [of(1), of(2)]
    assert {(target["MinCapacity"], target["MaxCapacity"]) for target in targets()} == {(2, 6)}
    policies = client("application-autoscaling").describe_scaling_policies(ServiceNamespace="sagemaker")
    found = {p["ResourceId"]: p["TargetTrackingScalingPolicyConfiguration"] for p in policies["ScalingPolicies"]}
    assert sorted(found) == [of(1), of(2)]
    assert found[of(1)]["TargetValue"] == 700.0
    assert found[of(1)]["PredefinedMetricSpecification"] == {"PredefinedMetricType": METRIC}
    endpoint.set_weights({second.digest: 100.0}, epoch=1)
    seen = []
    account.next_fate = lambda: seen.append(scaled()) or Fate()
    endpoint.unload(first.digest, epoch=1)
    assert seen == [[of(2)]], "SageMaker removes no variant that is scaled"
    assert scaled() == [of(2)]
    endpoint.set_weights({}, epoch=1)
    endpoint.unload(second.digest, epoch=1)
    assert scaled() == []


def test_an_update_keeps_the_instances_that_scaling_gave_a_variant(opened):
    cloud, account, endpoint = opened
    first, second = make_package(cloud, 0.1), make_package(cloud, 0.2)
    load(endpoint, first)
    describe = account._describe_endpoint

    def scaled_out(asked):
        answer = describe(asked)
        for variant in answer["ProductionVariants"]:
            variant["DesiredInstanceCount"] = 5
        return answer

    account._describe_endpoint = scaled_out
    load(endpoint, second)
    after = account.configs[account.endpoints[NAME].config]["ProductionVariants"]
    assert {v["VariantName"]: v["InitialInstanceCount"] for v in after} == {"variant-1": 5, "variant-2": 2}


def test_a_call_that_fails_fails_the_load_which_may_be_repeated(opened, monkeypatch):
    cloud, _, endpoint = opened
    ref = make_package(cloud, 0.1)
    with monkeypatch.context() as patch:
        patch.setattr("clearway.infra.aws.scaling.Scaling.put", _unavailable)
        with pytest.raises(Unavailable, match="planted"):
            load(endpoint, ref)
    assert scaled() == []
    load(endpoint, ref)
    assert scaled() == [of(1)]


def _unavailable(*_):
    raise Unavailable("planted")


def test_nothing_is_scaled_unless_settings_ask_for_it(env, tmp_path, monkeypatch):
    hurry(monkeypatch)
    cloud = at_sagemaker(env)
    with opened_account(cloud, FakeClock(1.7e9), home=tmp_path / "containers") as (account, endpoint):
        load(endpoint, make_package(cloud, 0.1))  # without a moto behind it, any other call would fail
        assert account.misfits == []
