"""Answers of people, mirrored into SageMaker's model registry: a group per product, a version per model digest.

A picture for whoever looks there; nothing is deployed by it, and a release does not fail for it.
"""

import logging
from typing import Any

from clearway.contracts.errors import ConfigError, Unavailable
from clearway.contracts.refs import ModelRef
from clearway.infra.approvals import LETS_THROUGH, Approval
from clearway.infra.aws.client import client, code_of, complete, explained, whole
from clearway.infra.environment import Environment

LOG = logging.getLogger("clearway.aws")
# SageMaker's own limits, and what it writes where no answer is text.
MAX_TEXT, MAX_TOKEN = 1024, 36
CONTENT_TYPES = ("application/json", "text/csv")


def mirror_approval(env: Environment, approval: Approval, *, model: ModelRef) -> bool:
    """Register the model and give it the answer; False, with a warning, if that could not be done.

    Safe to repeat: a digest has one version, and the newest answer for it counts.
    """
    group = f"{env.aws.model_registry}-{approval.product.replace('_', '-')}"
    try:
        with explained(f"model package group {group!r}"):
            _mirror(env, approval, model, group)
    except (Unavailable, ConfigError) as error:
        LOG.warning("the model registry does not show this answer; giving it again would mend that: %s", error)
        return False
    return True


def _mirror(env: Environment, approval: Approval, model: ModelRef, group: str) -> None:
    sagemaker = client("sagemaker")
    _make_group(sagemaker, group, approval.product, tags=env.aws.tags)
    answer = {
        "ModelApprovalStatus": "Approved" if approval.answer in LETS_THROUGH else "Rejected",
        "CustomerMetadataProperties": {"clearway.digest": model.digest, "clearway.release": approval.release_id},
    }
    arn = _version_of(sagemaker, group, model.digest)
    if arn is None:
        description = f"{model.digest} of {approval.product}, first answered in release {approval.release_id}"
        arn = whole(
            sagemaker.create_model_package,
            "ModelPackageArn",
            ModelPackageGroupName=group,
            ModelPackageDescription=description[:MAX_TEXT],
            ClientToken=model.digest[:MAX_TOKEN],
            **_containers(env, model),
            **answer,
        )
    words = f"{approval.answer.value} by {approval.answered_by}" + (f": {approval.note}" if approval.note else "")
    line = " ".join(words.split())  # of several lines SageMaker takes none
    sagemaker.update_model_package(ModelPackageArn=arn, ApprovalDescription=line[:MAX_TEXT], **answer)


def _make_group(sagemaker: Any, group: str, product: str, *, tags: dict[str, str]) -> None:
    from botocore.exceptions import ClientError  # noqa: PLC0415

    pairs = [{"Key": key, "Value": value} for key, value in sorted((tags | {"product": product}).items())]
    try:
        sagemaker.describe_model_package_group(ModelPackageGroupName=group)
    except ClientError as error:
        if code_of(error) != "ValidationException":  # "does not exist"
            raise
        sagemaker.create_model_package_group(
            ModelPackageGroupName=group,
            ModelPackageGroupDescription=f"models of {product} that somebody answered for",
            Tags=pairs,
        )


def _version_of(sagemaker: Any, group: str, digest: str) -> str | None:
    """Newest first, page by page."""
    page: dict[str, Any] = {}
    while True:
        page = complete(
            sagemaker.list_model_packages,
            "ModelPackageSummaryList",
            ModelPackageGroupName=group,
            MaxResults=100,
            **({"NextToken": page["NextToken"]} if page.get("NextToken") else {}),
        )
        for summary in page["ModelPackageSummaryList"]:
            if summary.get("ModelPackageDescription", "").startswith(digest):
                return str(summary["ModelPackageArn"])
        if not page.get("NextToken"):
            return None


def _containers(env: Environment, model: ModelRef) -> dict[str, Any]:
    """What would serve it, where the account has an image for that and the package lies in S3."""
    if not env.sagemaker.image or not model.uri.startswith("s3://"):
        return {}
    source = {"S3Uri": model.uri.rstrip("/") + "/", "S3DataType": "S3Prefix", "CompressionType": "None"}
    container = {"Image": env.sagemaker.image, "ModelDataSource": {"S3DataSource": source}}
    return {
        "InferenceSpecification": {
            "Containers": [container],
            "SupportedContentTypes": list(CONTENT_TYPES),
            "SupportedResponseMIMETypes": [CONTENT_TYPES[0]],
        }
    }
