"""Roles of include/aws/roles.yaml as they stand after `aws up`: what they may never do, that what is called is allowed,
and that what is allowed is called.
"""

import json
import re
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from aws_kit import REGION, forget_clients
from clearway.contracts.refs import ModelRef
from clearway.contracts.release_document import ReleaseDocument
from clearway.infra.approvals import Approval, Decision
from clearway.infra.aws import guardrail, s3_storage, wishes
from clearway.infra.aws.client import client
from clearway.infra.aws.endpoint import open_sagemaker
from clearway.infra.aws.jobs import AwsJobs
from clearway.infra.aws.model_registry import mirror_approval
from clearway.infra.aws.services import Order
from clearway.infra.aws.transform import SageMakerTransform
from clearway.infra.aws.tuning import Search, TuningJobs, stem_of
from clearway.infra.clock import FakeClock
from clearway.infra.endpoint import Mirror
from clearway.infra.environment import Environment, Services, project_root
from clearway.infra.jobs import JobSpec
from clearway.infra.layout import Layout
from clearway.infra.release_store import open_release_store
from clearway.infra.storage import join, open_storage
from clearway.infra.watch.metrics import Point, open_metrics
from clearway.infra.watch.notices import Kind, Notice, open_notifier
from clearway.launch.commands.stage import _bring_signing_key
from clearway.serve.process import trust_account_key
from iam_kit import ACCOUNT, Call, Request, allows, arn, listed, recorded, requests_of
from jobs_kit import wait_until
from sagemaker_account import Account
from sagemaker_kit import NAME, hurry, opened_account
from serving_kit import PRODUCT, ROW, make_package

pytestmark = pytest.mark.slow
ROLES = ("preprocess", "train", "stage", "tune", "deploy", "container", "serving", "airflow", "emr-machine")
BUCKET = f"arn:aws:s3:::clearway-{ACCOUNT}-{REGION}"
SECRET = arn("secretsmanager", "secret:clearway/signing-key-abcdef")
LEAST_USED = 0.95

_PULL = {
    "ecr:BatchCheckLayerAvailability",
    "ecr:GetDownloadUrlForLayer",
    "ecr:BatchGetImage",
    "ecr:GetAuthorizationToken",
}
_HOST = {
    *("logs:CreateLogGroup", "logs:CreateLogStream", "logs:PutLogEvents", "logs:DescribeLogStreams"),
    *("ec2:CreateNetworkInterface", "ec2:CreateNetworkInterfacePermission"),
    *("ec2:DeleteNetworkInterface", "ec2:DeleteNetworkInterfacePermission"),
    *("ec2:DescribeNetworkInterfaces", "ec2:DescribeVpcs", "ec2:DescribeDhcpOptions"),
    *("ec2:DescribeSubnets", "ec2:DescribeSecurityGroups"),
    "cloudwatch:PutMetricData",
}
# What the services themselves do with a role, which no call of ours shows. After their guides: SageMaker, "execution
# roles" (permissions of CreateTrainingJob and CreateModel, with a VPC); EMR Serverless, "CloudWatch logs"; ECS, "task
# execution role"; SNS and SQS, "key management"; EMR, "publish logs to CloudWatch"; MWAA, "execution role"; Application
# Auto Scaling, "required permissions" of target tracking.
_SCALED = {"cloudwatch:PutMetricAlarm", "cloudwatch:DeleteAlarms", "iam:CreateServiceLinkedRole"}
_LINES = {"logs:CreateLogStream", "logs:PutLogEvents", "logs:DescribeLogStreams", "logs:DescribeLogGroups"}
_MWAA = {
    *("airflow:PublishMetrics", "s3:GetObjectVersion", "s3:GetBucketVersioning", "s3:GetBucketPublicAccessBlock"),
    *("s3:GetAccountPublicAccessBlock", "logs:CreateLogGroup", "logs:CreateLogStream", "logs:PutLogEvents"),
    *("logs:GetLogEvents", "logs:GetLogRecord", "logs:GetLogGroupFields", "logs:GetQueryResults"),
    *("logs:DescribeLogGroups", "sqs:ChangeMessageVisibility", "sqs:GetQueueAttributes", "sqs:GetQueueUrl"),
    *("sqs:SendMessage", "kms:DescribeKey", "kms:Encrypt"),
}
BY_SERVICES = {
    "preprocess": _LINES,
    "emr-machine": _LINES,
    "train": _PULL | _HOST,
    "serving": _PULL | _HOST | {"s3:ListBucket"},  # of a transform job's requests
    "container": _PULL | {"logs:CreateLogStream", "logs:PutLogEvents"},
    "deploy": _SCALED,
    "airflow": {"kms:GenerateDataKey", "kms:Decrypt"} | _SCALED | _MWAA,
}


@pytest.fixture(scope="module")
def policies(installed: dict[str, str]) -> dict[str, list[dict[str, Any]]]:
    """Role → documents, as IAM holds them."""
    return {role: list(_documents(f"clearway-{role}")) for role in ROLES}


def _documents(role: str) -> Iterator[dict[str, Any]]:
    iam = client("iam")
    for name in iam.list_role_policies(RoleName=role)["PolicyNames"]:
        yield _parsed(iam.get_role_policy(RoleName=role, PolicyName=name)["PolicyDocument"])
    for attached in iam.list_attached_role_policies(RoleName=role)["AttachedPolicies"]:
        version = iam.get_policy(PolicyArn=attached["PolicyArn"])["Policy"]["DefaultVersionId"]
        found = iam.get_policy_version(PolicyArn=attached["PolicyArn"], VersionId=version)
        yield _parsed(found["PolicyVersion"]["Document"])


def _parsed(document: Any) -> Any:
    return json.loads(document) if isinstance(document, str) else document


# --- What nobody may, whatever a job is talked into.
NEVER = [
    ("iam:CreateUser", f"arn:aws:iam::{ACCOUNT}:user/mallory"),
    ("iam:CreateAccessKey", f"arn:aws:iam::{ACCOUNT}:user/admin"),
    ("iam:AttachRolePolicy", f"arn:aws:iam::{ACCOUNT}:role/clearway-train"),
    ("iam:PutRolePolicy", f"arn:aws:iam::{ACCOUNT}:role/clearway-airflow"),
    ("iam:PassRole", f"arn:aws:iam::{ACCOUNT}:role/admin"),
    ("sts:AssumeRole", f"arn:aws:iam::{ACCOUNT}:role/admin"),
    ("s3:GetObject", "arn:aws:s3:::somebody-else/store/flights/batches/1"),
    ("s3:DeleteObjectVersion", f"{BUCKET}/store/flights/models/a/model.onnx"),
    ("s3:PutBucketPolicy", BUCKET),
    ("s3:PutBucketVersioning", BUCKET),
    ("s3:DeleteBucket", BUCKET),
    ("s3:PutObject", f"{BUCKET}/code/clearway_job.py"),
    ("dynamodb:DeleteTable", arn("dynamodb", "table/clearway-releases")),
    ("dynamodb:DeleteItem", arn("dynamodb", "table/clearway-releases")),
    ("dynamodb:GetItem", arn("dynamodb", "table/payroll")),
    ("secretsmanager:GetSecretValue", arn("secretsmanager", "secret:payroll-abcdef")),
    ("secretsmanager:PutSecretValue", SECRET),
    ("secretsmanager:DeleteSecret", SECRET),
    ("ecr:PutImage", arn("ecr", "repository/clearway/jobs")),
    ("logs:DeleteLogGroup", arn("logs", "log-group:/clearway/jobs:*")),
    ("ec2:AuthorizeSecurityGroupIngress", arn("ec2", "security-group/sg-1")),
    ("ec2:RunInstances", arn("ec2", "instance/*")),
    ("cloudformation:DeleteStack", arn("cloudformation", "stack/clearway-storage/1")),
]
_TRAFFIC = [
    ("dynamodb:PutItem", arn("dynamodb", "table/clearway-releases")),
    ("sagemaker:UpdateEndpoint", arn("sagemaker", "endpoint/clearway-flights")),
    ("sagemaker:UpdateEndpointWeightsAndCapacities", arn("sagemaker", "endpoint/clearway-flights")),
    ("sagemaker:DeleteEndpoint", arn("sagemaker", "endpoint/clearway-flights")),
    ("s3:PutObject", f"{BUCKET}/store/endpoints/clearway-flights/control/000000/00000001.json"),
]
_JOBS = [
    ("sagemaker:CreateTrainingJob", arn("sagemaker", "training-job/clearway-train-1")),
    ("batch:SubmitJob", arn("batch", "job-queue/clearway-jobs")),
    ("emr-serverless:StartJobRun", arn("emr-serverless", "/applications/00abc")),
]
_TUNING = arn("sagemaker", "hyper-parameter-tuning-job/clearway-tune-0123456789ab-1")
_RECEIPT = ("s3:PutObject", f"{BUCKET}/store/flights/receipts/1.json")
_BATCH = ("s3:PutObject", f"{BUCKET}/store/flights/batches/2013-01-01/rows.parquet")
# And beyond that, by role.
NOR = {
    "preprocess": [*_TRAFFIC, *_JOBS, _RECEIPT, ("s3:PutObject", f"{BUCKET}/store/flights/models/a/model.onnx")],
    "emr-machine": [*_TRAFFIC, *_JOBS, _RECEIPT, ("s3:PutObject", f"{BUCKET}/store/flights/models/a/model.onnx")],
    "train": [*_TRAFFIC, *_JOBS, _RECEIPT, _BATCH, ("s3:PutObject", f"{BUCKET}/store/flights/history/1.json")],
    "stage": [*_TRAFFIC, *_JOBS, ("sagemaker:CreateHyperParameterTuningJob", _TUNING)],
    "tune": [
        *_TRAFFIC,
        *_JOBS,
        _RECEIPT,
        _BATCH,
        ("sagemaker:CreateHyperParameterTuningJob", arn("sagemaker", "hyper-parameter-tuning-job/mine")),
        ("sagemaker:StopHyperParameterTuningJob", _TUNING),
        ("sagemaker:DeleteHyperParameterTuningJob", _TUNING),
        ("sagemaker:StopTrainingJob", arn("sagemaker", "training-job/clearway-train-1")),
        ("iam:PassRole", f"arn:aws:iam::{ACCOUNT}:role/clearway-serving"),
    ],
    "deploy": [
        *_JOBS,
        ("sagemaker:DeleteEndpoint", arn("sagemaker", "endpoint/somebody-else")),
        ("sagemaker:DeleteModel", arn("sagemaker", "model/clearway-1")),
        ("iam:PassRole", f"arn:aws:iam::{ACCOUNT}:role/clearway-train"),
    ],
    "container": [*_TRAFFIC, *_JOBS, ("s3:GetObject", f"{BUCKET}/store/flights/batches/1"), _BATCH],
    "serving": [
        *_TRAFFIC,
        ("s3:ListBucket", BUCKET),  # without the prefix of requests
        ("s3:PutObject", f"{BUCKET}/store/flights/scored/a/0001/input/00000.json"),
        ("s3:PutObject", f"{BUCKET}/store/flights/scored/a/scores.parquet"),
        *_JOBS,
        _RECEIPT,
        ("s3:GetObject", f"{BUCKET}/store/flights/batches/2013-01-01/rows.parquet"),
        ("s3:PutObject", f"{BUCKET}/store/flights/models/a/model.onnx"),
        ("s3:DeleteObject", f"{BUCKET}/store/flights/predictions/1/1.parquet"),
    ],
    "airflow": [
        ("sagemaker:CreateTrainingJob", arn("sagemaker", "training-job/mine")),
        ("sagemaker:CreateHyperParameterTuningJob", _TUNING),
        ("sagemaker:CreateTransformJob", arn("sagemaker", "transform-job/clearway-1")),
        ("sagemaker:StopHyperParameterTuningJob", arn("sagemaker", "hyper-parameter-tuning-job/somebody-elses")),
        ("sagemaker:DeleteEndpoint", arn("sagemaker", "endpoint/somebody-else")),
        ("batch:SubmitJob", arn("batch", "job-queue/somebody-else")),
        ("batch:RegisterJobDefinition", arn("batch", "job-definition/clearway-stage")),
        ("emr-serverless:StartJobRun", arn("emr-serverless", "/applications/another")),
        ("secretsmanager:GetSecretValue", SECRET),
        ("iam:PassRole", f"arn:aws:iam::{ACCOUNT}:role/clearway-airflow"),
        ("sns:Publish", arn("sns", "somebody-else")),
        ("sqs:PurgeQueue", arn("sqs", "clearway-wishes")),
        ("kms:Decrypt", arn("kms", "key/another")),
        ("sqs:SendMessage", arn("sqs", "clearway-wishes")),
        ("s3:PutObject", f"{BUCKET}/mwaa/dags/clearway_dags.py"),
        ("elasticmapreduce:RunJobFlow", "*"),  # without the tags of a job
        ("elasticmapreduce:TerminateJobFlows", arn("elasticmapreduce", "cluster/somebody-elses")),
        ("elasticmapreduce:AddJobFlowSteps", arn("elasticmapreduce", "cluster/somebody-elses")),
        ("emr-containers:StartJobRun", arn("emr-containers", "/virtualclusters/another")),
    ],
}


@pytest.mark.parametrize("role", ROLES)
def test_a_role_may_not_do_what_is_not_its_business(policies, role):
    forbidden = NEVER + NOR[role]
    assert len(set(forbidden)) >= 20
    assert [act for act in forbidden if allows(policies[role], Request(action=act[0], resource=act[1]))] == []


@pytest.mark.parametrize(
    ("role", "passed", "service"),
    [
        ("airflow", "train", "ec2.amazonaws.com"),
        ("airflow", "preprocess", "sagemaker.amazonaws.com"),
        ("airflow", "emr-machine", "elasticmapreduce.amazonaws.com"),
        ("airflow", "emr", "ec2.amazonaws.com"),
        ("deploy", "serving", "ec2.amazonaws.com"),
        ("tune", "train", "ec2.amazonaws.com"),
    ],
)
def test_a_role_is_passed_to_its_service_alone(policies, role, passed, service):
    request = Request(
        action="iam:PassRole",
        resource=f"arn:aws:iam::{ACCOUNT}:role/clearway-{passed}",
        context={"iam:PassedToService": service},
    )
    assert not allows(policies[role], request)


# --- What is called.


@pytest.fixture(scope="module")
def cloud(installed, tmp_path_factory) -> Environment:
    home = tmp_path_factory.mktemp("home")
    settings = {
        **installed,
        "CLEARWAY__AWS__MODEL_REGISTRY": "clearway",
        "CLEARWAY__HOME": str(home),
        "CLEARWAY__ENDPOINT__KIND": "sagemaker",
        "CLEARWAY__SAGEMAKER__ENDPOINT": NAME,
        "CLEARWAY__SAGEMAKER__UPDATE_TIMEOUT_S": "600",
        "CLEARWAY__SAGEMAKER__POLL_S": "5",
        "CLEARWAY__SAGEMAKER__ALARMS": "errors-1",
        "CLEARWAY__SAGEMAKER__SHIFTING": "all_at_once",
        "CLEARWAY__SAGEMAKER__BAKE_S": "0",
        "CLEARWAY__SAGEMAKER__MAX_COUNT": "3",
    }
    return Environment.load(settings)


@pytest.fixture(scope="module")
def calls(empty_account, cloud, tmp_path_factory) -> dict[str, list[Call]]:
    """Role → what it was seen to call."""
    work = tmp_path_factory.mktemp("work")
    found = {"container": []}
    layout = Layout(cloud.store_root, "rain")
    for role, address in {
        "preprocess": layout.features("1"),
        "emr-machine": layout.features("1"),
        "train": layout.model("1"),
        "stage": layout.receipt("1"),
        "tune": layout.release("1", "tune"),
    }.items():
        with recorded() as found[role]:
            _a_stage(cloud, address)
    with recorded() as both:
        _a_rollout(cloud, work, upstream=empty_account)
    with recorded() as store:
        _documents_and_blobs(cloud)
    found["deploy"] = [call for call in both if call.is_main] + store
    found["serving"] = [call for call in both if not call.is_main]
    with recorded() as found["deploy-key"]:
        _bring_signing_key(cloud)
    found["deploy"] += found.pop("deploy-key")
    with recorded() as search:
        tuning = _a_search(cloud)
    found["tune"] += search
    with recorded() as jobs:
        _a_study_elsewhere(cloud, work, tuning)
        _jobs(cloud, work)
        _a_training_on_nodes(cloud, work)
        _spark_jobs_elsewhere(cloud, work)
    with recorded() as scoring:
        _a_batch_offline(cloud, work)
    with recorded() as answers:
        assert mirror_approval(cloud, APPROVAL, model=MODEL)
    client("sqs").send_message(QueueUrl=cloud.events.queue, MessageBody="{}")
    with recorded() as watched:
        _figures_notices_and_wishes(cloud)
    found["airflow"] = jobs + scoring + answers + watched + [call for call in both if call.is_main] + store
    return found


MODEL = ModelRef(uri="s3://bucket/store/rain/models/aa", digest="a" * 64)
APPROVAL = Approval(
    product="rain",
    release_id="r1",
    model_digest=MODEL.digest,
    evaluation_digest="e" * 64,
    answer=Decision.APPROVE,
    answered_by="Ada",
    note="read the report",
    is_required=True,
    risk_tier="high",
)


def _a_stage(cloud: Environment, address: str) -> None:
    """What stages do with AWS: all goes through these rooms."""
    _bring_signing_key(cloud)
    open_release_store(cloud).read("rain")
    _blobs(cloud, address)
    if address.endswith("/1") and "/features/" in address:  # EMR fetches the code with the role of the job
        client("s3").get_object(Bucket=cloud.aws.emr_code.split("/")[2], Key="code/clearway_job.py")


def _blobs(cloud: Environment, address: str) -> None:
    storage = open_storage(cloud.store_root)
    storage.write(join(address, "a"), b"a")
    storage.create(join(address, "b"), b"b")
    assert storage.read(join(address, "a")) == b"a"
    assert storage.exists(join(address, "b"))
    _large(join(address, "large"))
    assert len(storage.list(address)) == 3
    storage.delete_tree(address)


def _large(uri: str) -> None:
    """In parts; the first time one of them fails, and all are taken back."""
    storage, s3, size = open_storage(uri), client("s3"), 6 << 20

    def fail(**_: Any) -> None:
        raise OSError("planted")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(s3_storage, "MULTIPART_BYTES", size)
        s3.meta.events.register("before-call.s3.UploadPart", fail)
        with pytest.raises(OSError, match="planted"):
            storage.write(uri, bytes(size))
        s3.meta.events.unregister("before-call.s3.UploadPart", fail)
        storage.write(uri, bytes(size))


def _documents_and_blobs(cloud: Environment) -> None:
    store = open_release_store(cloud)
    _, version = store.read("rain")
    store.swap(ReleaseDocument(product="rain"), expected_version=version)
    _blobs(cloud, Layout(cloud.store_root, "rain").release("1"))


def _a_rollout(cloud: Environment, work: Any, *, upstream: str) -> None:
    """Two versions, weights, figures, answers, copies, and the end of it, on endpoints whose containers are real."""
    with pytest.MonkeyPatch.context() as patch:
        hurry(patch)
        with opened_account(cloud, FakeClock(1.7e9), home=work / "containers", upstream=upstream) as (
            account,
            endpoint,
        ):
            account.put_alarm("errors-1")
            first, second = make_package(cloud, 0.1), make_package(cloud, 0.2)
            for ref in (first, second):
                endpoint.load(uri=ref.uri, digest=ref.digest, epoch=1)
            endpoint.set_weights({first.digest: 100.0}, epoch=1)
            endpoint.predict([ROW])
            endpoint.observe(epoch=1)
            account.clock.sleep(600)
            endpoint.observe(epoch=1)  # figures are asked for from the first look on
            _trusting(cloud)
            account.flush_captured()
            _copies_and_the_end(cloud, account, first, second)
            guardrail.check(cloud.sagemaker, before=["a"], after=["a"])
    forget_clients()


def _copies_and_the_end(cloud: Environment, account: Account, first: ModelRef, second: ModelRef) -> None:
    """Without guardrails, which exclude copies of requests."""
    unguarded = cloud.sagemaker.model_copy(update={"shifting": "", "alarms": ""})
    endpoint = open_sagemaker(cloud.model_copy(update={"sagemaker": unguarded}), product=PRODUCT, clock=account.clock)
    endpoint.set_weights({first.digest: 100.0}, epoch=1, mirror=Mirror(digest=second.digest))
    account.call(NAME, ROW, failing={})
    account.clock.sleep(600)
    account.flush_captured()
    assert len(endpoint.mirrored(first=0, epoch=1).rows) == 1
    endpoint.set_weights({}, epoch=1)
    for ref in (second, first):
        endpoint.unload(ref.digest, epoch=1)


def _trusting(cloud: Environment) -> None:
    """As a container begins, elsewhere than in the thread of whoever deploys."""
    container = threading.Thread(target=trust_account_key, args=(cloud,))
    container.start()
    container.join()


def _jobs(cloud: Environment, work: Any) -> None:
    """A job of each service, started, watched, read and stopped."""
    script = work / "stage.py"
    script.write_text("import time\nprint('begins', flush=True)\ntime.sleep(60)\n")
    for stage in ("preprocess", "train", "evaluate", "deploy"):
        jobs = AwsJobs(cloud, command=("python", "-u", str(script)))
        job = jobs.submit(JobSpec(stage=stage, inputs_json="{}", key=f"{stage}-1"))
        if stage != "preprocess":
            wait_until(lambda jobs=jobs, job=job: jobs.read_log(job, 0)[0])
        jobs.cancel(job)
        wait_until(lambda jobs=jobs, job=job: jobs.state(job) == "failed")


def _a_training_on_nodes(cloud: Environment, work: Any) -> None:
    nodes = cloud.aws.model_copy(update={"services": Services(train="batch"), "training_count": 2})
    jobs = AwsJobs(cloud.model_copy(update={"aws": nodes}), command=("python", "-u", str(work / "stage.py")))
    job = jobs.submit(JobSpec(stage="train", inputs_json="{}", key="train-2"))
    wait_until(lambda: jobs.read_log(job, 0)[0])
    jobs.cancel(job)
    wait_until(lambda: jobs.state(job) == "failed")


KEY = "tune-1"


def _a_search(cloud: Environment) -> TuningJobs:
    """A tuning job, ordered, watched and read by the stage; its trials look for a study that is not there."""
    aws = cloud.aws.model_copy(update={"tuning_parallel": 1})
    jobs = TuningJobs(aws, stem=stem_of(join(cloud.store_root, "jobs", KEY, "0001")))
    nothing = {f"{kind}ParameterRanges": [] for kind in ("Integer", "Continuous", "Categorical")}
    search = Search(
        strategy="Random",
        ranges=nothing,
        max_trials=50,
        max_seconds=600,
        seed=1,
        study=join(cloud.store_root, "none"),
        variables={},
        tags={"team": "ops"},
    )
    name = jobs.start(search)
    assert jobs.look(name).is_running
    assert jobs.trials(name) == []
    return jobs


def _a_study_elsewhere(cloud: Environment, work: Any, tuning: TuningJobs) -> None:
    """A container that left its trials to a tuning job, stopped with it, and the bill of both."""
    (work / "stage.py").write_text("import time\ntime.sleep(60)\n")
    elsewhere = cloud.model_copy(
        update={"aws": cloud.aws.model_copy(update={"services": Services(tune="sagemaker_tuning")})}
    )
    jobs = AwsJobs(elsewhere, command=("python", "-u", str(work / "stage.py")))
    job = jobs.submit(JobSpec(stage="tune", inputs_json="{}", key=KEY))
    jobs.cancel(job)
    wait_until(lambda: jobs.usage(job))
    (name,) = tuning.names()
    wait_until(lambda: not tuning.look(name).is_running)
    assert tuning.used(name)


def _spark_jobs_elsewhere(cloud: Environment, work: Any) -> None:
    """On a cluster of their own and in pods, until they end."""
    for service in ("emr_ec2", "emr_eks"):
        elsewhere = cloud.model_copy(
            update={"aws": cloud.aws.model_copy(update={"services": Services(preprocess=service)})}
        )
        jobs = AwsJobs(elsewhere, command=("python", "-u", str(work / "stage.py")))
        job = jobs.submit(JobSpec(stage="preprocess", inputs_json="{}", key=f"{service.replace('_', '-')}-1"))
        jobs.cancel(job)
        wait_until(lambda jobs=jobs, job=job: jobs.usage(job))


def _a_batch_offline(cloud: Environment, work: Any) -> None:
    """A transform job of an image that never answers: ordered twice, watched, stopped, billed."""
    (work / "image.py").write_text("import time\ntime.sleep(60)\n")
    image = cloud.sagemaker.model_copy(update={"image": str(work / "image.py")})
    jobs = SageMakerTransform(cloud.model_copy(update={"sagemaker": image}))
    folder = Layout(cloud.store_root, "rain").scored("a", "0001")
    order = Order(
        name="clearway-score-a-1",
        command=(),
        variables={},
        folder=folder,
        stage="serve",
        max_seconds=60,
        tags={"a": "b"},
    )
    job = jobs.start(order)
    assert jobs.start(order) == job
    jobs.stop(job)
    wait_until(lambda: not jobs.look(job).is_running)
    assert jobs.look(job).used


def _figures_notices_and_wishes(cloud: Environment) -> None:
    open_metrics(cloud).put([Point(name="ReleasesEnded", value=1.0)])
    open_notifier(cloud).tell(Notice(kind=Kind.REJECTED, product="rain", run="r1", text="gates did not pass"))
    (message,) = wishes.receive(cloud.events.queue)
    wishes.forget(cloud.events.queue, message)


@pytest.mark.parametrize("role", [role for role in ROLES if role != "container"])
def test_whatever_a_role_calls_it_may(policies, calls, role):
    asked = {str(request): request for call in calls[role] for request in requests_of(call)}
    assert asked
    assert [text for text, request in asked.items() if not allows(policies[role], request)] == []


def test_nothing_but_the_rooms_that_were_recorded_calls_aws():
    """So what they call is what stages, Airflow and containers call."""
    source = project_root() / "include" / "clearway"
    callers = {
        str(path.relative_to(source))
        for path in source.rglob("*.py")
        if re.search(r"infra\.aws\.client|\bboto3\b|\bbotocore\b", path.read_text(encoding="utf-8"))
    }
    others = {path for path in callers if not path.startswith("infra/aws/")}
    assert others <= {"approve/run.py", "launch/commands/stage.py", "serve/sagemaker.py"}


def test_whatever_a_role_may_is_called(policies, calls, record_property):
    num_granted = num_called = num_by_services = 0
    unused = []
    for role in ROLES:
        granted = {
            action
            for policy in policies[role]
            for statement in policy["Statement"]
            if statement["Effect"] == "Allow"
            for action in listed(statement["Action"])
        }
        called = {request.action for call in calls[role] for request in requests_of(call)} & granted
        by_services = BY_SERVICES.get(role, set()) - called
        assert by_services <= granted, f"{role} no longer has {sorted(by_services - granted)}"
        num_granted, num_called = num_granted + len(granted), num_called + len(called)
        num_by_services += len(by_services)
        unused += [f"{role}: {action}" for action in sorted(granted - called - by_services)]
    record_property("granted", num_granted)
    record_property("called_by_us", num_called)
    record_property("called_by_services", num_by_services)
    assert (num_called + num_by_services) / num_granted >= LEAST_USED, unused
    assert unused == []


def test_orders_carry_what_the_installation_is(cloud, calls):
    asked = {(call.operation, call.asked.get("jobDefinition", "")): call.asked for call in calls["airflow"]}
    assert {"SubmitJob", "CreateTrainingJob", "CreateModel"} <= {operation for operation, _ in asked}
    submitted = {name: order for (operation, name), order in asked.items() if operation == "SubmitJob"}
    assert set(submitted) == {"clearway-stage", "clearway-tune", "clearway-deploy", "clearway-nodes"}
    assert {order["shareIdentifier"] for order in submitted.values()} == {"ops"}
    network = {"Subnets": cloud.aws.subnets.split(), "SecurityGroupIds": cloud.aws.security_groups.split()}
    assert len(network["Subnets"]) == 2
    for operation in ("CreateTrainingJob", "CreateModel"):
        assert asked[operation, ""]["VpcConfig"] == network
