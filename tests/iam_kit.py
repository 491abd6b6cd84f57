"""IAM without AWS: whether policies allow a request, and which requests a call of botocore's makes.

Written after "Policy evaluation logic" and "IAM JSON policy elements" of AWS's guide to IAM, for policies of identities
in one account: an explicit Deny wins, then an Allow is needed. What no policy of ours uses is refused, not guessed.
"""

import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from aws_kit import REGION

ACCOUNT = "123456789012"


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What somebody wants. `context`: condition keys with their values."""

    action: str
    resource: str
    context: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.action} on {self.resource} {dict(self.context) or ''}".strip()


def allows(policies: Sequence[Mapping[str, Any]], request: Request) -> bool:
    """Whether these documents, taken together, let it pass."""
    statements = [statement for policy in policies for statement in listed(policy["Statement"])]
    effects = {statement["Effect"] for statement in statements if _fits(statement, request)}
    return "Deny" not in effects and "Allow" in effects


def listed(value: Any) -> list[Any]:
    """One, or several."""
    return list(value) if isinstance(value, (list, tuple)) else [value]


def matches(pattern: str, text: str) -> bool:
    """`*` is any text, slashes included, `?` one letter."""
    parts = (".*" if letter == "*" else "." if letter == "?" else re.escape(letter) for letter in pattern)
    return re.fullmatch("".join(parts), text, re.DOTALL) is not None


def _fits(statement: Mapping[str, Any], request: Request) -> bool:
    if unknown := set(statement) - {"Sid", "Effect", "Action", "Resource", "Condition"}:
        raise ValueError(f"element {sorted(unknown)} is not modelled")
    action = any(matches(p.lower(), request.action.lower()) for p in listed(statement["Action"]))
    resource = any(matches(_constant(p), request.resource) for p in listed(statement["Resource"]))
    return (
        action
        and resource
        and all(
            _holds(operator, key, listed(values), request.context)
            for operator, about in statement.get("Condition", {}).items()
            for key, values in about.items()
        )
    )


def _constant(pattern: str) -> str:
    if "${" in pattern:
        raise ValueError(f"policy variables are not modelled: {pattern}")
    return pattern


# Operator → what a value must be; those that begin with Not hold where the key is absent.
_OPERATORS: dict[str, Callable[[str, str], bool]] = {
    "StringEquals": lambda wanted, found: wanted == found,
    "StringNotEquals": lambda wanted, found: wanted != found,
    "StringLike": matches,
    "StringNotLike": lambda wanted, found: not matches(wanted, found),
    "ArnEquals": matches,  # since ArnEquals and ArnLike behave alike
    "ArnLike": matches,
    "Bool": lambda wanted, found: wanted.lower() == found.lower(),
}


def _holds(operator: str, key: str, values: list[Any], context: Mapping[str, str]) -> bool:
    name = operator.removesuffix("IfExists")
    if name not in _OPERATORS:
        raise ValueError(f"condition operator {operator} is not modelled")
    found = {k.lower(): v for k, v in context.items()}.get(key.lower())
    is_negated = "Not" in name
    if found is None:
        return is_negated or operator.endswith("IfExists")
    outcomes = [_OPERATORS[name](str(value), found) for value in values]
    return all(outcomes) if is_negated else any(outcomes)


# --- Calls


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One call of botocore's. `is_main`: by the thread that runs the test, not by a server inside it."""

    service: str
    operation: str
    asked: Mapping[str, Any]
    is_main: bool = True


@contextmanager
def recorded() -> Iterator[list[Call]]:
    """Every call that botocore makes for this process while this is open."""
    from botocore.client import BaseClient

    calls: list[Call] = []
    make = BaseClient._make_api_call

    def note(self: Any, operation_name: str, api_params: dict[str, Any]) -> Any:
        service = self.meta.service_model.service_name
        is_main = threading.current_thread() is threading.main_thread()
        calls.append(Call(service=service, operation=operation_name, asked=dict(api_params), is_main=is_main))
        return make(self, operation_name, api_params)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(BaseClient, "_make_api_call", note)
        yield calls


def arn(service: str, name: str, *, region: str = REGION, account: str = ACCOUNT) -> str:
    return f"arn:aws:{service}:{region}:{account}:{name}"


def requests_of(call: Call) -> list[Request]:
    """What a call needs to be allowed, after the tables of AWS's service authorization reference."""
    return list(_NEEDS[call.service](call.operation, call.asked))


def _pass(role: str, service: str) -> Request:
    context = {"iam:PassedToService": f"{service}.amazonaws.com"}
    return Request(action="iam:PassRole", resource=role, context=context)


_S3 = {
    "AbortMultipartUpload": "AbortMultipartUpload",
    "CompleteMultipartUpload": "PutObject",
    "CreateMultipartUpload": "PutObject",
    "GetObject": "GetObject",
    "HeadObject": "GetObject",
    "PutObject": "PutObject",
    "UploadPart": "PutObject",
}


def _s3(operation: str, asked: Mapping[str, Any]) -> Iterator[Request]:
    bucket = f"arn:aws:s3:::{asked['Bucket']}"
    if operation == "ListObjectsV2":
        yield Request(action="s3:ListBucket", resource=bucket)
    elif operation == "DeleteObjects":
        for each in asked["Delete"]["Objects"]:
            yield Request(action="s3:DeleteObject", resource=f"{bucket}/{each['Key']}")
    else:
        yield Request(action=f"s3:{_S3[operation]}", resource=f"{bucket}/{asked['Key']}")


def _dynamodb(operation: str, asked: Mapping[str, Any]) -> Iterator[Request]:
    yield Request(action=f"dynamodb:{operation}", resource=arn("dynamodb", f"table/{asked['TableName']}"))


def _secretsmanager(operation: str, asked: Mapping[str, Any]) -> Iterator[Request]:
    yield Request(action=f"secretsmanager:{operation}", resource=asked["SecretId"])


# Which resources an operation is about, by the parameters that name them.
_SAGEMAKER = {
    "TrainingJobName": "training-job",
    "ModelName": "model",
    "EndpointConfigName": "endpoint-config",
    "EndpointName": "endpoint",
    "ModelPackageGroupName": "model-package-group",
    "HyperParameterTuningJobName": "hyper-parameter-tuning-job",
    "TransformJobName": "transform-job",
}


def _sagemaker(operation: str, asked: Mapping[str, Any]) -> Iterator[Request]:
    about = [arn("sagemaker", f"{kind}/{asked[key]}".lower()) for key, kind in _SAGEMAKER.items() if key in asked]
    if operation == "CreateTransformJob":  # which names its model as a condition
        about = about[-1:]
    if operation in {"CreateModelPackage", "UpdateModelPackage"}:  # of a version
        group = str(asked.get("ModelPackageGroupName", "")).lower()
        about = [asked.get("ModelPackageArn") or arn("sagemaker", f"model-package/{group}/1")]
    for resource in about:
        yield Request(action=f"sagemaker:{operation}", resource=resource)
    if asked.get("Tags"):
        yield Request(action="sagemaker:AddTags", resource=about[-1])
    trials = asked.get("TrainingJobDefinition", {})
    for role in (asked.get("RoleArn"), asked.get("ExecutionRoleArn"), trials.get("RoleArn")):
        if role:
            yield _pass(role, "sagemaker")


def _emr(operation: str, asked: Mapping[str, Any]) -> Iterator[Request]:
    application = arn("emr-serverless", f"/applications/{asked['applicationId']}")
    run = f"{application}/jobruns/{asked.get('jobRunId', 'new')}"
    yield Request(action=f"emr-serverless:{operation}", resource=run if "jobRunId" in asked else application)
    if asked.get("tags"):
        yield Request(action="emr-serverless:TagResource", resource=run)
    if "executionRoleArn" in asked:
        yield _pass(asked["executionRoleArn"], "emr-serverless")


def _emr_cluster(operation: str, asked: Mapping[str, Any]) -> Iterator[Request]:
    """`ListSteps` and its like name a cluster; each that calls of ours make carries the tags it was made with."""
    clusters = [asked["ClusterId"]] if "ClusterId" in asked else asked.get("JobFlowIds", ())
    for cluster in clusters:
        context = {"elasticmapreduce:ResourceTag/clearway:job": "x"}
        resource = arn("elasticmapreduce", f"cluster/{cluster}")
        yield Request(action=f"elasticmapreduce:{operation}", resource=resource, context=context)
    if clusters:
        return
    tags = {f"elasticmapreduce:RequestTag/{tag['Key']}": tag["Value"] for tag in asked.get("Tags", ())}
    yield Request(action=f"elasticmapreduce:{operation}", resource="*", context=tags)
    if tags:
        yield Request(action="elasticmapreduce:AddTags", resource=arn("elasticmapreduce", "cluster/new"), context=tags)
        yield _pass(asked["ServiceRole"], "elasticmapreduce")
        yield _pass(f"arn:aws:iam::{ACCOUNT}:role/{asked['JobFlowRole']}", "ec2")  # profile and role share a name


def _emr_eks(operation: str, asked: Mapping[str, Any]) -> Iterator[Request]:
    cluster = arn("emr-containers", f"/virtualclusters/{asked['virtualClusterId']}")
    run = f"{cluster}/jobruns/{asked.get('id', 'new')}"
    role = asked.get("executionRoleArn", "")
    context = {"emr-containers:ExecutionRoleArn": role} if role else {}
    yield Request(action=f"emr-containers:{operation}", resource=run if "id" in asked else cluster, context=context)
    if asked.get("tags"):
        yield Request(action="emr-containers:TagResource", resource=run)


def _batch(operation: str, asked: Mapping[str, Any]) -> Iterator[Request]:
    if operation == "SubmitJob":
        yield Request(action="batch:SubmitJob", resource=arn("batch", f"job-queue/{asked['jobQueue']}"))
        yield Request(action="batch:SubmitJob", resource=arn("batch", f"job-definition/{asked['jobDefinition']}"))
        if asked.get("tags"):
            yield Request(action="batch:TagResource", resource=arn("batch", "job/new"))
    elif operation == "TerminateJob":
        yield Request(action="batch:TerminateJob", resource=arn("batch", f"job/{asked['jobId']}"))
    else:
        yield Request(action=f"batch:{operation}", resource="*")


def _logs(operation: str, asked: Mapping[str, Any]) -> Iterator[Request]:
    group = arn("logs", f"log-group:{asked['logGroupName']}:log-stream:")
    yield Request(action=f"logs:{operation}", resource=group)


def _cloudwatch(operation: str, asked: Mapping[str, Any]) -> Iterator[Request]:
    names = asked.get("AlarmNames", ())
    resources = [arn("cloudwatch", f"alarm:{name}") for name in names] or ["*"]
    context = {"cloudwatch:namespace": asked["Namespace"]} if "Namespace" in asked else {}
    for resource in resources:
        yield Request(action=f"cloudwatch:{operation}", resource=resource, context=context)


def _sns(operation: str, asked: Mapping[str, Any]) -> Iterator[Request]:
    yield Request(action=f"sns:{operation}", resource=asked["TopicArn"])


def _sqs(operation: str, asked: Mapping[str, Any]) -> Iterator[Request]:
    yield Request(action=f"sqs:{operation}", resource=arn("sqs", asked["QueueUrl"].rpartition("/")[2]))


def _scaling(operation: str, asked: Mapping[str, Any]) -> Iterator[Request]:
    context = {"application-autoscaling:service-namespace": asked["ServiceNamespace"]}
    target = arn("application-autoscaling", "scalable-target/1")
    yield Request(action=f"application-autoscaling:{operation}", resource=target, context=context)


_NEEDS: dict[str, Callable[[str, Mapping[str, Any]], Iterator[Request]]] = {
    "application-autoscaling": _scaling,
    "batch": _batch,
    "cloudwatch": _cloudwatch,
    "dynamodb": _dynamodb,
    "emr": _emr_cluster,
    "emr-containers": _emr_eks,
    "emr-serverless": _emr,
    "logs": _logs,
    "s3": _s3,
    "sagemaker": _sagemaker,
    "sagemaker-runtime": _sagemaker,
    "secretsmanager": _secretsmanager,
    "sns": _sns,
    "sqs": _sqs,
}
