"""Answers in SageMaker's model registry: one version per model, the newest answer, and no release that fails for it."""

import dataclasses
import uuid
from typing import Any

import pytest

from clearway.contracts.refs import ModelRef
from clearway.infra.approvals import Approval, Decision
from clearway.infra.aws.client import client
from clearway.infra.aws.model_registry import mirror_approval
from clearway.infra.environment import Environment
from shape_kit import misfits

MODEL = ModelRef(uri="s3://bucket/store/flights/models/aa", digest="a" * 64)
APPROVAL = Approval(
    product="seattle_rain",
    release_id="r1",
    model_digest=MODEL.digest,
    evaluation_digest="e" * 64,
    answer=Decision.APPROVE,
    answered_by="Ada",
    note="read the report",
    is_required=True,
    risk_tier="high",
)


@pytest.fixture
def registry(aws: str, env: Environment) -> Environment:
    """A registry of this test's own."""
    assert aws
    changes = {
        "aws": env.aws.model_copy(update={"model_registry": f"clearway-{uuid.uuid4().hex[:8]}"}),
        "sagemaker": env.sagemaker.model_copy(update={"image": "123456789012.dkr.ecr.us-east-1.amazonaws.com/c:1"}),
    }
    return env.model_copy(update=changes)


def versions(env: Environment) -> list[dict[str, Any]]:
    sagemaker, group = client("sagemaker"), f"{env.aws.model_registry}-seattle-rain"
    listed = sagemaker.list_model_packages(ModelPackageGroupName=group)["ModelPackageSummaryList"]
    return [sagemaker.describe_model_package(ModelPackageName=v["ModelPackageArn"]) for v in listed]


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (Decision.APPROVE, "Approved"),
        (Decision.AUTO, "Approved"),
        (Decision.NOT_REQUIRED, "Approved"),
        (Decision.REJECT, "Rejected"),
    ],
)
def test_an_answer_is_shown_beside_the_model_it_was_given_for(
    registry: Environment, answer: Decision, status: str
) -> None:
    assert mirror_approval(registry, dataclasses.replace(APPROVAL, answer=answer), model=MODEL)
    (version,) = versions(registry)
    assert version["ModelApprovalStatus"] == status
    assert version["ApprovalDescription"] == f"{answer.value} by Ada: read the report"
    assert version["CustomerMetadataProperties"] == {"clearway.digest": MODEL.digest, "clearway.release": "r1"}
    (container,) = version["InferenceSpecification"]["Containers"]
    assert container["Image"].endswith("/c:1")
    assert container["ModelDataSource"]["S3DataSource"]["S3Uri"] == f"{MODEL.uri}/"


def test_the_newest_answer_for_the_same_bytes_counts_and_makes_no_second_version(registry: Environment) -> None:
    other = ModelRef(uri="s3://bucket/store/flights/models/bb", digest="b" * 64)
    assert mirror_approval(registry, APPROVAL, model=MODEL)
    assert mirror_approval(registry, APPROVAL, model=other)
    assert mirror_approval(registry, dataclasses.replace(APPROVAL, answer=Decision.REJECT, note=""), model=MODEL)
    found = {v["CustomerMetadataProperties"]["clearway.digest"]: v for v in versions(registry)}
    assert {digest: v["ModelApprovalStatus"] for digest, v in found.items()} == {
        MODEL.digest: "Rejected",
        other.digest: "Approved",
    }
    assert found[MODEL.digest]["ApprovalDescription"] == "reject by Ada"
    assert len(versions(registry)) == 2


def test_a_registry_that_does_not_answer_costs_a_warning(
    registry: Environment, trouble: Any, caplog: pytest.LogCaptureFixture
) -> None:
    trouble.plan = lambda _: "break"
    assert not mirror_approval(registry, APPROVAL, model=MODEL)
    assert "does not show this answer" in caplog.text
    trouble.plan = lambda _: ""
    assert mirror_approval(registry, APPROVAL, model=MODEL)
    assert len(versions(registry)) == 1


def test_requests_fit_what_the_service_takes(registry: Environment) -> None:
    seen: list[str] = []

    def note(params: dict[str, Any], model: Any, **_: Any) -> None:
        seen.append(model.name)
        seen.extend(misfits(model.input_shape, params, model.name))

    client("sagemaker").meta.events.register("provide-client-params", note)
    long = dataclasses.replace(APPROVAL, note="because\n" * 400)
    assert mirror_approval(registry, long, model=MODEL)
    assert {"CreateModelPackageGroup", "CreateModelPackage", "UpdateModelPackage"} <= set(seen)
    assert [text for text in seen if " " in text] == []
